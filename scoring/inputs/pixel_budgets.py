"""How many pixels a picture may have for the model, as people write it: `448` for 448 x 448, or `200704`."""

from scoring.errors import ScoringError

SMALLEST_SIDE, LARGEST_SIDE = 32, 10_000  # from this number on it is one of pixels


class PixelsError(ScoringError):
    """A pixel budget that cannot be meant."""


def parse_pixels(text: str) -> int:
    """A number of pixels from the side of a square, or (from 10,000 on) from itself. Raises PixelsError."""
    if not text.strip().isdecimal():
        raise PixelsError(
            f"pixels {text!r}: expected the side of a square or a number of pixels, such as 448 or 200704"
        )
    number = int(text)
    if number < SMALLEST_SIDE:
        raise PixelsError(f"pixels {text!r}: expected a side of at least {SMALLEST_SIDE}")
    return number**2 if number < LARGEST_SIDE else number
