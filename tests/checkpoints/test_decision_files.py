"""transformers' own `pipeline("decision")` answers from a checkpoint's files as the product does.

Whole checkpoints against what `score` writes; kinds of questions on one loaded network, against its plain forward of
the product's own prompt, with which others hold the engine.
"""

import csv
import json
import re
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoring.checkpoints.decision_files import (
    DECISION_CONFIG,
    DECISION_TEMPLATE,
    read_template,
    update_temperature,
    write_decision_files,
)
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Question
from scoring.stats.calibration import Calibration, log_probabilities

pytest.importorskip("transformers.pipelines.decision")
DOCS = Path(__file__).resolve().parents[2] / "docs"
ODD = PromptTemplate(
    system="Say {letters}: {% raw %} \"{{ x }}\" #} {# \\n 'é😀'",
    user="Q {question} {{question}}\n{options}\n{letters} {% if %}{hint}",
    option="{letter}) {option} #}",
    letters="upper",
)


@pytest.fixture(scope="session")
def processor(base):
    from transformers import AutoImageProcessor

    from scoring.benchmark.decision_pipeline import processor_of
    from scoring.inputs.families.registry import policy_of

    processor = processor_of(base, policy_of(base))
    processor.image_processor = AutoImageProcessor.from_pretrained(base, backend="pil")  # as the product's
    return processor


@pytest.fixture
def whole(quick_cli, fold, tmp_path):
    """`export` of a checkpoint: (the folder, how the pipeline loads it)."""

    def export():
        quick_cli("export", fold, "--base", "demo/base", "--dtype", "fp32", "--out", tmp_path / "whole")
        return tmp_path / "whole", {}

    return export


@pytest.fixture
def adapter(quick_cli, fold, tmp_path):
    """The same of an adapter on the base in 4 bits."""
    import torch

    def export():
        from transformers import BitsAndBytesConfig

        out, base = tmp_path / "adapter", ("--base", "demo/base", "--base-name", "demo/base")
        quick_cli("export", fold, "--adapter-only", *base, "--out", out)
        in_4_bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=["lm_head", "model.visual"],
        )
        return out, {"decision_config": str(out), "model_kwargs": {"quantization_config": in_4_bits}}

    return export


def in_float32(network):
    """bitsandbytes answers in bfloat16 on processors that have it, whatever the network's type."""
    for layer in network.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return network


@pytest.fixture(scope="session")
def both(scorer, processor):
    """Probabilities of a question by the pipeline, with the files of a template, and by the libraries' forward."""
    from transformers.decision import DecisionConfig
    from transformers.pipelines.decision import DecisionPipeline

    from scoring.engine.reference import reference_logits

    def ask(folder, question, request, template=None):
        template, calibration = template or scorer.prepare.template, scorer.plan.calibrations[0]
        write_decision_files(folder, scorer.prepare.chat, template, calibration)
        prepare = replace(scorer.prepare, template=template)
        scorer.model.use(scorer.adapters[0])
        pipe = DecisionPipeline(
            model=scorer.model.network,
            tokenizer=processor.tokenizer,
            processor=processor,
            decision_config=DecisionConfig.from_pretrained(folder),
        )
        answer = pipe(request)["q"]
        theirs = answer.get("probabilities") or {"true": answer["noul"], "false": 1 - answer["noul"]}
        labels = prepare.label_ids(len(question.options))
        logits = reference_logits(scorer.model.network, *prepare(question))[labels].cpu().numpy()
        ours = np.exp(log_probabilities(logits, calibration.temperature))
        return list(theirs.values()), ours.tolist()

    return ask


def row(question="What?", options=("red", "blue"), pictures=()):
    return Question("1", 1, tuple(pictures), question, tuple(options))


def ask_about(state, instructions, criteria, kind="choice", assets=None):
    question = {"type": kind, "instructions": instructions, "criteria": criteria}
    return {"state": state, "questions": {"q": question}, **({"assets": assets} if assets else {})}


