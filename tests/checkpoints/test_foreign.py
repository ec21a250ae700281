"""Every kind of checkpoint gives PEFT's logits, or is refused by its name before anything loads."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.checkpoints.compatibility import MismatchError
from scoring.checkpoints.description import describe
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.soup import soup
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.guard import compare_first
from scoring.engine.reference import reference_logits
from scoring.files.reading import FileError
from tests.shared.foreign_checkpoints import KEYS, KINDS, SEVEN, Workshop, table
from tests.shared.templates import THEIRS

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "foreign-checkpoints.md"


@pytest.fixture(scope="module")
def shop(tmp_path_factory, base):
    from scoring.engine.loading import why_no_4bit

    why_no_4bit()  # before PEFT imports bitsandbytes
    return Workshop(tmp_path_factory.mktemp("foreign"), base)


def planned(folder: Path, base: Path | None, **choices):
    choices = {"quantization": "none"} | choices
    if base and "quantization_config" in (base / "config.json").read_text():
        choices["quantization"] = None
    return plan_members([str(folder)], str(base) if base else None, **choices)


def scored(plan, rows) -> np.ndarray:
    """(N, 4) label logits in float32."""
    return BatchScorer(plan, "cpu", torch.float32).score(rows).logits[:, 0, 0]


def by_peft(shop, folder: Path | None, scorer: BatchScorer, rows) -> np.ndarray:
    """(N, 4) label logits of transformers' network on the scorer's base, with PEFT's own loading of a folder."""
    from peft import PeftModel

    network = shop.network(scorer.plan.base)
    for layer in network.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if folder:
        PeftModel.from_pretrained(network, folder).eval()
    return np.stack([reference_logits(network, *scorer.prepare(row))[scorer.label_ids[:4]].numpy() for row in rows])


@pytest.fixture(scope="module")
def without_adapter(shop):
    """`by_peft` on the base alone, worked out once for each of the shop's two own bases."""
    known: dict[Path, np.ndarray] = {}

    def logits(scorer: BatchScorer, rows) -> np.ndarray:
        base = scorer.plan.base
        if base not in (shop.base, shop.untied):
            return by_peft(shop, None, scorer, rows)
        if base not in known:
            known[base] = by_peft(shop, None, scorer, rows)
        return known[base]

    return logits


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.group}: {kind.name}")
def test_a_kind(shop, without_adapter, kind, test_rows):
    shop.used, rows = shop.base, test_rows[:2]
    folder = kind.make(shop)
    base = None if kind.name == "none named" and not (folder / "config.json").exists() else shop.used
    base = None if (folder / "config.json").exists() else base
    if kind.refused:
        with pytest.raises((FileError, MismatchError)) as caught:
            planned(folder, base)
        assert kind.refused in str(caught.value) and str(caught.value).count("\n") == 0
        try:
            description = describe(read_checkpoint(str(folder), str(base) if base else None))
            text = "" if not description.faults else description.text
        except FileError as error:
            text = str(error)
        assert kind.refused.replace(" beside", "") in " ".join(text.split())
        return
    plan = planned(folder, base)
    scorer = BatchScorer(plan, "cpu", torch.float32)
    for_peft = shop.saved if kind.group == KEYS else None if plan.checkpoints[0].adapter is None else folder
    expected = by_peft(shop, for_peft, scorer, rows)
    assert np.abs(scorer.score(rows).logits[:, 0, 0] - expected).max() < 1e-4
    assert compare_first(scorer, rows).largest < 1e-4
    if for_peft:  # an adapter that did nothing would agree, too
        assert np.abs(expected - without_adapter(scorer, rows)).max() > 1e-3


def test_the_document_lists_the_kinds():
    text = DOCUMENT.read_text("utf-8")
    assert text.partition("<!-- kinds -->\n")[2].partition("<!-- /kinds -->")[0].strip() == table().strip()
    assert len(KINDS) >= 45


def test_all_faulty_members_are_named_at_once(shop):
    shop.used = shop.base
    folders = []
    for name, change in (("first", {"init_lora_weights": "pissa"}), ("second", {}), ("third", {"bias": "all"})):
        folder = shop.folder / name
        shutil.copytree(shop.configured(**change), folder)
        folders.append(str(folder))
    with pytest.raises(FileError) as caught:
        plan_members(folders, str(shop.base), quantization="none")
    assert "first" in str(caught.value) and "third" in str(caught.value) and "second" not in str(caught.value)


def test_members_of_several_kinds_in_one_run_are_each_peft_s(shop, test_rows):
    shop.used = shop.base
    kinds = {"plain": {}, "dora": {"use_dora": True}, "head": {"target_modules": [*SEVEN, "lm_head"]}, "none": None}
    folders = {}
    for name, settings in kinds.items():
        folders[name] = shop.base
        if settings is not None:
            folders[name] = shop.folder / f"member-{name}"
            shutil.copytree(shop.lora(**settings), folders[name])
    plan = plan_members([str(folder) for folder in folders.values()], str(shop.base), quantization="none")
    scorer, rows = BatchScorer(plan, "cpu", torch.float32), test_rows[:2]
    logits = scorer.score(rows).logits[:, :, 0]
    for number, (name, folder) in enumerate(folders.items()):
        expected = by_peft(shop, None if name == "none" else folder, scorer, rows)
        assert np.abs(logits[:, number] - expected).max() < 1e-4, name


