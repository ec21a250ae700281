"""LLaVA-OneVision: both ways of cutting in one batch, budgets, adapters on its tower and projector, names in files."""

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.device_map import make_device_map
from scoring.engine.forward import TreeBatch
from scoring.engine.linear import TileProduct
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from scoring.inputs.families.llava_onevision import LLAVA_ONEVISION
from scoring.inputs.pictures import read_picture
from tests.shared.families import TILE, tiny_base
from tests.shared.references import as_fake, without_content
from tests.shared.towers import (
    assert_float32_tower,
    assert_only_language_is_quantized,
    assert_same_bits,
    picture_features,
)

PIXELS = 4 * TILE**2
TARGETS = r"model\.language_model\..*\.(q_proj|down_proj)|model\.vision_tower\..*\.(q_proj|fc1)|.*projector\.linear_1"


@pytest.fixture(scope="module")
def anyres_base(base, tmp_path_factory):
    return tiny_base("llava_onevision", base, tmp_path_factory.mktemp("anyres") / "base")


def scorer_of(folder, pixels=PIXELS, **options):
    Model.load(folder, "none")  # first: it imports bitsandbytes
    return BatchScorer(plan_members([str(folder)], quantization="none", pixels=pixels), **options)


@pytest.fixture(scope="module")
def anyres(anyres_base):
    return scorer_of(anyres_base)


@pytest.fixture(scope="module")
def anyres_rows(test_rows, tmp_path_factory):
    """Pictures of one tile, two (beside and below each other) and four, alone; two of them together; one twice."""
    folder, shapes = tmp_path_factory.mktemp("pictures"), [(40, 40), (200, 90), (100, 210), (500, 480)]
    rows = []
    for number, shape in enumerate(shapes):
        read_picture(test_rows[number].pictures[0]).resize(shape).save(folder / f"{number}.png")
        rows.append(replace(test_rows[number], pictures=(folder / f"{number}.png",), sizes=(shape,)))
    both = {"pictures": (rows[1].pictures[0], rows[3].pictures[0]), "sizes": (shapes[1], shapes[3])}
    twice = {"pictures": rows[2].pictures * 2, "sizes": rows[2].sizes * 2}
    return [*rows, replace(test_rows[4], **both), replace(test_rows[5], **twice)]


def labels_by_the_library(network, scorer, rows):
    """(N, 4) label logits by transformers' own forward, PEFT's layers included where they are in the network."""
    logits = [reference_logits(network, *scorer.prepare(row))[scorer.label_ids[:4]] for row in rows]
    return torch.stack(logits).numpy()


def close(scorer, rows):
    expected = labels_by_the_library(scorer.model.network, scorer, rows)
    return np.abs(scorer.score(rows).logits[:, 0, 0] - expected).max() < 1e-5 * np.abs(expected).max()


