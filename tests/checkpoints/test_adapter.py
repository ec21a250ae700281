"""Adapters: trained ones through plain PEFT, every tool's spelling of keys, and tensors that are refused."""

import json

import pytest
import torch

from scoring.checkpoints import calibrate as calibrating
from scoring.checkpoints.adapter import check_adapter, file_fingerprint
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.checkpoints.description import describe
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import BaseWeights, CheckpointError, base_fingerprint, sampled_fingerprint
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.reference import reference_logits


def foreign(folder, base):
    """Score without our manifest and calibration, as a folder from elsewhere is."""
    for name in ("scoring.json", "calibration.json"):
        (folder / name).unlink(missing_ok=True)
    return BatchScorer.load(str(folder), base=str(base))


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


def test_an_adapter_that_fits_has_no_faults(demo, base):
    check = check_adapter(demo / "checkpoints" / "fold0", BaseWeights.of(base))
    assert len(check.keys) == 70 and len(check.modules) == 35 and not check.faults
