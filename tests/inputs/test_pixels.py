"""How pictures become patches, and how many: as the library's processors cut them, to the bit."""

import numpy as np
import pytest

from scoring.inputs.families.registry import policy_of
from scoring.inputs.pictures import to_rgb
from scoring.inputs.pixels import PixelPolicy
from tests.shared.pictures import noise, on_white


@pytest.fixture(scope="module")
def library(base):
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(base)


@pytest.mark.parametrize("size", [(61, 47), (192, 192), (1, 1), (33, 640), (1000, 20), (31, 33), (640, 480)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "LA", "RGBA"])
def test_patches_equal_those_of_the_library_to_the_bit(library, mode, size):
    picture = noise(mode, size)
    policy = PixelPolicy(192 * 192, 192 * 192)
    plain = (
        on_white(picture) if mode in ("LA", "RGBA") else picture
    )  # the library drops transparency; here it lies on white
    expected = library(images=[plain], return_tensors="np")
    rgb = to_rgb(picture)
    assert np.array_equal(policy.patches(rgb), expected["pixel_values"])
    assert policy.grid(*rgb.size) == tuple(expected["image_grid_thw"][0])


@pytest.mark.parametrize("budget", [448 * 448, 1024, 65_536])
def test_the_pixel_budget_is_honoured(library, budget):
    for size in ((640, 480), (3000, 20), (17, 900), (448, 448)):
        picture = noise("RGB", size)
        expected = library(
            images=[picture], size={"shortest_edge": budget, "longest_edge": budget}, return_tensors="np"
        )
        policy = PixelPolicy(budget, budget)
        assert policy.grid(*size) == tuple(expected["image_grid_thw"][0])
        assert np.array_equal(policy.patches(picture), expected["pixel_values"])


def test_the_pixel_budget_is_that_of_the_base_unless_given(base, tmp_path):
    assert policy_of(base).max_pixels == 192 * 192
    assert policy_of(base, 50_000).max_pixels == 50_000
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    (tmp_path / "preprocessor_config.json").write_text(
        '{"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "patch_size": 16}'
    )
    assert policy_of(tmp_path).min_pixels == policy_of(tmp_path).max_pixels == 448 * 448
