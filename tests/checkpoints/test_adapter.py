"""Adapters: trained ones through plain PEFT, every tool's spelling of keys, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring import Scorer
from scoring.checkpoints import calibrate as calibrating
from scoring.checkpoints.adapter import check_adapter, file_fingerprint
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.checkpoints.compatibility import MismatchError
from scoring.checkpoints.description import describe
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import BaseWeights, CheckpointError, base_fingerprint, read_header, sampled_fingerprint
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from scoring.files.reading import FileError


@pytest.fixture
def copy(tmp_path, demo):
    """A copy of the first checkpoint; `change(tensors)` may return others, `config` and `drop` alter its files."""

    def make(change=lambda tensors: tensors, drop=(), name="copy", **config):
        folder = tmp_path / name
        shutil.copytree(demo / "checkpoints" / "fold0", folder)
        save_file(change(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
        settings = json.loads((folder / "adapter_config.json").read_text()) | config
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        for file in drop:
            (folder / file).unlink()
        return folder

    return make


def foreign(folder, base):
    """Score without our manifest and calibration, as a folder from elsewhere is."""
    for name in ("scoring.json", "calibration.json"):
        (folder / name).unlink(missing_ok=True)
    return Scorer.load(str(folder), base=str(base))


def test_a_saved_adapter_gives_the_same_logits_through_plain_peft(scorer, base, demo, test_rows):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    plain = AutoModelForImageTextToText.from_pretrained(
        base,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=["lm_head", "model.visual"],
        ),
    )
    for layer in plain.modules():  # on CPUs with AVX512-BF16 bitsandbytes would compute in bfloat16
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    PeftModel.from_pretrained(plain, demo / "checkpoints" / "fold0").eval()
    logits = scorer.score(test_rows[:12]).logits[:, 0, 0]
    for row, question in enumerate(test_rows[:12]):
        expected = reference_logits(plain, *scorer.prepare(question))[scorer.label_ids[:4]]
        assert (expected - torch.from_numpy(logits[row])).abs().max() < 1e-4


SPELLINGS = {
    "adapter name": lambda key: key.replace(".weight", ".default.weight"),
    "text-only": lambda key: key.replace("model.language_model.layers", "model.layers"),
    "older VL": lambda key: key.replace("model.model.language_model.layers", "model.language_model.model.layers"),
    "no prefix": lambda key: key.removeprefix("base_model.model."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_adapters_from_elsewhere(scorer, copy, base, test_rows, spelling):
    rename = SPELLINGS[spelling]
    folder = copy(
        lambda tensors: {rename(key): value for key, value in tensors.items()},
        target_modules="^(?!.*visual).*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$",
    )
    other = foreign(folder, base)
    assert any("no scoring.json" in note for note in other.plan.notes)
    assert abs(other.score(test_rows[:4]).logits - scorer.score(test_rows[:4]).logits).max() < 1e-5


def test_rank_patterns_and_rslora_load_as_peft_means_them(copy, base, test_rows, scorer):
    from peft import PeftModel

    def cut(tensors):  # rank 8 in the first layer's q_proj
        return {
            key: (value[:8] if "lora_A" in key else value[:, :8]).contiguous()
            if "layers.0.self_attn.q_proj" in key
            else value
            for key, value in tensors.items()
        }

    folder = copy(
        cut, use_rslora=True, rank_pattern={"layers.0.self_attn.q_proj": 8}, alpha_pattern={"mlp.down_proj": 7}
    )
    model = Model.load(base, "none")
    PeftModel.from_pretrained(model.network, folder).eval()
    for name in ("scoring.json", "calibration.json"):
        (folder / name).unlink()
    loaded = Scorer.load(str(folder), base=str(base), quantization="none", allow_mismatch=True)
    logits = loaded.score(test_rows[:3]).logits[:, 0, 0]
    for row, question in enumerate(test_rows[:3]):
        expected = reference_logits(model.network, *loaded.prepare(question))[loaded.label_ids[:4]].numpy()
        assert abs(expected - logits[row]).max() < 1e-4


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda tensors: (
                tensors
                | {"base_model.model.model.language_model.layers.99.mlp.up_proj.lora_A.weight": torch.ones(16, 256)}
            ),
            "layers.99",
        ),
        (lambda tensors: tensors | {"base_model.model.something.else": torch.ones(2)}, "something.else"),
        (
            lambda tensors: {
                key: torch.zeros_like(value) if "lora_B" in key else value for key, value in tensors.items()
            },
            "does nothing",
        ),
        (
            lambda tensors: {
                key: value[:, :-1].contiguous() if key.endswith("0.mlp.up_proj.lora_A.weight") else value
                for key, value in tensors.items()
            },
            "another shape",
        ),
        (
            lambda tensors: {
                key: value for key, value in tensors.items() if not key.endswith("0.mlp.up_proj.lora_B.weight")
            },
            "lack their",
        ),
    ],
)
def test_adapters_that_cannot_work_are_refused_with_their_keys(copy, base, change, message):
    folder = copy(change)
    with pytest.raises(CheckpointError, match=None) as caught:
        foreign(folder, base)
    assert message in str(caught.value)
    description = describe(read_checkpoint(str(folder), str(base)))
    assert description.faults and message in description.text


@pytest.mark.parametrize("setting, value", [("modules_to_save", ["lm_head"]), ("bias", "all"), ("peft_type", "IA3")])
def test_unsupported_adapters_are_named(copy, base, setting, value):
    with pytest.raises(FileError, match=value if setting == "peft_type" else setting):
        foreign(copy(**{setting: value}), base)


def test_pickles_and_cut_off_files_are_refused(copy, base):
    folder = copy()
    file = folder / "adapter_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with pytest.raises(CheckpointError, match="cut off"):
        read_header(file)
    file.rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickles can run code"):
        read_checkpoint(str(folder))
    file.write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(file)


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        [1],
        {"shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": []},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 3]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
    ],
)
def test_a_header_that_contradicts_itself_is_refused_with_the_tensor(tmp_path, entry):
    header = json.dumps({"odd": entry}).encode()
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match="its header describes odd in an impossible way"):
        read_header(path)


@pytest.mark.parametrize("header", [b"1234", b"null", b'"ab"', b"[]", b"[" * 100_000])
def test_a_header_that_is_no_object_is_refused(tmp_path, header):
    (tmp_path / "f.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(tmp_path / "f.safetensors")


def test_missing_files_are_named(tmp_path, copy):
    with pytest.raises(CheckpointError, match="no such folder"):
        read_checkpoint(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="neither"):
        read_checkpoint(str(tmp_path / "empty"))
    (tmp_path / "empty" / "adapter_config.json").write_text("{broken")
    with pytest.raises(FileError, match="damaged"):
        read_checkpoint(str(tmp_path / "empty"))


def test_settings_that_differ_are_refused_with_both_values(copy, base):
    folder = copy()
    with pytest.raises(MismatchError, match=r"pixels is 36864, but this run has 65536"):
        Scorer.load(str(folder), base=str(base), pixels=65_536)
    with pytest.raises(MismatchError, match="quantization is nf4, but this run has none"):
        Scorer.load(str(folder), base=str(base), quantization="none")
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration["fingerprint"]["adapter"] = "0123"
    (folder / "calibration.json").write_text(json.dumps(calibration))
    with pytest.raises(MismatchError, match="calibration's adapter is 0123"):
        Scorer.load(str(folder), base=str(base))
    assert any("0123" in note for note in Scorer.load(str(folder), base=str(base), allow_mismatch=True).plan.notes)


def test_first_fingerprints_of_checkpoint_and_calibration_are_recognised(copy, base):
    """Those that were recorded before every byte of the base, and the scaling of the adapter, counted."""
    folder = copy()
    manifest, calibration = (json.loads((folder / name).read_text()) for name in ("scoring.json", "calibration.json"))
    manifest["base_fingerprint"] = calibration["fingerprint"]["base"] = sampled_fingerprint(base)
    calibration["fingerprint"]["adapter"] = file_fingerprint(folder / "adapter_model.safetensors")
    (folder / "calibration.json").write_text(json.dumps(calibration))
    (folder / "scoring.json").write_text(json.dumps(manifest | {"base": str(base)}))
    plan = plan_members([str(folder)], str(base))
    assert plan.calibrations[0].rows == 60 and not any("base is" in note for note in plan.notes)
    assert calibrating._with_renewed_base(str(folder)).manifest.base_fingerprint == base_fingerprint(base)


def test_several_members_on_one_base(scorer, demo, test_rows):
    both = Scorer.load([str(demo / "checkpoints" / name) for name in ("fold1", "fold0")])
    result = both.score(test_rows[:4])
    assert result.members == ["fold1", "fold0"]
    assert abs(result.logits[:, 1, 0] - scorer.score(test_rows[:4]).logits[:, 0, 0]).max() < 1e-5
    assert abs(result.logits[:, 0, 0] - result.logits[:, 1, 0]).max() > 0.1


def test_the_vision_tower_and_the_head_are_not_quantised(scorer):
    import bitsandbytes

    kinds = {name: type(module) for name, module in scorer.model.network.named_modules()}
    quantised = {name for name, kind in kinds.items() if issubclass(kind, bitsandbytes.nn.Linear4bit)}
    assert len(quantised) == 35 and all("language_model.layers" in name for name in quantised)
    settings = scorer.model.network.config.quantization_config
    assert settings.bnb_4bit_quant_type == "nf4" and settings.bnb_4bit_use_double_quant


def test_without_bitsandbytes_there_are_16_or_32_bits_and_a_note(demo, monkeypatch):
    monkeypatch.setattr("scoring.engine.loading.why_no_4bit", lambda: "no library for this card")
    loaded = Scorer.load(str(demo / "checkpoints" / "fold0"))
    assert loaded.model.quantization == "none" and "no library for this card" in loaded.model.notes[0]


def test_an_adapter_that_fits_has_no_faults(demo, base):
    check = check_adapter(demo / "checkpoints" / "fold0", BaseWeights.of(base))
    assert len(check.keys) == 70 and len(check.modules) == 35 and not check.faults
