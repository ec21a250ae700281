"""LLaVA-OneVision: a picture alone as tiles, several whole, their tokens and places, as the library has them."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from scoring.files.reading import FileError
from scoring.inputs.families.llava_onevision import LLAVA_ONEVISION, AnyresPolicy
from scoring.inputs.families.registry import FamilyError, family_of_config, policy_of
from scoring.inputs.pixels import PictureTokens
from scoring.inputs.tokens import ChatPrompt, ChatTokenizer
from tests.shared.families import LLAVA_TEMPLATE, LLAVA_TOKENS, PINPOINTS, TILE, pinpoints_within, rename_control_tokens
from tests.shared.pictures import noise, write_settings

SHAPES = [(61, 47), (112, 112), (5, 9), (33, 640), (1000, 20), (224, 112), (640, 480), (57, 56), (3, 400), (300, 1)]
COLOURS = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
RESOLUTIONS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]
# As in the repositories of the hub.
PICTURES = {
    "size": {"height": 384, "width": 384},
    "image_grid_pinpoints": RESOLUTIONS,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
CONFIG = {
    "model_type": "llava_onevision",
    "vision_config": {"model_type": "siglip_vision_model", "patch_size": 14, "image_size": 384},
    "vision_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": RESOLUTIONS,
}


@pytest.fixture
def folder(tmp_path):
    return partial(write_settings, tmp_path, CONFIG, PICTURES)


def tiny_policy(most):
    resolutions = tuple((width // TILE, height // TILE) for height, width in pinpoints_within(most * TILE**2))
    budget = most * TILE**2
    return AnyresPolicy(budget, budget, 11, 1, 2, *COLOURS.values(), tile=TILE, resolutions=resolutions)


@pytest.fixture(scope="module")
def library():
    from transformers import LlavaOnevisionImageProcessorPil

    return LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, **COLOURS)


# ------------------------------------------------------------ pictures
@pytest.mark.parametrize("most", [1, 4, 16])
def test_tiles_of_a_picture_alone_equal_the_librarys_to_the_bit(library, most):
    policy = tiny_policy(most)
    for size in SHAPES:
        picture = noise("RGB", size)
        cut = library(images=[picture], image_grid_pinpoints=pinpoints_within(most * TILE**2), return_tensors="np")
        assert policy.grid(*size) == (most, *cut["image_sizes"][0])
        assert np.array_equal(policy.patches(picture), cut["pixel_values"][0]), size


def test_each_of_several_pictures_is_one_tile_equal_to_the_librarys_to_the_bit(library):
    policy, pictures = tiny_policy(4).for_count(len(SHAPES)), [noise("RGB", size) for size in SHAPES]
    cut = library(images=[pictures], image_grid_pinpoints=PINPOINTS, return_tensors="np")
    for picture, expected in zip(pictures, cut["pixel_values"], strict=True):
        assert policy.grid(*picture.size) == (0, 0, 0)
        assert np.array_equal(policy.patches(picture), expected), picture.size


def test_borders_are_black_around_a_picture_alone_and_of_the_mean_colour_around_others():
    """A white picture of 112 x 56 pixels in the two tiles beside each other, and in one of four; and on a square."""
    policy, white = tiny_policy(4), Image.new("RGB", (112, 28), "white")
    whole, *tiles = policy.resized(white).reshape(-1, TILE, TILE, 3)
    assert whole.min() == 255 and len(tiles) == 2
    assert [tile[14:42].min() for tile in tiles] == [255, 255] and max(
        tile[[0, 13, 42, 55]].max() for tile in tiles
    ) == 0
    square = policy.for_count(2).resized(white)
    assert square.shape == (TILE, TILE, 3) and square[28].min() == 255 and square[0, 0].tolist() == [123, 116, 103]


def test_only_the_number_of_pictures_makes_a_difference_and_one_makes_none(folder):
    policy = policy_of(folder())
    assert policy.for_count(1) is policy and policy.for_count(0) is policy
    assert policy.for_count(2) == policy.for_count(5) != policy and policy.for_count(2).for_count(1) == policy


def test_the_resolution_is_the_librarys_for_any_size(folder):
    from transformers.image_processing_utils import select_best_resolution

    random = np.random.default_rng(0)
    sizes = [*random.integers(1, 3000, (150, 2)).tolist(), [1, 3000], [3000, 1], [384, 384], [768, 384], [385, 384]]
    for budget in (384, 768, 1200, 2304):
        policy = policy_of(folder(), budget**2)
        within = [sides for sides in RESOLUTIONS if sides[0] * sides[1] <= budget**2]
        for width, height in sizes:
            columns, rows = policy.arrangement(width, height)
            assert (rows * 384, columns * 384) == select_best_resolution((height, width), within), (width, height)


# ------------------------------------------------------------ tokens
def test_the_number_of_tokens_is_the_librarys_for_any_size(folder):
    from transformers import LlavaOnevisionImageProcessorPil, LlavaOnevisionProcessor

    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    vars(processor).update(num_image_tokens=729, vision_aspect_ratio="anyres_max_9")
    random = np.random.default_rng(1)
    sizes = [*random.integers(1, 4000, (300, 2)).tolist(), [1, 3000], [3000, 1], [2304, 2304], [384, 384]]
    for budget in (384, 768, 2304):
        policy = policy_of(folder(), budget**2)
        within = [sides for sides in RESOLUTIONS if sides[0] * sides[1] <= budget**2]
        processor.image_processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=within)
        for width, height in sizes:
            expected = processor._get_number_of_features(height, width, 384, 384)
            assert policy.tokens(policy.grid(width, height)).count == expected, (width, height)


@pytest.mark.parametrize(
    "side, tokens",
    [
        (384, 729 + 21 * 28),  # one tile: 20.25 of 27 rows, to 21, so that as much is cut above as below
        (768, 729 + 40 * 55),  # two by two tiles: 40.5 of 54 rows
        (2304, 729 + 54 * 74),  # three by two tiles: 72 of 81 columns, to 73
    ],
)
def test_the_tokens_of_a_picture_of_800x600_worked_out_by_hand(folder, side, tokens):
    """The whole, and rows of patches that a token ends."""
    policy = policy_of(folder(), side**2)
    grid = policy.grid(800, 600)
    assert policy.tokens(grid) == PictureTokens(grid, tokens, None)
    several = policy.for_count(3)
    assert several.tokens(several.grid(800, 600)).count == 730 == policy.tokens((0, 0, 0)).count


def test_more_than_nine_tiles_have_the_tokens_of_nine(folder):
    """36 tiles have 162 rows of 162 patches, twice as many on a side."""
    policy = policy_of(folder(), 2304**2)
    assert policy.arrangement(3000, 3000) == (6, 6) and len(policy.resized(Image.new("RGB", (2304, 2304)))) == 37 * 384
    assert policy.tokens(policy.grid(3000, 3000)).count == 729 + 81 * 82


@pytest.mark.parametrize("pixels, budget, tiles", [(None, 448**2, 1), (768**2, 768**2, 4), (1, 1, 1)])
def test_the_budget_is_448x448_unless_given_and_at_least_one_tile(folder, pixels, budget, tiles):
    policy = policy_of(folder(), pixels)
    assert policy.max_pixels == budget and policy.grid(900, 900)[0] == tiles
    assert len(policy.resized(Image.new("RGB", (900, 900)))) == (1 + tiles) * 384


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": {"height": 384, "width": 192}}, "found tiles of size .* expected squares of 14 pixels or more"),
        ({"size": {"shortest_edge": 384}}, "found tiles of size"),
        ({"image_grid_pinpoints": []}, "found image_grid_pinpoints .* multiples of 384 pixels"),
        ({"image_grid_pinpoints": [[384, 384], [384, 400]]}, r"pinpoints \[\[384, 400\]\]; expected pairs"),
        ({"image_grid_pinpoints": [[384]]}, "expected pairs of height and width"),
        ({"vision_aspect_ratio": "anyres"}, "vision_aspect_ratio 'anyres'; expected anyres_max_9 or alike"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder, changes, message):
    with pytest.raises(FileError, match=message):
        policy_of(folder(**changes))


# ------------------------------------------------------------ configuration
def test_what_the_picture_settings_leave_out_follows_from_the_configuration():
    vision = {"patch_size": 16}
    changed = {"vision_config": vision, "image_grid_pinpoints": [[1, 2]], "vision_aspect_ratio": "anyres_max_4"}
    defaults = LLAVA_ONEVISION.picture_defaults(changed)
    assert (defaults["patch_size"], defaults["merge_size"], defaults["image_grid_pinpoints"]) == (16, 1, [[1, 2]])
    assert defaults["vision_aspect_ratio"] == "anyres_max_4"
    defaults = LLAVA_ONEVISION.picture_defaults({})
    assert (defaults["patch_size"], defaults["size"]["height"]) == (14, 384)
    assert defaults["image_grid_pinpoints"] == RESOLUTIONS and defaults["vision_aspect_ratio"] == "anyres_max_9"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"vision_config": {"model_type": "clip_vision_model"}}, "a vision tower of type 'clip_vision_model'"),
        ({"vision_feature_layer": -2}, "vision_feature_layer"),
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy"),
        ({"text_config": {"model_type": "llama"}}, "a language model of type 'llama'"),
        ({"text_config": {"model_type": "qwen2", "use_sliding_window": True}}, "a sliding window"),
    ],
)
def test_bases_that_would_be_computed_otherwise_are_refused(tmp_path, changes, message):
    assert family_of_config(CONFIG, tmp_path) is LLAVA_ONEVISION
    with pytest.raises(FamilyError, match=f"a LLaVA-OneVision with .*{message}"):
        family_of_config(CONFIG | changes, tmp_path)


@pytest.mark.parametrize(
    "name, module",
    [
        ("language_model.model.layers.3.mlp.up_proj.weight", "model.language_model.layers.3.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias", "model.vision_tower.encoder.layers.0.mlp.fc1.bias"),
        ("model.vision_tower.encoder.layers.0.mlp.fc1.bias", "model.vision_tower.encoder.layers.0.mlp.fc1.bias"),
        ("multi_modal_projector.linear_1.bias", "model.multi_modal_projector.linear_1.bias"),
        ("image_newline", "model.image_newline"),
        ("model.image_newline", "model.image_newline"),
        ("model.language_model.norm.weight", "model.language_model.norm.weight"),
    ],
)
def test_names_in_files_become_names_of_modules(name, module):
    assert LLAVA_ONEVISION.module_name(name) == module


# ------------------------------------------------------------ places
@pytest.fixture
def chat(base, folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder() / name).write_bytes((base / name).read_bytes())
    (folder() / "chat_template.jinja").write_text(LLAVA_TEMPLATE)
    rename_control_tokens(folder(), LLAVA_TOKENS)
    return ChatTokenizer(folder())


@pytest.mark.parametrize(
    "user, written",
    [
        ((0, "q"), "<image>\nq"),  # as the template writes it
        ((1, 0, "q"), "<image><image>\nq"),
        (("q",), "\nq"),
        ((0, "q", 1), "\n<image>q<image>"),  # which it would put before the text
        (("q", 0, "r", 1, "s"), "\nq<image>r<image>s"),
    ],
)
def test_pictures_between_texts_are_tokens_within_a_text(chat, user, written):
    pictures = [PictureTokens((1, 56, 56), 1, None), PictureTokens((0, 0, 0), 1, None)]
    sequence = chat.encode(ChatPrompt("s", user, pictures))
    text = chat.tokenizer.decode(sequence.ids.tolist(), skip_special_tokens=False)
    assert text == f"<|im_start|>system \ns<|im_end|><|im_start|>user {written}<|im_end|><|im_start|>assistant\n"
    assert [placed.index for placed in sequence.pictures] == [part for part in user if isinstance(part, int)]
    assert all(sequence.ids[placed.tokens].tolist() == [chat.control["<image>"]] for placed in sequence.pictures)


def test_a_cells_own_image_token_is_text(chat):
    sequence = chat.encode(ChatPrompt("", ("<image>", 0, "<image>"), [PictureTokens((0, 0, 0), 1, None)]))
    assert (sequence.ids == chat.control["<image>"]).sum() == 1
