"""Logit scoring for multiple-choice visual questions.

from scoring import Scorer, read_questions

scorer = Scorer.load("demo/checkpoints/fold0")
logits = scorer.score(read_questions("demo/test.csv"))
scorer.ask("cat.jpg", "What is this?", ["a dog", "a cat", "a hen", "a cow"])
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
_MODULE_OF = {
    "Scorer": ("scoring.library.scorer", "Scorer"),
    "OptionLogits": ("scoring.scores.logits", "OptionLogits"),
    "PromptTemplate": ("scoring.inputs.prompt", "PromptTemplate"),
    "Question": ("scoring.inputs.questions", "Question"),
    "read_questions": ("scoring.tables.reading", "read_questions"),
    "InputError": ("scoring.errors", "InputError"),
}
__all__ = ["__version__", "versions", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import scoring` loads no torch."""
    if name in _MODULE_OF:
        module, own_name = _MODULE_OF[name]
        return getattr(import_module(module), own_name)
    raise AttributeError(f"module 'scoring' has no attribute {name!r}")


def versions() -> dict[str, str]:
    """The versions of the packages that results depend on; "" for one that is not installed."""
    from importlib import metadata  # imported late: only results name versions

    installed = {"scoring": __version__}
    for package in ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "pillow", "numpy"):
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = ""
    return installed
