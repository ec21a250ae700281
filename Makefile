# Everything runs in .venv, which the first call makes. `make demo` and `make test` need nothing but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint browser mutation clean

$(VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(VENV)/.installed  ## fine-tune the demo model, score its test table, evaluate: about two minutes on two cores
	$(BIN)/python cli.py check demo/test.csv
	$(BIN)/python cli.py train demo/train.csv --base demo/base --out demo/run/checkpoint --learning-rate 1e-3 --batch 8 --epochs 2 --overwrite
	$(BIN)/python cli.py score demo/test.csv --ckpt demo/run/checkpoint --out demo/run/scores --overwrite
	@echo; head -n 4 demo/run/scores/probabilities.csv

# Two processes with a thread each: with two threads each they would wait for each other. The longest files come first.
test: $(VENV)/.installed lint browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Chromium for the tests of the report page; they are skipped, with this reason, where it cannot be installed.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	{ echo "installing Chromium for the tests of the report page"; \
	  export DEBIAN_FRONTEND=noninteractive; SUDO=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	  timeout 300 $$SUDO apt-get update -qq && timeout 300 $$SUDO apt-get install -qq -y --no-install-recommends chromium; \
	} >/dev/null 2>&1 || echo "no Chromium here, and it could not be installed: those tests are skipped"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# Mutation testing, by hand: what it does and how to run a part of it is in benchmarks/mutation.py.
mutation: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'mutmut>=3.8.1,<4'
	@mkdir -p mutants && echo '*' > mutants/.gitignore
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/mutmut run --max-children 1 $(MUTANTS)
	$(BIN)/python -m benchmarks.mutation

clean:
	rm -rf $(VENV) *.egg-info build demo/run scores bench
