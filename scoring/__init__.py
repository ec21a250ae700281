"""Logit scoring for multiple-choice visual questions: one forward pass, calibrated probabilities.

>>> from scoring import Scorer, read_questions
>>> questions = read_questions("demo/test.csv")
>>> with Scorer.load("demo/checkpoints/fold0") as scorer:
...     answers = scorer.score(questions[:8])
...     answer = scorer.ask("demo/images/004c8b4f1d.jpg", "What is shown?", ["a dog", "a cat", "a hen", "a cow"])
>>> len(answers), sorted(answer), round(sum(answer.values()), 6)
(8, ['a', 'b', 'c', 'd'], 1.0)

`Scorer` answers from any thread, and `Answers` is what a folder of results holds: neither writes a file by itself. The
functions `check`, `train`, `score`, `merge`, `bench`, `soup`, `export` and `describe` do what the commands do, and
`metrics` judges anyone's probabilities. Lines for people go to the logger "scoring", at the level INFO, and what
deserves a look is a `ScoringWarning`. Whatever a caller can correct is a `ScoringError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers read; `_MODULE_OF` says the same
    from scoring.checkpoints.compatibility import MismatchError as MismatchError
    from scoring.checkpoints.weights import CheckpointError as CheckpointError
    from scoring.engine.guard import DisagreementError as DisagreementError
    from scoring.engine.loading import DeviceError as DeviceError
    from scoring.errors import CallError as CallError
    from scoring.errors import InputError as InputError
    from scoring.errors import Problem as Problem
    from scoring.errors import ScoringError as ScoringError
    from scoring.files.lock import LockError as LockError
    from scoring.files.reading import FileError as FileError
    from scoring.inputs.families.registry import FamilyError as FamilyError
    from scoring.inputs.orders import OrdersError as OrdersError
    from scoring.inputs.pictures import PictureError as PictureError
    from scoring.inputs.pictures import PictureLimits as PictureLimits
    from scoring.inputs.pixel_budgets import PixelsError as PixelsError
    from scoring.inputs.prompt import PromptTemplate as PromptTemplate
    from scoring.inputs.prompt import TemplateError as TemplateError
    from scoring.inputs.questions import Question as Question
    from scoring.inputs.tokens import TokenError as TokenError
    from scoring.library.answer import Answer as Answer
    from scoring.library.answers import Answers as Answers
    from scoring.library.ask_limits import AskLimits as AskLimits
    from scoring.library.ask_limits import CancelToken as CancelToken
    from scoring.library.benchmarking import bench as bench
    from scoring.library.calls import SetRequest as SetRequest
    from scoring.library.calls import read_questions as read_questions
    from scoring.library.calls import read_table as read_table
    from scoring.library.checking import check as check
    from scoring.library.checkpoints import describe as describe
    from scoring.library.checkpoints import export as export
    from scoring.library.checkpoints import soup as soup
    from scoring.library.messages import ScoringWarning as ScoringWarning
    from scoring.library.metrics import metrics as metrics
    from scoring.library.runs import merge as merge
    from scoring.library.runs import score as score
    from scoring.library.scorer import Scorer as Scorer
    from scoring.library.training import train as train
    from scoring.run.processes import ProcessError as ProcessError
    from scoring.scores.folder import RunError as RunError
    from scoring.scores.logits import OptionLogits as OptionLogits
    from scoring.stats.calibration import Calibration as Calibration
    from scoring.stats.checks import MetricsError as MetricsError
    from scoring.stats.pools import EnsembleError as EnsembleError
    from scoring.stats.sets import SetsError as SetsError
    from scoring.tables.reading import TableOptions as TableOptions
    from scoring.tables.table import Table as Table
    from train.config import ConfigError as ConfigError
    from train.config import TrainConfig as TrainConfig
    from train.folder import FolderError as FolderError
    from train.folds import FoldError as FoldError
    from train.inputs import TrainError as TrainError
    from train.log import LogError as LogError
    from train.split import SplitError as SplitError
    from train.state import StateError as StateError

    Template = PromptTemplate

__version__ = "0.1.0"
_NAMES_IN = {  # module -> what is public of it
    "scoring.checkpoints.compatibility": "MismatchError",
    "scoring.checkpoints.weights": "CheckpointError",
    "scoring.engine.guard": "DisagreementError",
    "scoring.engine.loading": "DeviceError",
    "scoring.errors": "CallError InputError Problem ScoringError",
    "scoring.files.lock": "LockError",
    "scoring.files.reading": "FileError",
    "scoring.inputs.families.registry": "FamilyError",
    "scoring.inputs.orders": "OrdersError",
    "scoring.inputs.pictures": "PictureError PictureLimits",
    "scoring.inputs.pixel_budgets": "PixelsError",
    "scoring.inputs.prompt": "PromptTemplate TemplateError",
    "scoring.inputs.questions": "Question",
    "scoring.inputs.tokens": "TokenError",
    "scoring.library.answer": "Answer",
    "scoring.library.answers": "Answers",
    "scoring.library.ask_limits": "AskLimits CancelToken",
    "scoring.library.benchmarking": "bench",
    "scoring.library.calls": "SetRequest read_questions read_table",
    "scoring.library.checking": "check",
    "scoring.library.checkpoints": "describe export soup",
    "scoring.library.messages": "ScoringWarning",
    "scoring.library.metrics": "metrics",
    "scoring.library.runs": "merge score",
    "scoring.library.scorer": "Scorer",
    "scoring.library.training": "train",
    "scoring.run.processes": "ProcessError",
    "scoring.scores.folder": "RunError",
    "scoring.scores.logits": "OptionLogits",
    "scoring.stats.calibration": "Calibration",
    "scoring.stats.checks": "MetricsError",
    "scoring.stats.pools": "EnsembleError",
    "scoring.stats.sets": "SetsError",
    "scoring.tables.reading": "TableOptions",
    "scoring.tables.table": "Table",
    "train.config": "ConfigError TrainConfig",
    "train.folder": "FolderError",
    "train.folds": "FoldError",
    "train.inputs": "TrainError",
    "train.log": "LogError",
    "train.split": "SplitError",
    "train.state": "StateError",
}
_MODULE_OF = {name: (module, name) for module, names in _NAMES_IN.items() for name in names.split()}
_MODULE_OF["Template"] = ("scoring.inputs.prompt", "PromptTemplate")
__all__ = ["__version__", "versions", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import scoring` loads no torch."""
    if name in _MODULE_OF:
        module, own_name = _MODULE_OF[name]
        globals()[name] = getattr(import_module(module), own_name)
        return globals()[name]
    raise AttributeError(f"module 'scoring' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion offers."""
    return __all__


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
