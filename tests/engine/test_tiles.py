"""InternVL: tiles of pictures in a batch, adapters on its tower and projector, names in files, several cards."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints.export import ExportOptions, export_model
from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.device_map import make_device_map
from scoring.engine.forward import TreeBatch
from scoring.engine.linear import TileProduct
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from scoring.inputs.families.internvl import INTERNVL
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
LANGUAGE = r"model\.language_model\..*\.(q_proj|down_proj)"
VISION = r"model\.vision_tower\..*\.(q_proj|fc1)|model\.multi_modal_projector\.linear_1"


@pytest.fixture(scope="module")
def tiles_base(base, tmp_path_factory):
    return tiny_base("internvl", base, tmp_path_factory.mktemp("internvl") / "base")


def scorer_of(folder, **options):
    Model.load(folder, "none")  # first: it imports bitsandbytes
    return BatchScorer(plan_members([str(folder)], quantization="none", pixels=PIXELS), **options)


@pytest.fixture(scope="module")
def tiled(tiles_base):
    return scorer_of(tiles_base)


@pytest.fixture(scope="module")
def tiled_rows(test_rows, tmp_path_factory):
    """Pictures of one, two (beside and below each other), three and four tiles; one of two pictures."""
    folder, shapes = tmp_path_factory.mktemp("pictures"), [(40, 40), (200, 100), (100, 200), (300, 100), (500, 500)]
    rows = []
    for number, shape in enumerate(shapes):
        read_picture(test_rows[number].pictures[0]).resize(shape).save(folder / f"{number}.png")
        rows.append(replace(test_rows[number], pictures=(folder / f"{number}.png",), sizes=(shape,)))
    both = {"pictures": (rows[1].pictures[0], rows[4].pictures[0]), "sizes": (shapes[1], shapes[4])}
    return [*rows, replace(test_rows[5], **both)]


def labels_by_the_library(network, scorer, rows):
    """(N, 4) label logits by transformers' own forward, PEFT's layers included where they are in the network."""
    logits = [reference_logits(network, *scorer.prepare(row))[scorer.label_ids[:4]] for row in rows]
    return torch.stack(logits).numpy()


def test_pictures_have_as_many_tokens_as_tiles(tiled, tiled_rows):
    """Four a tile, and one tile more where there are several."""
    grids = [tiled.prepare.encode(row).grids for row in tiled_rows]
    assert [[grid[0] for grid in row] for row in grids] == [[1], [3], [3], [4], [5], [3, 5]]
    counts = [int((tiled.prepare.encode(row).ids == tiled.prepare.chat.image_token_id).sum()) for row in tiled_rows]
    assert counts == [4, 12, 12, 16, 20, 32]


def test_a_pictures_features_have_the_same_bits_in_any_company(tiled, tiled_rows):
    """In float32 on the CPU, tile by tile."""
    assert [type(product) for product in tiled.packed.patches] == [TileProduct]
    alone = [picture_features(tiled, [row]) for row in tiled_rows[:5]]
    assert torch.equal(picture_features(tiled, tiled_rows[:5]), torch.cat(alone))


def test_in_bfloat16_a_row_has_the_same_bits_in_any_company(tiles_base, tiled_rows):
    scorer = scorer_of(tiles_base, dtype=torch.bfloat16)
    assert_same_bits(scorer, tiled_rows, (1, 4))


def test_float16_keeps_a_float32_tower_and_projector(tiled, tiles_base, tiled_rows):
    half = scorer_of(tiles_base, dtype=torch.float16)
    assert_float32_tower(half, tiled, tiled_rows)


def test_tower_and_projector_stay_unquantized(tiles_base):
    assert_only_language_is_quantized(tiles_base)


def test_the_host_never_asks_the_device_within_a_batch(tiled, tiled_rows, monkeypatch):
    """Not for positions either, by which the library finds packed sequences and long prompts."""

    looked: list[object] = []
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", looked.append)
    ready = with_tensors(prepare_batch(tiled.prepare, tiled_rows, "1"), "cpu")
    tiled.answer(ready, 4)
    with without_content() as mode:
        batch = TreeBatch(*map(partial(as_fake, mode), vars(ready.tensors).values()))
        answers = tiled.packed.answer(batch, tiled.label_ids[:4])
    assert [tuple(result.labels.shape) for result in answers] == [(6, 4)] and not looked


# ------------------------------------------------------------ adapters and names
def test_adapters_on_tower_and_projector_equal_peft(tiled, tiles_base, tiled_rows, tmp_path):
    """Beside one on the language model alone; under the names of today, and under those before transformers 4.52."""
    from peft import LoraConfig, get_peft_model

    expected = []
    for name, targets in (("seeing", f"{LANGUAGE}|{VISION}"), ("plain", LANGUAGE)):
        network = Model.load(tiles_base, "none").network
        peft = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
        for key, weight in peft.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.1)
        peft.save_pretrained(tmp_path / name)
        _with_older_names(tmp_path / name, tmp_path / f"older {name}")
        expected.append(labels_by_the_library(network, tiled, tiled_rows))
    for prefix in ("", "older "):
        folders = [str(tmp_path / f"{prefix}{name}") for name in ("seeing", "plain")]
        scorer = BatchScorer(plan_members(folders, str(tiles_base), None, PIXELS, "none", True))
        assert [(member.merged, member.adapts_vision) for member in scorer.packed.members] == [(1, 1), (1, 0)]
        logits = scorer.score(tiled_rows).logits
        assert np.abs(logits[:, 0] - logits[:, 1]).max() > 0.01
        for member, labels in enumerate(expected):
            assert np.abs(logits[:, member, 0] - labels).max() < 1e-4


def _with_older_names(folder, older):
    """An adapter as PEFT saved it when the library's modules had other names: tensors and patterns of targets."""
    shutil.copytree(folder, older)
    tensors = load_file(older / "adapter_model.safetensors")
    save_file({_older_name(name): tensor for name, tensor in tensors.items()}, older / "adapter_model.safetensors")
    settings = json.loads((older / "adapter_config.json").read_text())
    targets = settings["target_modules"].replace(r"model\.language_model\.", r"language_model\.model\.")
    settings["target_modules"] = targets.replace(r"model\.vision", "vision").replace(r"model\.multi", "multi")
    (older / "adapter_config.json").write_text(json.dumps(settings))


