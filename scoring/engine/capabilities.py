"""What the device of a tensor can do: flash attention, Triton's kernels.

Next: `attention`, `linear` and `fused`, which have a slower way where it cannot.
"""

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch


def has_flash(tensor: torch.Tensor) -> bool:
    """Whether flash attention takes this tensor: 16 bits on a card of compute capability 8 or later."""
    return _computes(tensor.device, tensor.dtype)


def _computes(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and _compute_capability(device) >= (8, 0)


@cache
def _compute_capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def has_kernels(tensor: torch.Tensor) -> bool:
    """Whether `kernels` can compute this tensor here. A compiler fuses operations by itself."""
    return not torch.compiler.is_compiling() and device_has_kernels(tensor.device, tensor.dtype)


def device_has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `kernels` can compute tensors of this type on this device."""
    return _computes(device, dtype) and find_triton()


@cache
def find_triton() -> bool:
    """Whether Triton is installed: PyTorch for CPUs comes without."""
    return find_spec("triton") is not None


@cache
def kernels() -> ModuleType:
    """`scoring.engine.kernels`, which needs Triton."""
    from scoring.engine import kernels

    return kernels
