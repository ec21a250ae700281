"""The imports of commands, made once in the process from which commands are forked."""

from scoring.engine.loading import why_no_4bit

why_no_4bit()

import peft  # noqa: E402, F401 not before bitsandbytes
import transformers.integrations.bitsandbytes  # noqa: E402, F401
from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: E402

get_checkpoint_conversion_mapping("qwen3_vl")  # the first call compiles a thousand patterns
