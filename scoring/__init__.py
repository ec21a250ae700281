"""Logit scoring for multiple-choice visual questions.

from scoring import Scorer, read_questions

scorer = Scorer.load("demo/checkpoints/fold0")
logits = scorer.score(read_questions("demo/test.csv"))
scorer.ask("cat.jpg", "What is this?", ["a dog", "a cat", "a hen", "a cow"])
"""

import os
from importlib import import_module, metadata

# Before the first product: without it MKL's sums depend on where in memory the numbers happen to lie, so that one of
# eight trainings ended with other bits (benchmarks/LOG.md). It costs nothing that could be measured.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

__version__ = "0.1.0"
_FROM = {
    "Scorer": "scoring.engine.scorer",
    "OptionLogits": "scoring.scores.logits",
    "PromptTemplate": "scoring.inputs.prompt",
    "Question": "scoring.inputs.questions",
    "read_questions": "scoring.inputs.questions",
    "InputError": "scoring.errors",
}
__all__ = ["__version__", "versions", *_FROM]


def __getattr__(name: str):
    """The public names, imported when they are first used: `import scoring` loads no torch."""
    if name in _FROM:
        return getattr(import_module(_FROM[name]), name)
    raise AttributeError(f"module 'scoring' has no attribute {name!r}")


def versions() -> dict[str, str]:
    """The versions of everything that the numbers depend on."""
    found = {"scoring": __version__}
    for package in ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "pillow", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    return found
