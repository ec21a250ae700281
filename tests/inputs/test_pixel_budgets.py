"""Pixel budgets as people write them."""

import pytest

from scoring.inputs.pixel_budgets import PixelsError, parse_pixels


@pytest.mark.parametrize("text, pixels", [("448", 448 * 448), (" 32 ", 1024), ("9999", 9999**2), ("200704", 200_704)])
def test_a_side_or_a_number_of_pixels_is_read(text, pixels):
    assert parse_pixels(text) == pixels


@pytest.mark.parametrize("text", ["31", "-1", "0.5", "192x192", "", "448,560"])
def test_what_is_neither_is_refused_with_what_is_expected(text):
    with pytest.raises(PixelsError, match="expected the side of a square or a number of pixels|a side of at least 32"):
        parse_pixels(text)
