"""The real thing by the same code: full-size shapes, sharded folders, incomplete and foreign ones."""

import json
import shutil

import pytest
import torch

from benchmarks.workload import CONFIG as REAL_8B
from scoring.checkpoints.adapter import check_adapter
from scoring.checkpoints.checkpoint import find_base
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import BaseWeights, CheckpointError, StoredTensor, base_fingerprint, check_base
from scoring.engine.loading import Model


@pytest.fixture(scope="module")
def real_shapes(tmp_path_factory):
    """Name -> shape of the 8B's weights, from the library's class on the meta device."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("real")
    (folder / "config.json").write_text(json.dumps(REAL_8B))
    check_base(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    return model, {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_the_8b_has_its_known_size_and_rope(real_shapes):
    model, shapes = real_shapes
    assert sum(value.numel() for value in model.parameters()) == 8_767_123_696
    assert shapes["model.language_model.layers.35.mlp.down_proj.weight"] == (4096, 12288)
    assert shapes["lm_head.weight"] == (151_936, 4096)
    assert model.config.text_config.rope_parameters["mrope_section"] == [24, 20, 20]


def test_lora_lands_on_the_text_model_of_the_8b_alone(real_shapes):
    from train.config import TrainConfig
    from train.lora import add_lora

    model, shapes = real_shapes
    peft = add_lora(model, TrainConfig())
    names = [name for name, value in peft.named_parameters() if value.requires_grad]
    assert len(names) == 2 * 7 * 36 and all("language_model.layers" in name for name in names)
    assert sum(value.numel() for value in peft.parameters() if value.requires_grad) == 43_646_976
    peft.unload()


def test_adapters_for_the_8b_are_checked_by_headers_alone(real_shapes, tmp_path):
    from safetensors.torch import save_file

    _, shapes = real_shapes
    stored = {name: StoredTensor(tmp_path, "BF16", shape, start=0, size=0) for name, shape in shapes.items()}
    for prefix in (
        "base_model.model.model.language_model.layers",
        "base_model.model.model.layers",
        "base_model.model.language_model.model.layers",
    ):
        save_file(
            {
                f"{prefix}.3.self_attn.k_proj.lora_A.weight": torch.ones(16, 4096),
                f"{prefix}.3.self_attn.k_proj.lora_B.weight": torch.ones(1024, 16),
            },
            tmp_path / "adapter_model.safetensors",
        )
        check = check_adapter(tmp_path, BaseWeights(tmp_path, {}, stored))
        assert set(check.keys.values()) == {
            ("model.language_model.layers.3.self_attn.k_proj", f"lora_{factor}.weight") for factor in "AB"
        }
        assert not check.faults


@pytest.fixture
def sharded(plain_base, base, tmp_path):
    folder = tmp_path / "sharded"
    plain_base.network.save_pretrained(folder, max_shard_size="5MB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json"):
        shutil.copy(base / name, folder)
    return folder


def test_a_sharded_folder_loads_the_same(sharded, plain_base):
    assert len(list(sharded.glob("*.safetensors"))) > 3
    loaded = Model.load(sharded, "none")
    expected = plain_base.network.state_dict().values()
    for (name, weight), expected_weight in zip(loaded.network.state_dict().items(), expected):
        assert torch.equal(weight, expected_weight), name
    assert BaseWeights.of(sharded).shapes["model.language_model.norm.weight"] == (256,)


def test_a_missing_shard_is_named(sharded):
    next(sharded.glob("*00002*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="missing model-00002"):
        BaseWeights.of(sharded)


def test_missing_weights_never_start_at_random(sharded, base):
    from safetensors.torch import load_file, save_file

    for path in sharded.glob("model*"):
        path.unlink()
    weights = load_file(base / "model.safetensors")
    weights.pop("model.language_model.norm.weight")
    save_file(weights, sharded / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="model.language_model.norm.weight"):
        Model.load(sharded, "none")


def test_other_models_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(CheckpointError, match="llama"):
        check_base(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="no safetensors"):
        BaseWeights.of(tmp_path)


def test_the_base_is_found_beside_the_checkpoint(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # from wherever the command runs
    assert find_base("../../base", demo / "checkpoints" / "fold0").resolve() == (demo / "base").resolve()
    with pytest.raises(CheckpointError, match="--base"):
        find_base("./nowhere")


def test_the_fingerprint_follows_the_content(base, tmp_path):
    shutil.copytree(base, tmp_path / "copy")
    assert base_fingerprint(tmp_path / "copy") == base_fingerprint(base)
    data = bytearray((tmp_path / "copy" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(data)
    assert base_fingerprint(tmp_path / "copy") != base_fingerprint(base)


def test_a_whole_model_is_a_checkpoint_too(base, test_rows):
    from scoring import Scorer

    plan = plan_members([str(base)])
    assert plan.checkpoints[0].adapter is None and plan.policy.max_pixels == 192 * 192
    assert Scorer(plan).score(test_rows[:2]).status == ["ok", "ok"]


@pytest.mark.parametrize(
    "name, revision, expected",
    [
        ("org/model@v1.2", None, ("org/model", "v1.2")),
        ("org/model", "abc", ("org/model", "abc")),
        ("org/model@v2", "abc", ("org/model", "v2")),
        ("org/model", None, ("org/model", None)),
    ],
)
def test_a_hub_id_and_its_revision_reach_the_hub(monkeypatch, tmp_path, name, revision, expected):
    asked = {}

    def download(repository, **options):
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_base(name, revision=revision) == tmp_path
    assert (asked["repository"], asked["revision"]) == expected
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for pattern in asked["allow_patterns"])


def test_a_hub_that_does_not_answer_is_reported(monkeypatch):
    def download(repository, **options):
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match="org/model: neither a folder nor available from the hub"):
        find_base("org/model@main")
