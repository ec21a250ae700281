"""What the device of a tensor can do."""

import torch

from scoring.engine.capabilities import find_triton, has_flash, has_kernels


def test_a_cpu_has_neither_flash_attention_nor_kernels():
    for dtype in (torch.float32, torch.bfloat16):
        assert not has_flash(torch.ones(2, dtype=dtype)) and not has_kernels(torch.ones(2, dtype=dtype))


def test_triton_is_looked_for_without_importing_it():
    import importlib.util

    assert find_triton() == (importlib.util.find_spec("triton") is not None)
