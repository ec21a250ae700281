"""Every family alike: the tree and the library's own forward agree, alone and in batches; it learns what is scored."""

import csv
import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.faults import SCORED, content
from scoring.benchmark.generate import generate_batch
from scoring.benchmark.padded import collate, padded_states
from scoring.checkpoints.export import ExportOptions, export_model
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import BaseWeights
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.forward import TreeBatch
from scoring.engine.guard import compare_first
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from scoring.inputs.families.registry import FAMILIES, family_of, policy_of
from scoring.inputs.pictures import PictureError, read_picture
from scoring.inputs.prompt import PromptTemplate
from tests.shared.families import CONFIGS, SEEING, TEXT_MODELS, library_patches, library_tokens, system_turn, tiny_base
from tests.shared.references import as_fake, largest_difference, reference_labels, without_content
from tests.shared.trainings import PLAIN, trained

PIXELS = 28 * 28 * 20  # small, and pictures of unequal sides
FILE = "adapter_model.safetensors"
RECORDABLE = ["qwen2_vl", "qwen2", "qwen3", "llama"]
TEXT = [model_type for model_type in CONFIGS if model_type in TEXT_MODELS]
sees_pictures = pytest.mark.parametrize("family_base", SEEING, indirect=True)
in_words_alone = pytest.mark.parametrize("family_base", TEXT, indirect=True)


@pytest.fixture(scope="module", params=CONFIGS)
def family_base(request, base, tmp_path_factory):
    return tiny_base(request.param, base, tmp_path_factory.mktemp(request.param) / "base")


def model_type(folder):
    return json.loads((folder / "config.json").read_text())["model_type"]


@pytest.fixture(scope="module")
def loaded(family_base):
    Model.load(family_base, "none")  # first: it imports bitsandbytes
    return BatchScorer(plan_members([str(family_base)], quantization="none", pixels=budget(family_base)))


def budget(folder):
    return PIXELS if family_of(folder).sees_pictures else None


@pytest.fixture(scope="module")
def rows(family_base, seen_rows, test_rows):
    """Those of `seen_rows`; for a text model others of two to four options, in words alone."""
    if family_of(family_base).sees_pictures:
        return seen_rows
    counts = (4, 4, 3, 4, 2, 4, 4)
    return [in_words(row, options=row.options[:count]) for row, count in zip(test_rows, counts)]


def in_words(row, **changes):
    return replace(row, pictures=(), sizes=(), **changes)


@pytest.fixture(scope="module")
def seen_rows(test_rows, tmp_path_factory):
    """One picture, several in their places, none, and pictures of other shapes."""
    folder, first = tmp_path_factory.mktemp("pictures"), test_rows[0]
    shapes = [(300, 120), (90, 400), (500, 500)]
    wide = []
    for number, shape in enumerate(shapes):
        read_picture(test_rows[number].pictures[0]).resize(shape).save(folder / f"{number}.png")
        wide.append(folder / f"{number}.png")
    several = {"pictures": tuple(wide), "sizes": tuple(shapes)}
    return [
        *test_rows[:3],
        replace(first, id="words", pictures=(), sizes=()),
        replace(first, id="first", **several),
        replace(first, id="places", question="<image 2> or <image 1>?", options=("<image 3>", "b", "c"), **several),
        replace(test_rows[4], id="wide", pictures=(wide[0],), sizes=(shapes[0],)),
    ]


@pytest.fixture(scope="module")
def expected(loaded, rows):
    """For each row and order the label logits by transformers' own forward."""
    return reference_labels(loaded, rows)


@pytest.mark.parametrize("size, orders", [(1, "1"), (7, "1"), (3, "cyclic")])
def test_rows_equal_the_library_alone_and_in_batches(loaded, rows, expected, size, orders):
    result = loaded.score(rows, orders, batch_rows=size)
    assert result.status == ["ok"] * len(rows)
    largest = largest_difference(result, rows, orders, expected)
    scale = max(np.abs(row).max() for row in expected.values())
    assert largest < 1e-5 * max(1, scale) and scale > 0.1


@pytest.mark.parametrize("family_base", RECORDABLE, indirect=True)
def test_passes_that_are_recorded_never_ask_the_device(loaded, rows):
    """On tensors without content, whatever must know a value or a count raises."""
    assert loaded.model.parts.recordable
    ready = with_tensors(prepare_batch(loaded.prepare, rows, "1"), "cpu")
    loaded.answer(ready, 4)  # what is worked out once a size of picture
    with without_content() as mode:
        batch = TreeBatch(*map(partial(as_fake, mode), vars(ready.tensors).values()))
        answers = loaded.packed.answer(batch, loaded.label_ids[:4])
    assert answers[0].labels.shape == (len(rows), 4)


