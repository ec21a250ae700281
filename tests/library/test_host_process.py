"""A program that embeds the library finds its process as it was: nothing of it is changed but the modules in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the libraries do when they are imported is done before: a host has it from them, not from the product.
HOST = """
import gc, json, locale, logging, os, random, signal, sys, threading, warnings
import numpy, peft, scipy.special, sympy, torch, torch._inductor.compiler_bisector, transformers.modeling_utils
from huggingface_hub.utils import are_progress_bars_disabled
from transformers import AutoModelForImageTextToText
from transformers.utils import logging as transformers_logging
from PIL import Image

def state():
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn, torch.backends.cudnn, torch.backends]
    names = ["allow_tf32", "allow_bf16_reduced_precision_reduction", "enabled", "benchmark", "deterministic",
             "fp32_precision"]
    loggers = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {
        "environment": dict(os.environ),
        "filters of warnings": [str(each) for each in warnings.filters],
        "loggers": {name: [one.level, one.propagate, one.disabled, len(one.handlers), len(one.filters)]
                    for name, one in {**loggers, "": logging.root}.items()},
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "hooks": [str(each) for each in (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.meta_path)],
        "garbage": [gc.get_threshold(), gc.get_freeze_count(), gc.isenabled(), len(gc.callbacks)],
        "random": [str(random.getstate()), str(numpy.random.get_state()), torch.get_rng_state().tolist()],
        "torch": [str(torch.get_default_dtype()), str(torch.get_default_device()), torch.get_num_threads(),
                  torch.get_num_interop_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
                  torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(),
                  [[str(getattr(each, name, None)) for name in names] for each in backends],
                  torch.nn.init.kaiming_uniform_.__module__, str(torch.compile), torch._dynamo.config.disable],
        "transformers": [transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled(),
                         are_progress_bars_disabled(), str(transformers_logging._tqdm_hook),
                         str(vars(transformers.PreTrainedModel)["init_weights"]),
                         str(vars(transformers.PreTrainedModel).get("is_gradient_checkpointing"))],
        "Pillow": [Image.MAX_IMAGE_PIXELS],
        "modules": [name for name, module in sys.modules.items() if module is None],
        "process": [sys.path, os.getcwd(), locale.setlocale(locale.LC_ALL), sys.getrecursionlimit(),
                    os.umask(0o22), os.umask(0o22), sorted(thread.name for thread in threading.enumerate())],
    }

print("imported", file=sys.stderr)  # PEFT's import of bitsandbytes warns on processors with AVX512-BF16
before = state()
import scoring
after_import = state()
questions = scoring.read_questions("demo/test.csv")[:4]
with scoring.Scorer.load("demo/checkpoints/fold0") as scorer:
    answers = scorer.score(questions)
    first = questions[0]
    answer = scorer.ask(first.pictures, first.question, first.options)
after = state()
kept = lambda then: {
    what: {name: each for name, each in value.items() if name in before[what]} if what == "loggers" else value
    for what, value in then.items()
}
changed = [what for what in before for then in (kept(after_import), kept(after)) if then[what] != before[what]]
print(json.dumps({
    "changed": {what: [str(before[what])[:2000], str(after[what])[:2000]] for what in changed},
    "scored": int(answers.option_logits.scored.sum()), "sum": sum(answer.values()),
    "own": [logging.getLogger("scoring").level, logging.getLogger("bitsandbytes").level],
}))
"""


@pytest.fixture(scope="module")
def host() -> tuple[dict, str]:
    """What a program found that loaded, asked and closed a scorer, and what that printed on stderr."""
    unset = {"MKL_CBWR", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", HOST], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.partition("imported\n")[2]


def test_nothing_of_the_process_is_changed(host):
    found, _ = host
    assert found["changed"] == {} and found["scored"] == 4 and found["sum"] == pytest.approx(1)
    assert found["own"] == [0, 0]


def test_nothing_is_printed(host):
    assert host[1] == ""
