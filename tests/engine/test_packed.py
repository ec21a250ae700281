"""What adapters of every kind become in the packed forward, and what is chosen by memory and length of a run."""

import numpy as np
import pytest
import torch

from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import CheckpointError
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.linear import MergedLinear
from scoring.engine.loading import Model
from scoring.engine.packed import PackedModel, compiling_pays
from scoring.engine.reference import reference_logits
from scoring.engine.stand_in import unwrap
from scoring.inputs.families.registry import policy_of

FOLD0 = "demo/checkpoints/fold0"
LANGUAGE = r"model\.language_model\..*\.(q_proj|down_proj)"
VISION = r"model\.visual\.blocks\.\d+\.(attn\.qkv|mlp\.linear_fc1)"


@pytest.fixture
def made(base, tmp_path):
    """A random adapter that PEFT itself puts on the base and saves."""
    from peft import LoraConfig, get_peft_model

    def make(name: str, targets: str, **settings):
        torch.manual_seed(len(name))
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **settings)
        peft = get_peft_model(Model.load(base, "none").network, config)
        for key, weight in peft.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.1)
        peft.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return make


def through_peft(base, folder, scorer, rows) -> np.ndarray:
    """(N, 4) label logits by transformers and PEFT alone, on the base in 32 bits."""
    from peft import PeftModel

    network = Model.load(base, "none").network
    if folder:
        PeftModel.from_pretrained(network, folder).eval()
    logits = [reference_logits(network, *scorer.prepare(row))[scorer.label_ids[:4]] for row in rows]
    return torch.stack(logits).numpy()


@pytest.mark.parametrize(
    "adapter, merged_and_in_vision",
    [
        ({"targets": LANGUAGE}, (True, False)),
        ({"targets": LANGUAGE, "use_rslora": True}, (True, False)),
        ({"targets": LANGUAGE, "use_dora": True}, (False, False)),
        ({"targets": VISION}, (True, True)),
        ({"targets": f"{LANGUAGE}|{VISION}", "use_dora": True}, (False, True)),
    ],
    ids=["LoRA", "rsLoRA", "DoRA", "LoRA of the vision tower", "DoRA of both"],
)
def test_every_kind_of_adapter_equals_peft(made, base, test_rows, adapter, merged_and_in_vision):
    folder = made("adapter", **adapter)
    scorer = BatchScorer(plan_members([folder], str(base), quantization="none", allow_mismatch=True))
    member = scorer.packed.members[0]
    assert (member.merged, member.adapts_vision) == merged_and_in_vision
    expected = through_peft(base, folder, scorer, test_rows[:4])
    assert np.abs(scorer.score(test_rows[:4]).logits[:, 0, 0] - expected).max() < 1e-4


def test_kinds_do_not_disturb_each_other(made, base, test_rows):
    """A merged one, one that changes the vision tower, and one that goes through PEFT, over one base."""
    folders = [made("plain", LANGUAGE), made("seeing", VISION), made("dora", LANGUAGE, use_dora=True)]
    for order in ((0, 1, 2), (2, 1, 0)):
        scorer = BatchScorer(plan_members([folders[number] for number in order], str(base), None, None, "none", True))
        logits = scorer.score(test_rows[:3]).logits
        for member, number in enumerate(order):
            expected = through_peft(base, folders[number], scorer, test_rows[:3])
            assert np.abs(logits[:, member, 0] - expected).max() < 1e-4


def test_the_base_by_itself(base, test_rows):
    scorer = BatchScorer(plan_members([str(base)], quantization="none", allow_mismatch=True))
    expected = through_peft(base, None, scorer, test_rows[:4])
    assert np.abs(scorer.score(test_rows[:4]).logits[:, 0, 0] - expected).max() < 1e-4


def test_a_model_can_be_packed_again_in_another_way(test_rows):
    plan = plan_members([FOLD0])
    packed = BatchScorer(plan, weights="4bit")
    first = packed.score(test_rows[:3]).logits
    expanded = BatchScorer(plan, weights="16bit", model=packed.model)
    assert expanded.model is packed.model and np.array_equal(expanded.score(test_rows[:3]).logits, first)
    unwrap(packed.model.network.model)
    assert not any(isinstance(module, MergedLinear) for module in packed.model.network.modules())


@pytest.mark.parametrize("free, weights", [(100 * 2**30, "16bit"), (1000, "4bit")])
def test_memory_decides_and_says_so(base, monkeypatch, free, weights):
    monkeypatch.setattr("scoring.engine.packed.free_bytes", lambda device: free)
    monkeypatch.setattr("scoring.engine.packed.GIB", 2**10)
    model = Model.load(base)
    packed = PackedModel(model, [None], policy_of(base))
    assert packed.weights == weights
    assert ("expanded to 16 bits" if weights == "16bit" else "kept in 4 bits") in model.notes[-1]


def test_weights_that_find_no_room_in_16_bits_are_refused_with_what_fits(base, monkeypatch):
    monkeypatch.setattr("scoring.engine.packed.free_bytes", lambda device: 2**20)
    model = Model.load(base)
    with pytest.raises(CheckpointError, match=r"--weights 16bit: expanded they take .* GiB.*--weights 4bit takes none"):
        PackedModel(model, [None], policy_of(base), "16bit")


def test_a_cpu_is_not_compiled_for(base):
    assert compiling_pays(base, 10**12) == (False, "")


def test_a_long_run_is_compiled_for_and_a_short_one_told(base, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("scoring.engine.packed.layers_are_fused", lambda base: False)
    monkeypatch.setattr("scoring.engine.packed.product_rate", lambda: 1e12)
    assert compiling_pays(base, 10**12) == (True, "")
    pays, why = compiling_pays(base, 10**3)
    assert not pays and "too short to earn it back" in why


def test_compiling_must_save_more_than_it_takes(base, monkeypatch):
    weights = 5 * (2 * 256 * (4 + 2) * 64 + 3 * 256 * 512)  # layers; attention by heads, and feed-forward
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("scoring.engine.packed.layers_are_fused", lambda base: False)
    monkeypatch.setattr("scoring.engine.packed.product_rate", lambda: 1e9)
    tokens = 0.5e9 / (2 * weights)  # of a second
    assert not compiling_pays(base, int(259 * tokens))[0]
    assert compiling_pays(base, int(261 * tokens))[0]  # 10 % of 260 s are 26 s


def test_fused_layers_are_not_compiled_by_themselves(base, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("scoring.engine.packed.layers_are_fused", lambda base: True)
    assert compiling_pays(base, 10**12) == (False, "")
