# Everything runs in .venv, which the first call makes. `make demo` and `make test` need nothing but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

$(VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(VENV)/.installed  ## fine-tune the demo model, score its test table, evaluate: about two minutes on two cores
	$(BIN)/python cli.py check demo/test.csv
	$(BIN)/python cli.py train demo/train.csv --base demo/base --out demo/run/checkpoint --learning-rate 1e-3 --batch 8 --epochs 2 --overwrite
	$(BIN)/python cli.py score demo/test.csv --ckpt demo/run/checkpoint --out demo/run/scores --overwrite
	@echo; head -n 4 demo/run/scores/probabilities.csv

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) *.egg-info build demo/run scores bench
