"""Settings of a run that are not those of its checkpoint are refused with both values."""

import json
from dataclasses import replace

import pytest

from scoring.checkpoints.compatibility import MismatchError
from scoring.engine.batch_scorer import BatchScorer
from tests.shared.templates import THEIRS


def test_settings_that_differ_are_refused_with_both_values(copy, base):
    folder = copy()
    with pytest.raises(MismatchError, match=r"pixels is 36864, but this run has 65536"):
        BatchScorer.load(str(folder), base=str(base), pixels=65_536)
    with pytest.raises(MismatchError, match="quantization is nf4, but this run has none"):
        BatchScorer.load(str(folder), base=str(base), quantization="none")
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration["fingerprint"]["adapter"] = "0123"
    (folder / "calibration.json").write_text(json.dumps(calibration))
    with pytest.raises(MismatchError, match="calibration's adapter is 0123"):
        BatchScorer.load(str(folder), base=str(base))
    assert any("0123" in note for note in BatchScorer.load(str(folder), base=str(base), allow_mismatch=True).plan.notes)


def test_a_template_that_differs_is_named_with_its_fields(copy, base):
    folder = copy(drop=["calibration.json"])
    manifest = json.loads((folder / "scoring.json").read_text()) | {"template": THEIRS.to_json()}
    (folder / "scoring.json").write_text(json.dumps(manifest))
    assert BatchScorer.load(str(folder), base=str(base)).plan.template == THEIRS
    with pytest.raises(MismatchError) as caught:
        BatchScorer.load(str(folder), base=str(base), template=replace(THEIRS, letters="lower", system="x"))
    other = replace(THEIRS, letters="lower", system="x").fingerprint
    named = f"template is {THEIRS.fingerprint}, but this run has {other} (they differ in system, letters)"
    assert named in str(caught.value)
