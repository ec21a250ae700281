"""Whether weights can be held in bitsandbytes' 4 bits here, and which are not. No torch of our own."""

import logging
import sys

_BROKEN: list[str] = []
NOT_QUANTIZED = ["lm_head", "model.visual"]


def why_no_4bit() -> str:
    """Why bitsandbytes cannot be used here; "" where it can."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it would tell that it misses that code
    kernels = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # with that package it would fetch compiled code from the hub, and run it
    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:  # a missing package, or a library that does not fit the card or system
        sys.modules["bitsandbytes"] = None  # so that PEFT, which only looks whether it is installed, does without too
        _BROKEN.append(str(error).strip().split("\n")[0])
        return _BROKEN[0]
    finally:
        if kernels is None:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = kernels
    return ""
