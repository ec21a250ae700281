"""Pictures as tiles: how many, which, and what they hold, as the library's processor cuts them, to the bit."""

from functools import partial

import numpy as np
import pytest

from scoring.files.reading import FileError
from scoring.inputs.families.internvl import INTERNVL, TilePolicy
from scoring.inputs.families.registry import policy_of
from scoring.inputs.pixels import PictureTokens
from scoring.inputs.tokens import ChatPrompt, ChatTokenizer, TokenError
from tests.shared.families import INTERNVL_TEMPLATE, INTERNVL_TOKENS, rename_control_tokens
from tests.shared.pictures import noise, write_settings

# As in InternVL3's repositories.
PICTURES = {
    "size": {"height": 448, "width": 448},
    "crop_to_patches": False,
    "min_patches": 1,
    "max_patches": 12,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
CONFIG = {"model_type": "internvl", "vision_config": {"patch_size": [14, 14]}, "downsample_ratio": 0.5}


@pytest.fixture
def folder(tmp_path):
    return partial(write_settings, tmp_path, CONFIG, PICTURES)


@pytest.mark.parametrize("most", [2, 6, 12])
@pytest.mark.parametrize("size", [(61, 47), (112, 112), (5, 9), (33, 640), (1000, 20), (224, 112), (640, 480)])
def test_tiles_equal_those_of_the_library_to_the_bit(size, most):
    from transformers import GotOcr2ImageProcessorPil

    colours = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
    library = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, **colours)
    policy = TilePolicy(56 * 56, most * 56 * 56, 14, 2, 2, *colours.values(), tile=56)
    picture = noise("RGB", size)
    cut = library(images=[picture], crop_to_patches=True, max_patches=most, return_tensors="np")
    assert policy.grid(*size) == (cut["num_patches"][0], 4, 4)
    assert np.array_equal(policy.patches(picture), cut["pixel_values"])


@pytest.mark.parametrize("fewest, most", [(1, 1), (1, 5), (1, 12), (3, 8), (4, 2)])
def test_the_arrangement_is_the_librarys_for_any_size(fewest, most):
    """On random sizes, and on those where two arrangements have the same ratio."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    policy = TilePolicy(fewest * 448**2, most * 448**2, 14, 2, tile=448)
    random = np.random.default_rng(0)
    sizes = [*random.integers(1, 3000, (500, 2)).tolist(), *random.integers(1, 8, (50, 2)).tolist()]
    sizes += [[side * columns, side * rows] for side in (317, 448, 634) for columns in (1, 2, 3) for rows in (1, 2, 4)]
    for width, height in sizes:
        expected = get_optimal_tiled_canvas((height, width), (448, 448), fewest, most)
        assert policy.arrangement(width, height) == expected, (width, height)


def test_a_picture_of_800x600_worked_out_by_hand(folder):
    """4 columns and 3 rows have its ratio, and a thumbnail follows: 13 tiles of 32x32 patches, 16x16 tokens each."""
    policy = policy_of(folder(), 12 * 448 * 448)
    assert policy.arrangement(800, 600) == (4, 3) and policy.size(800, 600) == (1792, 1344)
    grid = policy.grid(800, 600)
    assert grid == (13, 32, 32) and policy.tokens(grid) == PictureTokens(grid, 3328, None)
    assert policy.resized(noise("RGB", (800, 600))).shape == (13 * 448, 448, 3)


def test_the_larger_of_two_equal_arrangements_needs_a_picture_of_half_its_pixels():
    """2x2 tiles of 100 pixels are 40,000: a square of 142x142 has more than half of them, one of 141x141 has not."""
    policy = TilePolicy(100**2, 4 * 100**2, 10, 2, tile=100)
    assert [policy.arrangement(side, side) for side in (141, 142)] == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    "pixels, budget, tokens", [(None, 448**2, 256), (560**2, 560**2, 256), (2 * 448**2, 2 * 448**2, 768), (1, 1, 256)]
)
def test_the_budget_is_448x448_unless_given_and_at_least_one_tile(folder, pixels, budget, tokens):
    policy = policy_of(folder(), pixels)
    assert policy.max_pixels == budget
    assert policy.tokens(policy.grid(900, 450)).count == tokens


def test_the_fewest_tiles_of_the_base_are_kept(folder):
    policy = policy_of(folder(min_patches=2))
    assert policy.max_pixels == 2 * 448**2 and policy.grid(500, 400) == (3, 32, 32)


def test_numbers_of_tiles_that_cannot_be_are_refused(folder):
    with pytest.raises(FileError, match="found impossible patch sizes"):
        policy_of(folder(min_patches=0))


def test_a_budget_of_a_thousand_tiles_is_no_burden(folder):
    """As many as the ratio asks for: 40 columns and 25 rows of a picture of 1.6."""
    assert policy_of(folder(), 1000 * 448**2).arrangement(16_000, 10_000) == (40, 25)


@pytest.mark.parametrize(
    "size", [{"height": 450, "width": 450}, {"height": 448, "width": 224}, {"shortest_edge": 448}, {}]
)
def test_tiles_that_cannot_be_are_refused(folder, size):
    with pytest.raises(FileError, match="found tiles of size .* expected squares, multiples of 28 pixels"):
        policy_of(folder(size=size))


def test_patches_and_tokens_follow_from_the_configuration():
    defaults = INTERNVL.picture_defaults({"vision_config": {"patch_size": 16}, "downsample_ratio": 0.25})
    assert (defaults["patch_size"], defaults["merge_size"]) == (16, 4)
    defaults = INTERNVL.picture_defaults({})
    assert (defaults["patch_size"], defaults["merge_size"], defaults["size"]["height"]) == (14, 2, 384)


# ------------------------------------------------------------ tokens
@pytest.fixture
def chat_folder(base, folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder() / name).write_bytes((base / name).read_bytes())
    (folder() / "chat_template.jinja").write_text(INTERNVL_TEMPLATE)
    return folder()


def test_a_pictures_tokens_stand_between_two_others(chat_folder):
    """As the library's processor puts them; the template writes the picture's token alone."""
    rename_control_tokens(chat_folder, INTERNVL_TOKENS)
    chat = ChatTokenizer(chat_folder)
    pictures = [PictureTokens((1, 4, 4), 4, None), PictureTokens((3, 4, 4), 12, None)]
    sequence = chat.encode(ChatPrompt("", (1, "<img>", 0), pictures))
    image, before, after = (chat.control[name] for name in ("<IMG_CONTEXT>", "<img>", "</img>"))
    for placed, count in zip(sequence.pictures, (12, 4), strict=True):
        start, stop = placed.tokens.start, placed.tokens.stop
        assert sequence.ids[start - 1 : stop + 1].tolist() == [before, *[image] * count, after]
    assert (sequence.ids == before).sum() == 2  # the text's own is no control token
    assert np.array_equal(sequence.positions(), np.tile(np.arange(len(sequence.ids)), (3, 1)))


def test_a_tokenizer_without_them_is_refused(chat_folder):
    rename_control_tokens(chat_folder, {"<|image_pad|>": "<IMG_CONTEXT>", "": ()})
    with pytest.raises(TokenError, match="the tokenizer has no <img>; expected that of InternVL"):
        ChatTokenizer(chat_folder)
