"""What commands import and make at their start, made once in the process from which they are forked."""

import gc
from importlib import import_module

from benchmarks.command_line import LIBRARIES


def preload() -> None:
    """Import all, without the garbage collector: it would go through a million objects again and again."""
    from scoring.engine.loading import why_no_4bit

    gc.disable()
    why_no_4bit()  # imports bitsandbytes, which must come before the others
    for library in LIBRARIES:
        import_module(library)
    from PIL import Image
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from scoring.checkpoints.adapter_config import AdapterConfig
    from scoring.checkpoints.checkpoint import Manifest
    from scoring.files.reading import validator_of
    from scoring.report.records import FILES
    from scoring.scores.folder import RunRecord
    from scoring.stats.calibration import Calibration

    get_checkpoint_conversion_mapping("qwen3_vl")  # the first call compiles a thousand patterns
    Image.init()  # all formats
    for kind in (AdapterConfig, Calibration, Manifest, RunRecord, *FILES):
        validator_of(kind)  # kept for the next call
    gc.freeze()
    gc.enable()


try:
    preload()
except ImportError as error:  # which the fork server would pass over: every command would import all by itself
    raise RuntimeError("what commands are forked from cannot be imported") from error