@in_words_alone
def test_words_are_answered_alike_by_ones_and_by_64(loaded, test_rows):
    """The whole table of 64 rows, in the orders of the data."""
    questions = [in_words(row) for row in test_rows[:64]]
    expected = reference_labels(loaded, questions, "1")
    scale = max(np.abs(row).max() for row in expected.values())
    for size in (1, 64):
        result = loaded.score(questions, batch_rows=size)
        assert largest_difference(result, questions, "1", expected) < 1e-5 * scale


@sees_pictures
def test_pictures_and_their_places_count(expected):
    """A test that the vision tower is not left out: other pictures and places, other logits."""
    assert np.abs(expected["first", "abcd"] - expected["words", "abcd"]).max() > 1e-3
    assert np.abs(expected["places", "abc"] - expected["places", "bca"][[2, 0, 1]]).max() > 1e-3


def test_the_guard_at_load_agrees(loaded, rows):
    assert compare_first(loaded, rows).largest < 1e-3


def test_the_ways_of_the_benchmark_give_the_same(loaded, rows, expected):
    """Padded on the right for logits, on the left for generation."""
    network, prepared = loaded.model.network, [loaded.prepare(row) for row in rows]
    batch = collate([sequence for sequence, _ in prepared], [patches for _, patches in prepared])
    with torch.no_grad():
        labels = network.lm_head(padded_states(network, batch))[:, loaded.label_ids[:4]]
    for row, logits in zip(rows, labels.numpy()):
        of_row = expected[row.id, "abcd"[: len(row.options)]]
        assert np.abs(logits[: len(of_row)] - of_row).max() < 1e-5 * max(1, np.abs(of_row).max())
    generated = generate_batch(network, loaded.prepare.chat, prepared, new_tokens=1)
    assert [answer.first_token for answer in generated] == loaded.score(rows).top_token[:, 0, 0].tolist()


@sees_pictures
def test_pictures_are_cut_as_the_library_cuts_them(family_base, test_rows):
    policy = policy_of(family_base, PIXELS)
    for shape in ((300, 120), (61, 47), (640, 480), (33, 640), (20, 90)):
        picture = read_picture(test_rows[1].pictures[0]).resize(shape)
        grid, patches = library_patches(model_type(family_base), family_base, picture, PIXELS)
        assert policy.grid(*shape) == grid
        assert np.array_equal(policy.patches(picture), patches)


@sees_pictures
def test_what_picture_settings_leave_out_is_the_processors_default(family_base, tmp_path):
    folder = shutil.copytree(family_base, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    for name in ("patch_size", "image_mean", "image_std", "merge_size", "temporal_patch_size"):
        settings.pop(name, None)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert policy_of(folder) == policy_of(family_base)


@sees_pictures
def test_ids_are_those_of_the_librarys_processor(family_base, loaded, rows):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(family_base)
    template = (family_base / "chat_template.jinja").read_text()
    for row in (rows[0], rows[3], rows[4]):
        sequence, _ = loaded.prepare(row)
        system, user = PromptTemplate().render(row.question, row.options, row.task_hint)
        content = [{"type": "image", "image": ""} for _ in row.pictures] + [{"type": "text", "text": user}]
        messages = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, system_turn(model_type(family_base), system))
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False, chat_template=template
        )
        token = loaded.prepare.chat.family.image_token
        before, after = loaded.prepare.chat.family.around or ("", "")
        for grid in sequence.grids:  # as `replace_image_token` of the processors
            count = library_tokens(model_type(family_base), grid, alone=len(row.pictures) == 1)
            text = text.replace(token, f"{before}{'<|picture|>' * count}{after}", 1)
        ids = tokenizer(text.replace("<|picture|>", token))["input_ids"]
        assert sequence.ids.tolist() == ids


