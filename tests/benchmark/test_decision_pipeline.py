"""transformers' own pipeline as a way of the benchmark."""

from dataclasses import replace

import pytest
from PIL import Image

from scoring.benchmark.decision_pipeline import PipelineUnavailableError, _with_placeholders, processor_of
from scoring.benchmark.summary import DECISION, DEFAULT_WAYS, SINGLE
from scoring.inputs.families.glm4v import GlmPixelPolicy
from scoring.inputs.families.registry import policy_of
from scoring.inputs.questions import Question
from scoring.stats.calibration import Calibration


class Quiet:
    """A progress bar that shows nothing."""

    def __init__(self, total, done=0):
        pass

    def update(self, count):
        pass

    def close(self):
        pass


def test_it_has_the_probabilities_of_a_forward(bench, monkeypatch):
    pytest.importorskip("transformers.pipelines.decision")
    said = []
    assert bench._applicable([DECISION], said.append) == [DECISION] and "without the rows' hints" in said[0]
    questions = [replace(question, task_hint="") for question in bench.questions]
    monkeypatch.setattr(bench, "questions", questions)
    assert bench._applicable([DECISION], said.append) == [DECISION] and len(said) == 1
    (measured,) = bench.measure([SINGLE, DECISION], 1, Quiet, print)
    for theirs, ours in zip(measured[DECISION].answers, measured[SINGLE].answers, strict=True):
        assert theirs.p == pytest.approx(ours.p, abs=1e-4) and theirs.letter == ours.letter
    assert DECISION not in DEFAULT_WAYS


def test_it_is_left_out_where_its_files_cannot_hold_the_calibration(bench, monkeypatch):
    said = []
    plan = replace(bench.scorer.plan, calibrations=[Calibration(letters=[0.1, 0.2, 0.3, 0.4])])
    bench.baselines.__dict__.pop("_pipeline", None)
    monkeypatch.setattr(bench.scorer, "plan", plan)
    assert bench._applicable([SINGLE, DECISION], said.append) == [SINGLE]
    assert said[0].startswith("decision is left out: ") and "bias" in said[0]


def test_pictures_are_named_by_what_no_text_has():
    question = Question("1", 1, (), "PICTURE <image 2>!", ("x", "PICTURE_"))
    state, assets = _with_placeholders(question, ["first", "second"])
    assert state == "PICTURE__0;PICTURE PICTURE__1;!"
    assert assets == {"PICTURE__0;": "first", "PICTURE__1;": "second"}


@pytest.mark.parametrize("pixels", [16384, 36864, 200704])
def test_pictures_are_cut_as_the_checkpoint_cuts_them(base, pixels):
    policy = policy_of(base, pixels)
    cut = processor_of(base, policy).image_processor
    for size in ((60, 40), (192, 192), (900, 300)):
        grid = cut(Image.new("RGB", size), return_tensors="pt")["image_grid_thw"][0].tolist()
        assert tuple(grid) == policy.grid(*size)


def test_a_base_whose_pictures_are_cut_otherwise_is_left_out(base):
    with pytest.raises(PipelineUnavailableError, match="no budget of pixels"):
        processor_of(base, GlmPixelPolicy())