@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "raw"])
@pytest.mark.parametrize("form", ["whole", "adapter"])
def test_a_checkpoint_has_the_probabilities_that_score_writes(
    request, quick_cli, processor, small_table, fold, tmp_path, form, calibrated
):
    import torch
    from transformers import pipeline

    if not calibrated:
        (fold / "calibration.json").unlink()
    folder, options = request.getfixturevalue(form)()
    table = small_table(8)
    with open(table, newline="", encoding="utf-8") as file:
        rows = [values | {"task_hint": ""} for values in csv.DictReader(file)]
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    quick_cli("score", table, "--ckpt", folder, "--out", tmp_path / "scores")
    with open(tmp_path / "scores" / "probabilities.csv", newline="", encoding="utf-8") as file:
        scored = [[float(values[f"p_{letter}"]) for letter in "abcd"] for values in csv.DictReader(file)]
    decide = pipeline("decision", str(folder), processor=processor, dtype=torch.float32, **options)
    in_float32(decide.model)
    assert (decide.decision_config.temperature["choice"] != 1) == calibrated
    for values, ours in zip(rows, scored, strict=True):
        criteria = {values[letter]: None for letter in "abcd"}
        with Image.open(table.parent / values["path"]) as opened:
            asked = ask_about("PHOTO", values["question"], criteria, assets={"PHOTO": opened.convert("RGB")})
        assert list(decide(asked)["q"]["probabilities"].values()) == pytest.approx(ours, abs=1e-4)