@in_words_alone
def test_ids_are_those_of_the_librarys_tokenizer(family_base, loaded, rows):
    """The date of Llama's template is that of the template: a prompt is the same on every day."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(family_base)
    for template in (PromptTemplate(), PromptTemplate(system="")):
        for row in rows:
            system, user = template.render(row.question, row.options, row.task_hint)
            messages = [{"role": "system", "content": system}] * bool(system) + [{"role": "user", "content": user}]
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False, date_string="26 Jul 2024"
            )
            sequence = replace(loaded.prepare, template=template).encode(row)
            assert sequence.ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


@in_words_alone
def test_a_text_model_has_no_answer_for_a_picture(family_base, loaded, test_rows):
    assert policy_of(family_base).budget is None
    result = loaded.score([test_rows[0], in_words(test_rows[1])])
    unseen = f"1 picture, which a {family_of(family_base).name} base does not see"
    assert result.status == [f"picture: {unseen}", "ok"] and np.isnan(result.logits[0]).all()
    for prepare in (loaded.prepare, loaded.prepare.encode):
        with pytest.raises(PictureError, match=f"{unseen}; expected a question in words alone"):
            prepare(test_rows[0])


@in_words_alone
def test_text_models_count_positions_up(loaded, rows):
    sequence, patches = loaded.prepare(rows[0])
    assert len(patches) == 0 and sequence.positions()[0].tolist() == list(range(len(sequence.ids)))


@sees_pictures
def test_positions_are_the_librarys(loaded, rows):
    for row in rows:
        sequence, _ = loaded.prepare(row)
        ids = torch.from_numpy(sequence.ids)[None]
        if not hasattr(loaded.model.network.model, "get_rope_index"):  # pictures are counted as text
            assert np.array_equal(sequence.positions(), np.tile(np.arange(ids.shape[1]), (3, 1)))
            continue
        positions, _ = loaded.model.network.model.get_rope_index(
            ids,
            (ids == loaded.prepare.chat.image_token_id).int(),
            torch.tensor(sequence.grids) if sequence.grids else None,
            attention_mask=torch.ones_like(ids),
        )
        assert np.array_equal(sequence.positions(), positions[:, 0].numpy())


# ------------------------------------------------------------ adapters
@pytest.fixture(scope="module")
def checkpoint(family_base, demo, tmp_path_factory):
    """Two steps of training on eight rows."""
    from scoring.tables.reading import read_table

    out = tmp_path_factory.mktemp("trained") / "ckpt"
    config = replace(PLAIN, epochs=1, batch=4, learning_rate=1e-2, quantization="none", rank=4, alpha=8)
    questions = read_table(demo / "train.csv").questions
    if not family_of(family_base).sees_pictures:
        questions = [in_words(question) for question in questions]
    training, _ = trained(family_base, questions, out, config, rows=8, valid=2, pixels=budget(family_base))
    assert training.state.step == 2
    return out


@pytest.fixture(scope="module")
def scored(checkpoint, rows):
    return BatchScorer.load(str(checkpoint)).score(rows)


def test_training_reaches_every_layer_of_the_language_model_alone(checkpoint, family_base):
    tensors, family = load_file(checkpoint / FILE), family_of(family_base)
    assert all(key.startswith(f"base_model.model.{family.layers}") for key in tensors)
    assert all(tensor.any() for key, tensor in tensors.items() if "lora_B" in key)
    config = json.loads((family_base / "config.json").read_text())
    text = family.text_config(config)
    kinds = text.get("layer_types") or ["full_attention"] * family.sizes(config).layers
    feed_forward = 2 if config["model_type"].startswith("glm") else 3  # gate and up projection are one layer there
    assert len(tensors) == 2 * (4 * kinds.count("full_attention") + feed_forward * len(kinds))


def test_peft_loads_the_adapter_with_the_same_logits(checkpoint, family_base, rows, scored, loaded):
    import transformers
    from peft import PeftModel

    auto_model = getattr(transformers, family_of(family_base).auto_model)
    network = auto_model.from_pretrained(family_base, dtype=torch.float32)
    peft = PeftModel.from_pretrained(network, str(checkpoint)).eval()
    plain = loaded.score(rows)
    for number, row in enumerate(rows):
        logits = reference_logits(peft.base_model.model, *loaded.prepare(row))[loaded.label_ids[: len(row.options)]]
        ours = scored.logits[number, 0, 0, : len(row.options)]
        assert np.abs(ours - logits.numpy()).max() < 1e-4
        assert np.abs(ours - plain.logits[number, 0, 0, : len(row.options)]).max() > 1e-3


def test_adapters_with_older_names_are_the_same(checkpoint, rows, scored, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "older", ignore=shutil.ignore_patterns("calibration*"))
    tensors = load_file(folder / FILE)
    save_file({key.replace("model.language_model.", "model."): value for key, value in tensors.items()}, folder / FILE)
    assert np.array_equal(BatchScorer.load(str(folder)).score(rows).logits, scored.logits, equal_nan=True)


def test_an_exported_model_has_the_files_names_and_the_same_answers(checkpoint, family_base, rows, scored, tmp_path):
    export_model(str(checkpoint), tmp_path / "whole", options=ExportOptions(dtype="fp32"))
    assert {*load_file(tmp_path / "whole" / "model.safetensors")} == {*load_file(family_base / "model.safetensors")}
    exported = BatchScorer.load(str(tmp_path / "whole")).score(rows)
    assert np.nanmax(np.abs(exported.logits - scored.logits)) < 1e-4


# ------------------------------------------------------------ runs
@pytest.mark.parametrize("family_base", ["qwen3_5", "glm4v", "internvl", "qwen3"], indirect=True)
def test_shards_and_a_run_that_goes_on_have_the_bytes_of_one_run(family_base, quick_cli, small_table, tmp_path):
    table, sees = small_table(5), family_of(family_base).sees_pictures
    if not sees:
        records = list(csv.DictReader(table.read_text("utf-8").splitlines()))
        table.write_text("\n".join(json.dumps({**record, "path": None}) for record in records))
    pixels = ["--pixels", 112] if sees else []
    arguments = [table, "--ckpt", family_base, "--quantization", "none", "--batch-tokens", 300, *pixels]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    quick_cli("score", *arguments, "--out", whole)
    shards = [tmp_path / "first", tmp_path / "second"]
    for number, shard in enumerate(shards, 1):
        quick_cli("score", *arguments, "--shard", f"{number}/2", "--out", shard)
    quick_cli("merge", *shards, "--out", tmp_path / "merged")
    assert content(tmp_path / "merged", SCORED) == content(whole, SCORED)
    shutil.copytree(whole, stopped)
    last = sorted((stopped / "logits").iterdir())[-1]
    for path in (last, *(stopped / name for name in ("run.json", "metrics.json", "probabilities.csv"))):
        path.unlink()
    assert "going on:" in quick_cli("score", *arguments, "--out", stopped).stderr
    assert content(stopped, SCORED) == content(whole, SCORED)


# ------------------------------------------------------------ bases
def test_weights_have_the_names_of_the_librarys_modules(family_base):
    weights, network = BaseWeights.of(family_base), Model.load(family_base, "none").network
    assert {*weights.shapes} == {*network.state_dict()}
    linear = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {*weights.linear} == linear


def test_older_configurations_without_sections_are_read(base, seen_rows, tmp_path):
    """As the hub has Qwen2-VL and Qwen2.5-VL: the language model's part is not in a section of its own."""
    folder = tiny_base("qwen2_vl", base, tmp_path / "base", tied=True)
    before = BatchScorer(plan_members([str(folder)], quantization="none", pixels=PIXELS)).score(seen_rows[:2])
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = {"type": "mrope", "mrope_section": text["rope_parameters"]["mrope_section"]}
    text |= {"rope_scaling": rope, "rope_theta": text.pop("rope_parameters")["rope_theta"]}
    for name in ("layer_types", "model_type", "dtype"):
        text.pop(name, None)
    (folder / "config.json").write_text(json.dumps(text | config))
    family = next(family for family in FAMILIES if family.name == "Qwen2-VL")
    sizes = family.sizes(text | config)
    assert (sizes.layers, sizes.width, sizes.heads, sizes.key_value_heads, sizes.head_size) == (3, 64, 4, 2, 16)
    scorer = BatchScorer(plan_members([str(folder)], quantization="none", pixels=PIXELS))
    assert scorer.prepare.context == 2048
    assert np.array_equal(scorer.score(seen_rows[:2]).logits, before.logits)


@pytest.mark.parametrize(
    "family_base", ["qwen2_5_vl", "qwen2_vl", "qwen3", "qwen3_5", "internvl", "llava_onevision"], indirect=True
)
def test_one_base_in_4_bits_has_the_same_bits_expanded_or_not(family_base, rows):
    plan = plan_members([str(family_base)], quantization="nf4", pixels=budget(family_base))
    kept, expanded = (BatchScorer(plan, weights=weights).score(rows).logits for weights in ("4bit", "16bit"))
    assert np.array_equal(kept, expanded, equal_nan=True)


def test_a_family_for_every_known_model_type():
    from scoring.engine.families.registry import PARTS

    assert {*PARTS} == {family.name for family in FAMILIES}
    assert {family.model_types[0] for family in FAMILIES} == {*CONFIGS}
