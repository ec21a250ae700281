"""Shared pieces: the demo's files, and one loaded scorer for the whole run."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import command_line
from tests.shared.tables import copy_rows

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")  # as in cli.py
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# With AMX, oneDNN sums a bfloat16 product by the number of its rows; here the CPU stands for cards, which do not.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
gc.set_threshold(100_000)  # as in cli.py; no more, since here errors keep the frames that they went through
ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Without the garbage collector: it would go through the million objects of all imports again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def demo() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def base(demo) -> Path:
    return demo / "base"


@pytest.fixture(scope="session")
def scorer(demo):
    """The demo's first checkpoint on its 4-bit base, float32 arithmetic."""
    from scoring.engine.batch_scorer import BatchScorer

    return BatchScorer.load(str(demo / "checkpoints" / "fold0"))


@pytest.fixture(scope="session")
def asked(scorer, demo):
    """A `Scorer` around the model that all tests share."""
    from scoring.library.scorer import Scorer
    from scoring.library.settings import ScorerSettings
    from scoring.run.options import ModelOptions

    settings = ScorerSettings((str(demo / "checkpoints" / "fold0"),), ModelOptions(), verify=False)
    with Scorer(settings, scorer) as public:
        yield public


@pytest.fixture(scope="session")
def preparer(base):
    """That of the demo's base, with the default prompt."""
    from scoring.inputs.families.registry import policy_of
    from scoring.inputs.prepare import Preparer
    from scoring.inputs.prompt import PromptTemplate

    return Preparer.of_base(base, PromptTemplate(), policy_of(base))


@pytest.fixture(scope="session")
def plain_base(base):
    """The demo's base in float32, without adapters."""
    from scoring.engine.loading import Model

    return Model.load(base, "none")


@pytest.fixture(scope="session")
def configured():
    """Write a folder with a configuration and changes to its language model; a mixture where those have experts."""

    def write(folder: Path, config: dict, text: dict) -> Path:
        folder.mkdir(exist_ok=True)
        config = json.loads(json.dumps(config))
        config["text_config"] |= text
        config["vision_config"]["out_hidden_size"] = config["text_config"]["hidden_size"]
        if "num_experts" in text:
            config["model_type"], config["architectures"] = "qwen3_vl_moe", ["Qwen3VLMoeForConditionalGeneration"]
            for tower in ("text", "vision"):
                config[f"{tower}_config"]["model_type"] = f"qwen3_vl_moe_{tower}"
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


@pytest.fixture(scope="session")
def mixture(base, configured, tmp_path_factory) -> Path:
    """The demo's base with eight experts in each layer, of random weights."""
    import torch

    from scoring.engine.loading import Model

    known = Model.load(base, "none").network.state_dict()  # first: it imports bitsandbytes
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("mixture") / "base"
    shutil.copytree(base, folder)
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
    configured(folder, json.loads((base / "config.json").read_text()), experts)
    network = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.state_dict().items():
        if name in known:
            weight.copy_(known[name])
        else:
            weight.normal_(0, 0.2 if "gate.weight" in name else 0.05, generator=generator)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def test_rows(demo):
    from scoring import read_questions

    return read_questions(demo / "test.csv")


@pytest.fixture
def cli():
    """Run the command line in a process of its own."""

    def call(*arguments, check: int | None = 0, cwd: Path = ROOT, env: dict | None = None):
        if env is None:
            done = command_line.run(*arguments, cwd=cwd)
        else:  # variables that the interpreter reads when it starts
            command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
            done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=280)
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def loaded_scorers() -> list:
    return []


@pytest.fixture
def known_models(loaded_scorers, monkeypatch):
    """Runs in this process take a model that another has loaded, with its adapters, as the runs of one call do."""
    from scoring.run import loader

    load = loader.BatchScorer

    def known(plan, device=None, weights="auto"):
        for of_weights, scorer in loaded_scorers:
            if of_weights == (device, weights) and scorer.fits(plan):
                return scorer.with_plan(plan)
        scorer = load(plan, device, weights=weights)
        loaded_scorers[3:] = []  # those of the last four
        loaded_scorers.insert(0, ((device, weights), scorer))
        return scorer

    monkeypatch.setattr(loader, "BatchScorer", known)


@pytest.fixture
def quick_cli(known_models, monkeypatch):
    """Run the command line in this process, with models that are loaded: for what needs no process of its own."""
    from click.testing import CliRunner

    import cli

    monkeypatch.chdir(ROOT)

    def call(*arguments, check: int = 0):
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["cli.py", *words])
        done = CliRunner().invoke(cli.main, words)
        assert done.exit_code == check, f"exit {done.exit_code}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def small_table(tmp_path, demo):
    """A table of the first rows of the demo's test.csv, with its pictures, in a folder of its own."""

    def make(rows: int = 6, name: str = "small.csv") -> Path:
        return copy_rows(demo, tmp_path, rows, name)

    return make


@pytest.fixture
def sharded(plain_base, base, tmp_path) -> Path:
    """The demo's base in float32, in shards."""
    folder = tmp_path / "sharded"
    plain_base.network.save_pretrained(folder, max_shard_size="5MB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
        shutil.copy(base / name, folder)
    return folder