def _older_name(name):
    name = name.replace("model.model.model.language_model.", "model.model.language_model.model.")
    return name.replace("model.model.model.v", "model.model.v").replace("model.model.model.m", "model.model.m")


def test_a_base_with_the_names_of_today_gives_the_same(tiled, tiles_base, tiled_rows, tmp_path):
    folder = shutil.copytree(tiles_base, tmp_path / "base")
    stored = load_file(folder / "model.safetensors")
    assert {name.split(".")[0] for name in stored} == {"language_model", "vision_tower", "multi_modal_projector"}
    save_file({INTERNVL.module_name(name): tensor for name, tensor in stored.items()}, folder / "model.safetensors")
    assert np.array_equal(scorer_of(folder).score(tiled_rows).logits, tiled.score(tiled_rows).logits)


def test_a_head_shared_by_default_is_exported_too(base, tiled_rows, tmp_path):
    """A config.json that says nothing of it means a shared head here, and only here."""
    folder = tiny_base("internvl", base, tmp_path / "base", tied=True)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("tie_word_embeddings")
    (folder / "config.json").write_text(json.dumps(config))
    export_model(str(folder), tmp_path / "whole", options=ExportOptions(dtype="fp32"))
    before, after = (
        BatchScorer(plan_members([str(name)], quantization="none")).score(tiled_rows[:2]).logits
        for name in (folder, tmp_path / "whole")
    )
    assert np.array_equal(before, after)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_other_language_models_equal_the_library(base, tiled_rows, tmp_path, kind):
    """Those of InternVL3.5, and of InternVL3-9B."""
    changes = {"model_type": kind, "head_dim": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
    scorer = scorer_of(tiny_base("internvl", base, tmp_path / "base", tied=True, text=changes))
    expected = labels_by_the_library(scorer.model.network, scorer, tiled_rows)
    result = scorer.score(tiled_rows).logits[:, 0, 0]
    assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()


# ------------------------------------------------------------ several cards
@pytest.mark.parametrize("four_bit", [False, True])
def test_tower_and_projector_stand_whole_and_beside_the_embeddings(tiles_base, tiled, four_bit):
    size = sum(weight.nbytes for weight in tiled.model.network.parameters())
    free = dict.fromkeys(range(3), size * 2 // 3)
    device_map = make_device_map(tiles_base, torch.float32, four_bit, free)
    first = device_map["model.vision_tower"]
    assert device_map["model.multi_modal_projector"] == first == device_map["model.language_model.embed_tokens"]
    assert len(set(device_map.values())) > 1


@pytest.mark.parametrize(
    "inferred, first",
    [
        ({"model.vision_tower": 0, "model.multi_modal_projector": 1, "model.language_model": 1, "lm_head": 1}, 0),
        ({"lm_head": 2, "model": 1}, 1),
        ({"": 0}, 0),
    ],
)
def test_wherever_the_tower_is_the_projector_follows(tiles_base, monkeypatch, inferred, first):
    """Whatever accelerate would do: nothing moves the tower's features to another card."""
    monkeypatch.setattr("accelerate.infer_auto_device_map", lambda *_, **__: inferred)
    device_map = make_device_map(tiles_base, torch.float32, False, {0: 2**30})
    moved = ("model.multi_modal_projector", "model.language_model.embed_tokens", "model.language_model.rotary_emb")
    assert device_map == inferred | dict.fromkeys(moved, first)
