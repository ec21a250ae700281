"""What commands import and make at their start, made once in the process from which they are forked."""

import gc
from importlib import import_module

from benchmarks.command_line import LIBRARIES
from scoring.engine.loading import why_no_4bit

gc.disable()  # it would go through the million objects of all imports again and again
why_no_4bit()

import peft  # noqa: E402, F401 not before bitsandbytes
import transformers.integrations.bitsandbytes  # noqa: E402, F401
from PIL import Image  # noqa: E402
from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: E402

from scoring.checkpoints.adapter_config import AdapterConfig  # noqa: E402
from scoring.checkpoints.checkpoint import Manifest  # noqa: E402
from scoring.files.reading import _validator  # noqa: E402
from scoring.inputs.pictures import _Preprocessor  # noqa: E402
from scoring.inputs.prepare import _Config  # noqa: E402
from scoring.report.records import FILES  # noqa: E402
from scoring.run.run_folder import _Decisions  # noqa: E402
from scoring.run.shards import _Shard  # noqa: E402
from scoring.scores.folder import RunRecord  # noqa: E402
from scoring.stats.calibration import Calibration  # noqa: E402

get_checkpoint_conversion_mapping("qwen3_vl")  # the first call compiles a thousand patterns
Image.init()  # all formats
for kind in (AdapterConfig, Calibration, Manifest, RunRecord, _Config, _Decisions, _Preprocessor, _Shard, *FILES):
    _validator(kind)  # kept for the next call
for library in LIBRARIES:
    import_module(library)
gc.freeze()
gc.enable()