def test_the_examples_of_the_document_run(whole, adapter, processor, demo, monkeypatch):
    import transformers

    examples = "\n".join(
        re.findall(r"^```py\n(.*?)^```", (DOCS / "decision-pipeline.md").read_text("utf-8"), re.S | re.M)
    )
    picture = sorted((demo / "images").iterdir())[0]
    for name, path in (("ckpt/model", whole()[0]), ("ckpt/gift", adapter()[0]), ("photo.jpg", picture)):
        assert name in examples
        examples = examples.replace(name, str(path))
    with_processor = partial(transformers.pipeline, processor=copy(processor))  # which is made without torchvision
    monkeypatch.setattr(transformers, "pipeline", with_processor)
    names = {}
    exec(examples, names)
    answers = names["answers"]
    assert set(answers) == {"color", "indoors", "bright"} and 0 < answers["indoors"]["noul"] < 1
    assert sum(answers["color"]["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert any(type(layer).__name__ == "Linear4bit" for layer in names["decide"].model.modules())


def test_rows_with_pictures_have_the_same_probabilities(both, scorer, demo, tmp_path):
    from scoring.tables.reading import read_table

    table = read_table(demo / "test.csv")
    for question in table.questions[:6]:
        question = replace(question, task_hint="")
        picture = scorer.prepare.picture(question)
        request = ask_about("IMG0", question.question, dict.fromkeys(question.options), assets={"IMG0": picture})
        theirs, ours = both(tmp_path, question, request)
        assert theirs == pytest.approx(ours, abs=1e-4)


def picture(color):
    return Image.new("RGB", (192, 192), color)


CASES = {
    "text and two options": (row(), ask_about("", "What?", {"red": None, "blue": None})),
    "state, five options": (
        row("Once.\n\nWhat?", ("a", "b: more", "c", "d", "e")),
        ask_about("Once.", "What?", {"a": None, "b": "more", "c": None, "d": None, "e": None}),
    ),
    "JSON": (
        row('{"a": [1, "é", null], "b": true}\n\nWhat?'),
        ask_about({"a": [1, "é", None], "b": True}, "What?", {"red": None, "blue": None}),
    ),
    "noul": (row(options=("Yes", "No")), ask_about("", "What?", None, "noul")),
    "noul, described": (
        row(options=("Yes: it is", "No")),
        ask_about("", "What?", {"true": "it is"}, "noul"),
    ),
    "score": (row(options=("low", "mid", "high")), ask_about("", "What?", ["low", "mid", "high"], "score")),
    "markup": (
        row("{{ 7*7 }} {% x %} {question} \"'\\n #}", ("{letter}", "{#")),
        ask_about("", "{{ 7*7 }} {% x %} {question} \"'\\n #}", {"{letter}": None, "{#": None}),
    ),
}


@pytest.mark.parametrize("template", [None, ODD], ids=["default", "odd"])
@pytest.mark.parametrize("case", CASES)
def test_words_have_the_same_probabilities(both, tmp_path, case, template):
    theirs, ours = both(tmp_path, *CASES[case], template)
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_pictures_stand_in_their_places(scorer, processor, tmp_path):
    """The tokens are equal: pictures lead, or stand where the state and the instructions have them."""
    from transformers.decision import DecisionConfig

    write_decision_files(tmp_path, scorer.prepare.chat, scorer.prepare.template, None)
    config = DecisionConfig.from_pretrained(tmp_path)
    assets = {"P1": picture("red"), "P2": picture("blue")}
    request = ask_about("P1left P2right", "Like P1?", {"x": None, "y": None}, assets=assets)
    ((inputs, _),) = config.prepare_inputs(request, processor)
    text = scorer.prepare.template.render("left <image 2>right\n\nLike <image 3>?", ["x", "y"])[1]
    ids = inputs["input_ids"][0].tolist()
    tokens = processor.tokenizer.decode(ids)
    image = "<|vision_start|>" + "<|image_pad|>" * 36 + "<|vision_end|>"
    assert image + text.replace("<image 2>", image).replace("<image 3>", image) in tokens


def test_control_tokens_in_a_request_are_text(scorer, processor, tmp_path):
    from transformers.decision import DecisionConfig

    write_decision_files(tmp_path, scorer.prepare.chat, scorer.prepare.template, None)
    config = DecisionConfig.from_pretrained(tmp_path)
    chat = scorer.prepare.chat
    text = "".join(chat.control)

    def counts(instructions):
        ((inputs, _),) = config.prepare_inputs(ask_about("", instructions, {"x": None, "y": None}), processor)
        ids = inputs["input_ids"][0].tolist()
        return [ids.count(number) for number in chat.control.values()]

    assert counts(text) == counts("?")


def test_the_template_reads_back_exactly_and_a_changed_file_does_not(preparer, tmp_path):
    path = tmp_path / DECISION_TEMPLATE
    for template in (PromptTemplate(), ODD):
        write_decision_files(tmp_path, preparer.chat, template, None)
        assert read_template(tmp_path) == template
        path.write_text(path.read_text("utf-8").replace("Yes", "Ja"), "utf-8")
        assert read_template(tmp_path) is None
    path.write_text("{{ question.instructions }}")
    assert read_template(tmp_path) is None


def test_the_temperature_follows_a_new_calibration(preparer, tmp_path):
    def temperature():
        return json.loads((tmp_path / DECISION_CONFIG).read_text())["temperature"]["choice"]

    assert update_temperature(tmp_path, Calibration(2.0)) == []
    assert not (tmp_path / DECISION_CONFIG).exists()
    write_decision_files(tmp_path, preparer.chat, PromptTemplate(), None)
    assert temperature() == 1
    update_temperature(tmp_path, Calibration(2.0))
    assert temperature() == 2
    (note,) = update_temperature(tmp_path, Calibration(2.0, letters=[0.1, 0.2]))
    assert "bias" in note and temperature() == 1
    (tmp_path / DECISION_TEMPLATE).write_text("{{ state }}")
    (note,) = update_temperature(tmp_path, Calibration(2.0))
    assert "not what `train` wrote" in note and temperature() == 1
    (tmp_path / DECISION_CONFIG).write_text("{")
    (note,) = update_temperature(tmp_path, Calibration(2.0))
    assert "damaged" in note


def test_nothing_is_written_where_the_pipeline_would_read_other_tokens(preparer, tmp_path, monkeypatch):
    monkeypatch.setattr(type(preparer.chat), "label_ids", lambda self, letters, system=True: [0] * len(letters))
    (note,) = write_decision_files(tmp_path, preparer.chat, PromptTemplate(), None)
    assert "were not written: the letters" in note and not list(tmp_path.iterdir())
