"""A linear layer that multiplies once."""

from contextlib import contextmanager

import pytest
import torch

from scoring.engine import linear
from scoring.engine.linear import half_product, uneven_linears, whole_sums
from scoring.engine.stand_in import unwrap


@pytest.mark.parametrize("scale", [1e-8, 1.0, 3e4, 1e9])
def test_float16_products_do_not_overflow(scale):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 64) * scale, torch.randn(8, 64).half(), torch.randn(8).half()
    exact = x @ weight.float().T + bias.float()
    assert torch.allclose(half_product(x, weight, bias), exact, rtol=5e-3, atol=0.02 * scale)


def test_layers_of_uneven_rows_answer_as_before_and_can_be_taken_off():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(30, 8), torch.nn.Linear(8, 3)).bfloat16()
    rows, plain = torch.randn(5, 30).bfloat16(), network[0]
    expected = network(rows)
    replacements = uneven_linears(network)
    assert [replacement.name for replacement in replacements] == ["0"]  # 60 bytes a row; the other has 16
    replacements[0].put_in()
    assert network[0] is not plain and torch.equal(network(rows), expected)
    assert not uneven_linears(network)  # what stands for a layer is not stood for again
    unwrap(network)
    assert network[0] is plain


def test_the_last_thread_to_leave_puts_the_settings_of_products_back(monkeypatch):
    """With two models on one card, the first to be done must not change how the other one's sums are made."""
    states = ["left"]

    @contextmanager
    def set_to_whole_sums():
        states.append("whole")
        yield
        states.append("left")

    monkeypatch.setattr(linear, "_set_to_whole_sums", set_to_whole_sums)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    first, second = whole_sums(), whole_sums()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert states == ["left", "whole"]
    second.__exit__(None, None, None)
    assert states == ["left", "whole", "left"]
    with pytest.raises(KeyError), whole_sums():
        raise KeyError
    assert states[3:] == ["whole", "left"]
