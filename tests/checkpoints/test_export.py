"""A checkpoint as one whole model: the same logits in plain transformers, in bounded memory, whole or not at all."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints import export
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.checkpoints.compatibility import MismatchError
from scoring.checkpoints.export import ExportOptions, export_adapter, export_model
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.soup import soup
from scoring.checkpoints.weights import CheckpointError
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from tests.shared.foreign_checkpoints import DYNAMIC, FILE, SEVEN, Workshop

UNQUANTIZED = ExportOptions(quantization="none")
IN_SHARDS = ExportOptions(quantization="none", shard_bytes=200_000)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, base):
    from scoring.engine.loading import why_no_4bit

    why_no_4bit()  # before PEFT imports bitsandbytes
    return Workshop(tmp_path_factory.mktemp("export"), base)


def label_logits(plan, rows) -> np.ndarray:
    return BatchScorer(plan, "cpu", torch.float32).score(rows).logits[:, 0, 0]


def by_transformers(folder: Path, rows, scorer: BatchScorer | None = None) -> np.ndarray:
    """(N, 4) label logits of the folder as transformers loads it by itself, in float32. scorer: of the same folder."""
    from transformers import AutoModelForImageTextToText

    network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    scorer = scorer or BatchScorer(plan_members([str(folder)]), "cpu", torch.float32)
    return np.stack([reference_logits(network, *scorer.prepare(row))[scorer.label_ids[:4]].numpy() for row in rows])


CASES = {
    "LoRA": lambda shop: shop.lora(),
    "rsLoRA with patterns": lambda shop: shop.lora(
        use_rslora=True, rank_pattern={"up_proj": 2}, alpha_pattern={"o_proj": 3}
    ),
    "DoRA": lambda shop: shop.lora(use_dora=True),
    "tied head": lambda shop: shop.lora(target_modules=[*SEVEN, "lm_head"]),
    "untied head": lambda shop: shop.on(shop.untied).lora(target_modules=["q_proj", "lm_head"]),
    "vision": lambda shop: shop.lora(target_modules=["attn.qkv", "merger.linear_fc1", "q_proj"]),
    "base in 4 bits": lambda shop: shop.on(shop.in_4_bits()).lora(),
    "base in 4 bits but for some layers": lambda shop: shop.on(shop.in_4_bits(skip=DYNAMIC)).lora(),
    "average": lambda shop: average(shop),
}


def average(shop: Workshop) -> Path:
    first = shutil.copytree(shop.lora(), shop.folder / "first", dirs_exist_ok=True)
    second = shutil.copytree(shop.lora(r=2), shop.folder / "second", dirs_exist_ok=True)
    shutil.rmtree(shop.folder / "average", ignore_errors=True)
    soup([str(first), str(second)], shop.folder / "average", base=str(shop.base))
    manifest = json.loads((shop.folder / "average" / "scoring.json").read_text())
    (shop.folder / "average" / "scoring.json").write_text(json.dumps(manifest | {"quantization": "none"}))
    return shop.folder / "average"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("case", CASES)
def test_the_exported_model_has_the_checkpoints_logits(shop, test_rows, tmp_path, case, quantization):
    shop.used, rows = shop.base, test_rows[:2]
    folder = CASES[case](shop)
    if "4 bits" in case and quantization == "none" or case == "average" and quantization == "nf4":
        pytest.skip("made for the other")
    before = label_logits(plan_members([str(folder)], str(shop.used), quantization=quantization), rows)
    exported = export_model(str(folder), tmp_path / "whole", str(shop.used), ExportOptions("fp32", quantization))
    scorer = BatchScorer(plan_members([str(tmp_path / "whole")]), "cpu", torch.float32)
    assert np.abs(by_transformers(tmp_path / "whole", rows, scorer) - before).max() < 1e-4
    assert scorer.plan.quantization == "none"
    assert np.abs(scorer.score(rows).logits[:, 0, 0] - before).max() < 1e-4
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    assert exported.size == sum(tensor.nbytes for tensor in tensors.values())
    assert ("lm_head.weight" in tensors) == (shop.used == shop.untied or case == "tied head")


@pytest.mark.parametrize("dtype, bound", [("bf16", 0.2), ("fp16", 0.02)])
def test_sixteen_bits_are_off_by_their_rounding_alone(shop, test_rows, tmp_path, dtype, bound):
    shop.used, rows = shop.base, test_rows[:2]
    folder = shop.lora()
    before = label_logits(plan_members([str(folder)], str(shop.base), quantization="none"), rows)
    export_model(str(folder), tmp_path / "whole", str(shop.base), ExportOptions(dtype, "none"))
    off = np.abs(by_transformers(tmp_path / "whole", rows) - before).max()
    assert 0 < off < bound
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {export.DTYPES[dtype]}
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["dtype"] == str(export.DTYPES[dtype])[6:]


def test_an_exported_checkpoint_keeps_its_calibration_prompt_and_rows(demo, test_rows, tmp_path):
    source = str(demo / "checkpoints" / "fold0")
    whole = tmp_path / "whole"
    export_model(source, whole, options=ExportOptions("fp32"))
    plan, before = plan_members([str(whole)]), plan_members([source])
    assert plan.calibrations[0].temperature == before.calibrations[0].temperature
    assert plan.template == before.template and plan.policy == before.policy
    assert (whole / "rows.parquet").read_bytes() == (demo / "checkpoints" / "fold0" / "rows.parquet").read_bytes()
    difference = label_logits(plan, test_rows[:4]) - label_logits(before, test_rows[:4])
    assert np.abs(difference).max() < 1e-4


def test_the_exported_picture_settings_have_the_checkpoints_pixels(demo, tmp_path):
    """Other engines read them alone, and those of a base allow much more."""
    source, base, whole = demo / "checkpoints" / "fold0", tmp_path / "base", tmp_path / "whole"
    shutil.copytree(demo / "base", base)
    settings = json.loads((base / "preprocessor_config.json").read_text())
    settings |= {"size": {"shortest_edge": 65536, "longest_edge": 16777216}, "max_pixels": 16777216}
    (base / "preprocessor_config.json").write_text(json.dumps(settings))
    (base / "processor_config.json").write_text(json.dumps({"image_processor": settings, "processor_class": "X"}))
    exported = export_model(str(source), whole, str(base), ExportOptions("fp32"))
    del settings["max_pixels"]
    settings["size"] = {"shortest_edge": 36864, "longest_edge": 36864}
    assert json.loads((whole / "preprocessor_config.json").read_text()) == settings
    nested = {"image_processor": settings, "processor_class": "X"}
    assert json.loads((whole / "processor_config.json").read_text()) == nested
    assert sum("the checkpoint's 36,864 pixels" in note for note in exported.notes) == 2
    assert plan_members([str(whole)]).policy == plan_members([str(source)]).policy


def test_a_mixtures_router_stays_as_it_is(mixture, test_rows, tmp_path):
    from peft import LoraConfig, get_peft_model

    network = Model.load(mixture, "none").network
    model = get_peft_model(network, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    before = label_logits(plan_members([str(tmp_path / "adapter")], str(mixture)), test_rows[:2])
    export_model(str(tmp_path / "adapter"), tmp_path / "whole", str(mixture), ExportOptions("fp32"))
    assert np.abs(label_logits(plan_members([str(tmp_path / "whole")]), test_rows[:2]) - before).max() < 1e-4


def test_fp4_is_the_same_for_score_and_export(shop, test_rows, tmp_path):
    shop.used = shop.base
    folder = shop.lora()
    (folder / "scoring.json").write_text(json.dumps({"base": str(shop.base), "quantization": "fp4"}))
    before = label_logits(plan_members([str(folder)]), test_rows[:2])
    export_model(str(folder), tmp_path / "whole", options=ExportOptions("fp32"))
    assert np.abs(label_logits(plan_members([str(tmp_path / "whole")]), test_rows[:2]) - before).max() < 1e-4
    in_nf4 = label_logits(plan_members([str(folder)], quantization="nf4", allow_mismatch=True), test_rows[:2])
    assert np.abs(in_nf4 - before).max() > 1e-2


def test_a_head_that_is_stored_beside_tied_embeddings_is_kept(shop, test_rows, tmp_path):
    base = shop.other_base("both heads")
    weights = load_file(base / "model.safetensors")
    head = weights["model.language_model.embed_tokens.weight"] * 1.5
    save_file(weights | {"lm_head.weight": head}, base / "model.safetensors", {"format": "pt"})
    before = label_logits(plan_members([str(base)], quantization="none"), test_rows[:2])
    export_model(str(base), tmp_path / "whole", options=ExportOptions("fp32"))
    assert np.abs(label_logits(plan_members([str(tmp_path / "whole")]), test_rows[:2]) - before).max() < 1e-4


def test_a_calibration_of_other_answers_stays_behind(demo, tmp_path):
    exported = export_model(
        str(demo / "checkpoints" / "fold0"), tmp_path / "whole", options=ExportOptions("fp32", "none")
    )
    assert any("no calibration is copied" in note for note in exported.notes)
    assert not list((tmp_path / "whole").glob("calibration*"))


@pytest.mark.parametrize("export_it", [export_model, export_adapter])
def test_what_score_refuses_is_not_exported(demo, shop, tmp_path, export_it):
    source = shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "fold0")
    (source / "vit.safetensors").write_bytes(b"weights")
    with pytest.raises(MismatchError, match="vit.safetensors beside the adapter"):
        export_it(str(source), tmp_path / "out", base=str(demo / "base"))
    (source / "vit.safetensors").unlink()
    with pytest.raises(MismatchError, match="base is 03d80e9197cb349c, but this run has"):
        export_it(str(source), tmp_path / "out", base=str(other_weights(demo / "base", tmp_path)))
    with pytest.raises(CheckpointError, match="2 checkpoints; export one of .*fold0, .*fold1, or make their `soup`"):
        export_it("demo/checkpoints", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def other_weights(base: Path, folder: Path) -> Path:
    """A base with one weight scaled by 1.01."""
    other = shutil.copytree(base, folder / "other")
    weights = load_file(base / "model.safetensors")
    name = "model.language_model.layers.2.mlp.up_proj.weight"
    save_file(weights | {name: weights[name] * 1.01}, other / "model.safetensors", {"format": "pt"})
    return other


def test_an_empty_folder_is_filled_and_a_base_that_lacks_a_weight_is_refused(shop, tmp_path):
    shop.used, folder = shop.base, shop.lora()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    export_model(str(folder), tmp_path / "link", str(shop.base), UNQUANTIZED)
    assert {"config.json", "model.safetensors", "scoring.json"} <= {
        path.name for path in (tmp_path / "folder").iterdir()
    }
    assert not (tmp_path / "folder" / ".unfinished").exists()
    base = shop.other_base("lacking")
    weights = load_file(base / "model.safetensors")
    weights.pop("model.language_model.norm.weight")
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="are not those of its config.json: model.language_model.norm.weight"):
        export_model(str(folder), tmp_path / "out", str(base), UNQUANTIZED)


def test_shards_are_written_one_at_a_time(shop, tmp_path, monkeypatch):
    shop.used = shop.base
    folder, sizes = shop.lora(), []
    save = export.save_file
    monkeypatch.setattr(
        export,
        "save_file",
        lambda tensors, *rest: sizes.append(sum(t.nbytes for t in tensors.values())) or save(tensors, *rest),
    )
    exported = export_model(str(folder), tmp_path / "whole", str(shop.base), IN_SHARDS)
    assert len(sizes) > 3 and sum(sizes) == exported.size
    assert sorted(sizes)[-2] <= 200_000 and max(sizes) == 64 * 4096 * 2  # the embeddings are larger than a shard
    index = json.loads((tmp_path / "whole" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(sizes) and index["metadata"]["total_size"] == exported.size


def test_a_killed_export_leaves_nothing_that_looks_whole(shop, tmp_path, monkeypatch):
    shop.used = shop.base
    folder, save = shop.lora(), export.save_file

    def die(tensors, path, *rest):
        save(tensors, path, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "save_file", die)
    with pytest.raises(KeyboardInterrupt):
        export_model(str(folder), tmp_path / "whole", str(shop.base), IN_SHARDS)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(export, "save_file", save)
    (tmp_path / ".whole.unfinished").mkdir()  # of one that the system killed
    (tmp_path / ".whole.unfinished" / "model.safetensors").write_bytes(b"half")
    export_model(str(folder), tmp_path / "whole", str(shop.base), UNQUANTIZED)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    with pytest.raises(CheckpointError, match="holds files already"):
        export_model(str(folder), tmp_path / "whole", str(shop.base), UNQUANTIZED)


def test_a_disk_without_room_is_reported_before_anything_is_written(shop, tmp_path, monkeypatch):
    shop.used = shop.base
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(export.shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(CheckpointError, match=r"needs .* GB, but 0\.0 GB are free"):
        export_model(str(shop.lora()), tmp_path / "whole", str(shop.base), UNQUANTIZED)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_given_away_without_what_its_training_left(demo, tmp_path):
    source = tmp_path / "fold0"
    shutil.copytree(demo / "checkpoints" / "fold0", source)
    (source / "last").mkdir()
    with pytest.raises(CheckpointError, match="on this machine; name the hub id .* --base-name"):
        export_adapter(str(source), tmp_path / "gift", base=str(demo / "base"))
    exported = export_adapter(str(source), tmp_path / "gift", "org/model@v1", base=str(demo / "base"))
    assert sorted(path.name for path in (tmp_path / "gift").iterdir()) == exported.files == [
        "adapter_config.json", "adapter_model.safetensors", "calibration.json", "decision.json",
        "decision_template.jinja", "rows.parquet", "scoring.json"
    ]  # fmt: skip
    gift = read_checkpoint(str(tmp_path / "gift"))
    assert (gift.manifest.base, gift.manifest.revision) == ("org/model", "v1")
    assert gift.adapter.base_model_name_or_path == "org/model" and gift.adapter.revision == "v1"
    assert exported.notes == [
        "base: org/model@v1",
        "left out, since no score needs it: last/, train.jsonl, validation.csv",
    ]
    assert gift.fingerprint() == read_checkpoint(str(source), str(demo / "base")).fingerprint()
    assert plan_members([str(tmp_path / "gift")], str(demo / "base")).calibrations[0].rows == 60


def test_a_base_in_the_hubs_cache_is_named_by_its_id(demo, tmp_path):
    cached = tmp_path / "models--org--model" / "snapshots" / "abc123"
    shutil.copytree(demo / "base", cached)
    export_adapter(str(demo / "checkpoints" / "fold0"), tmp_path / "gift", base=str(cached))
    manifest = read_checkpoint(str(tmp_path / "gift")).manifest
    assert (manifest.base, manifest.revision) == ("org/model", "abc123")


def test_through_the_command_line(cli, demo, tmp_path):
    done = cli("export", demo / "checkpoints" / "fold0", "--out", tmp_path / "whole", "--dtype", "fp32")
    assert "what the base's 4 bits (nf4) stand for" in done.stderr and "GB of weights" in done.stdout
    assert (tmp_path / "whole" / FILE.replace("adapter_", "")).exists()
    done = cli("export", demo / "checkpoints" / "fold0", "--out", tmp_path / "gift", "--adapter-only", check=2)
    assert "--base-name" in done.stderr