# ------------------------------------------------------------ batches
def test_a_picture_alone_and_among_others_in_one_batch_is_cut_in_both_ways(anyres, anyres_rows):
    """Five tiles where it is alone, and one beside another picture, where it is cut once for two questions."""
    alone, both = anyres_rows[3], anyres_rows[4]
    ready = prepare_batch(anyres.prepare, [alone, both, replace(both, id="again")], "1")
    assert ready.grids == [(4, 480, 500), (0, 0, 0), (0, 0, 0)]
    assert [len(pixels) // TILE for pixels in ready.pictures] == [5, 1, 1]
    assert ready.picture_numbers == [[0], [1, 2], [1, 2]]
    assert close(anyres, [alone, both])


def test_a_picture_twice_in_a_question_is_one_of_several(anyres, anyres_rows):
    ready = prepare_batch(anyres.prepare, anyres_rows[5:], "1")
    assert ready.grids == [(0, 0, 0)] and ready.picture_numbers == [[0, 0]]
    assert close(anyres, anyres_rows[5:])


def test_the_library_cuts_by_the_budget_of_the_pictures_that_it_is_given(anyres, anyres_base, anyres_rows):
    """A network that saw pictures of one budget sees those of a larger one, and of a smaller one."""
    for tiles in (1, 16, 2):
        prepare = scorer_of(anyres_base, tiles * TILE**2).prepare
        counts = [placed.grid[0] for row in anyres_rows[:4] for placed in prepare.encode(row).pictures]
        assert counts == [tiles] * 4
        other = BatchScorer(plan_members([str(anyres_base)], quantization="none", pixels=tiles * TILE**2))
        expected = labels_by_the_library(anyres.model.network, other, anyres_rows)
        assert np.abs(other.score(anyres_rows).logits[:, 0, 0] - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_pictures_features_have_the_same_bits_in_any_company(anyres, anyres_rows):
    """In float32 on the CPU, tile by tile."""
    assert [type(product) for product in anyres.packed.patches] == [TileProduct]
    alone = [picture_features(anyres, [row]) for row in anyres_rows[:4]]
    assert torch.equal(picture_features(anyres, anyres_rows[:4]), torch.cat(alone))


def test_in_bfloat16_a_row_has_the_same_bits_in_any_company(anyres_base, anyres_rows):
    scorer = scorer_of(anyres_base, dtype=torch.bfloat16)
    assert_same_bits(scorer, anyres_rows, (1, 4))


def test_float16_keeps_a_float32_tower_and_projector(anyres, anyres_base, anyres_rows):
    half = scorer_of(anyres_base, dtype=torch.float16)
    assert_float32_tower(half, anyres, anyres_rows)


def test_tower_and_projector_stay_unquantized(anyres_base):
    assert_only_language_is_quantized(anyres_base)


def test_the_host_never_asks_the_device_within_a_batch(anyres, anyres_rows):

    ready = with_tensors(prepare_batch(anyres.prepare, anyres_rows, "1"), "cpu")
    with without_content() as mode:
        batch = TreeBatch(*map(partial(as_fake, mode), vars(ready.tensors).values()))
        answers = anyres.packed.answer(batch, anyres.label_ids[:4])
    assert [tuple(result.labels.shape) for result in answers] == [(6, 4)]


# ------------------------------------------------------------ adapters, names and cards
def test_adapters_on_tower_and_projector_equal_peft(anyres, anyres_base, anyres_rows, tmp_path):
    from peft import LoraConfig, get_peft_model

    network = Model.load(anyres_base, "none").network
    peft = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM"))
    for key, weight in peft.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(weight, std=0.1)
    peft.save_pretrained(tmp_path / "adapter")
    expected = labels_by_the_library(network, anyres, anyres_rows)
    scorer = BatchScorer(plan_members([str(tmp_path / "adapter")], str(anyres_base), None, PIXELS, "none", True))
    assert [(member.merged, member.adapts_vision) for member in scorer.packed.members] == [(1, 1)]
    logits = scorer.score(anyres_rows).logits[:, 0, 0]
    assert (
        np.abs(logits - expected).max() < 1e-4 < 0.01 < np.abs(logits - anyres.score(anyres_rows).logits[:, 0, 0]).max()
    )


def test_a_base_with_the_names_of_today_gives_the_same(anyres, anyres_base, anyres_rows, tmp_path):
    folder = shutil.copytree(anyres_base, tmp_path / "base")
    stored = load_file(folder / "model.safetensors")
    roots = {"language_model", "vision_tower", "multi_modal_projector", "image_newline"}
    assert {name.split(".")[0] for name in stored} == roots
    save_file(
        {LLAVA_ONEVISION.module_name(name): tensor for name, tensor in stored.items()}, folder / "model.safetensors"
    )
    assert np.array_equal(scorer_of(folder).score(anyres_rows).logits, anyres.score(anyres_rows).logits)


def test_tower_and_projector_stand_whole_and_beside_the_embeddings(anyres_base, anyres):
    size = sum(weight.nbytes for weight in anyres.model.network.parameters())
    free = dict.fromkeys(range(3), size * 2 // 3)
    device_map = make_device_map(anyres_base, torch.float32, False, free)
    first = device_map["model.vision_tower"]
    assert device_map["model.multi_modal_projector"] == first == device_map["model.language_model.embed_tokens"]
    assert len(set(device_map.values())) > 1
