"""Which calibration a member of a run uses."""

import json
from pathlib import Path

import pytest

from scoring.checkpoints.compatibility import MismatchError
from scoring.checkpoints.plan import plan_members


def test_which_calibration_is_used(tmp_path):
    fold0, fold1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))
    own = plan_members([fold0]).calibrations[0].temperature
    assert own != 1 and plan_members([fold0], calibration="none").calibrations[0].temperature == 1
    values = json.loads(Path(fold0, "calibration.json").read_text())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values | {"temperature": 2.5}))
    assert [found.temperature for found in plan_members([fold0, fold1], calibration=str(path)).calibrations][0] == 2.5
    with pytest.raises(MismatchError, match="it is for adapter 62a165f8618886c6, but this run has dc418232be17c9dc"):
        plan_members([fold1], calibration=str(path))
    with pytest.raises(MismatchError, match="calibration's orders is 1, but this run has cyclic"):
        plan_members([fold0], calibration=str(path), orders="cyclic")
    with pytest.raises(ValueError, match="no calibration; expected a file that `calibrate` wrote"):
        plan_members([fold0], calibration=f"{fold0}/scoring.json")