def test_adapters_whose_keys_are_spelt_in_two_ways_are_averaged_module_by_module(shop, test_rows, tmp_path):
    shop.used = shop.base
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(shop.lora(), first)
    shutil.copytree(shop.renamed("base_model.model.model.language_model", "model", target_modules=".*_proj"), second)
    save_file({key: value * 2 for key, value in load_file(second / "adapter_model.safetensors").items()},
              second / "adapter_model.safetensors")  # fmt: skip
    lines = soup([str(first), str(second)], tmp_path / "soup", [0.5, 0.25])
    assert lines[0].startswith("14 layers, rank 8")
    sum_of = scored(planned(tmp_path / "soup", shop.base, quantization=None), test_rows[:2])
    factors = load_file(first / "adapter_model.safetensors")
    as_one = shop.rewritten(
        lambda t: {key: factors[key] * (0.5 + 0.25 * 4 if "lora_B" in key else 1) for key in t}
    )  # B·A of the second is four times the first's
    assert np.abs(sum_of - scored(planned(as_one, shop.base, quantization=None), test_rows[:2])).max() < 1e-4


def test_notes_name_template_and_pixels_of_an_adapter_without_a_manifest(shop):
    shop.used = shop.base
    folder = shop.lora()
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "preprocessor_config.json").write_text(json.dumps({"max_pixels": 1_000_000}))
    notes = " ".join(plan_members([str(folder)], str(shop.base), pixels=50_000, quantization="none").notes)
    assert "its chat template is not the base's" in notes and "allow 1,000,000 pixels, scored with 50,000" in notes


def test_an_adapter_is_asked_in_its_own_tools_prompt(shop, test_rows):
    """Capital letters and no system turn: the library's ids of the conversation, and PEFT's logits of A, B, C, D."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    shop.used, rows = shop.base, test_rows[:3]
    folder = shop.lora()
    plan = planned(folder, shop.base, template=THEIRS)
    scorer = BatchScorer(plan, "cpu", torch.float32)
    network = PeftModel.from_pretrained(shop.network(), folder).eval().base_model.model
    tokenizer = AutoTokenizer.from_pretrained(shop.base)
    capitals = tokenizer.convert_tokens_to_ids(list("ABCD"))
    expected = []
    for row in rows:
        sequence, patches = scorer.prepare(row)
        lines = [f"{letter}. {option}" for letter, option in zip("ABCD", row.options, strict=True)]
        hint = f"\nA hint: {row.task_hint}" if row.task_hint else ""
        text = "\n".join([row.question, *lines, f"Reply with A, B, C, D and nothing else.{hint}"])
        content = [{"type": "image", "image": ""}, {"type": "text", "text": text}]
        options = {"tokenize": False, "add_generation_prompt": True}
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": content}], **options)
        tokens = sequence.pictures[0].tokens
        count = tokens.stop - tokens.start
        assert sequence.ids.tolist() == tokenizer(rendered.replace("<|image_pad|>", "<|image_pad|>" * count)).input_ids
        expected.append(reference_logits(network, sequence, patches)[capitals].numpy())
    result = scorer.score(rows)
    assert np.abs(result.logits[:, 0, 0] - np.stack(expected)).max() < 1e-4
    assert compare_first(scorer, rows).largest < 1e-4
    assert np.abs(np.stack(expected) - scored(planned(folder, shop.base), rows)).max() > 1e-3  # another prompt


def test_a_fingerprint_sees_every_weight_and_the_scaling(shop, base, tmp_path):
    from scoring.checkpoints.adapter import adapter_fingerprint
    from scoring.checkpoints.weights import base_fingerprint

    shutil.copytree(base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    name = "model.language_model.layers.2.mlp.up_proj.weight"
    save_file(weights | {name: weights[name] * 1.01}, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    assert base_fingerprint(tmp_path / "base") != base_fingerprint(base)
    shop.used = shop.base
    before = adapter_fingerprint(shop.lora())
    assert adapter_fingerprint(shop.lora()) == before != adapter_fingerprint(shop.configured(lora_alpha=9))


def test_a_large_file_is_read_once(tmp_path, monkeypatch):
    from scoring.checkpoints import weights

    monkeypatch.setattr(weights, "CACHED", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "base").mkdir()
    file = tmp_path / "base" / "weights"
    file.write_bytes(b"a" * 100)
    first = weights.file_digests([file])
    digests = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(weights.hashlib, "sha256", lambda *data: digests.append(data) or sha256(*data))
    assert weights.file_digests([file]) == first and not digests
    file.write_bytes(b"b" * 100)
    assert weights.file_digests([file]) != first and len(digests) == 1
    weights._digests.clear()  # as in another process
    file = file.parent.rename(tmp_path / "moved") / "weights"
    assert weights.file_digests([file]) != first and len(digests) == 1  # by what the folder remembers
    (tmp_path / "cache" / "logit-scoring" / "digests.json").write_text("{broken")
    assert weights.file_digests([file]) == weights.file_digests([file])
