"""Settings of a run that are not those of its checkpoint are refused with both values."""

import json

import pytest

from scoring import Scorer
from scoring.checkpoints.compatibility import MismatchError


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
