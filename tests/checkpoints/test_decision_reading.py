"""Checkpoints of others that describe themselves by transformers' decision files."""

import json
import shutil

import pytest

from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.checkpoints.decision_files import DECISION_CONFIG, DECISION_TEMPLATE, write_decision_files
from scoring.checkpoints.decision_reading import read_decisions
from scoring.checkpoints.description import describe
from scoring.checkpoints.export import export_adapter, export_model
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import CheckpointError
from scoring.files.reading import FileError
from scoring.inputs.prompt import PromptTemplate
from scoring.stats.calibration import Calibration

OURS = PromptTemplate(system="", user="{question}\n{options}", option="{letter}. {option}", letters="upper")


@pytest.fixture
def foreign(fold, demo, preparer):
    """An adapter without the product's files, but with decision files."""
    for name in ("scoring.json", "calibration.json", "rows.parquet", "validation.csv"):
        (fold / name).unlink()
    write_decision_files(fold, preparer.chat, OURS, Calibration(1.7))
    return fold


def changed(folder, **values):
    config = json.loads((folder / DECISION_CONFIG).read_text()) | values
    (folder / DECISION_CONFIG).write_text(json.dumps(config))


def test_prompt_letters_and_temperature_are_theirs(foreign, base):
    plan = plan_members([str(foreign)], str(base))
    assert plan.template == OURS
    assert plan.calibrations[0].temperature == 1.7
    assert any(DECISION_CONFIG in note for note in plan.notes) and not any("Korean" in note for note in plan.notes)
    text = describe(read_checkpoint(str(foreign), str(base))).text
    assert "temperature 1.700" in text and "upper case" in text and "FAULT" not in text


def test_an_adapter_in_a_subfolder_is_found_on_the_model_beside_it(foreign, base, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(base, folder)
    for name in (DECISION_CONFIG, DECISION_TEMPLATE):
        shutil.move(foreign / name, folder / name)
    shutil.move(foreign, folder / "lora")
    changed(folder, adapter="lora")
    plan = plan_members([str(folder)])
    assert (plan.template, plan.base, plan.calibrations[0].temperature) == (OURS, folder, 1.7)
    assert plan.checkpoints[0].folder == folder / "lora"
    assert sum(DECISION_CONFIG in note for note in plan.notes) == 1 and not any("Korean" in note for note in plan.notes)
    changed(folder, adapter="none")
    with pytest.raises(CheckpointError, match="'none'; expected a folder in it with"):
        read_checkpoint(str(folder))
    for outside in ("../lora", "/lora", "."):
        changed(folder, adapter=outside)
        with pytest.raises(FileError, match="expected a folder inside"):
            read_checkpoint(str(folder))


@pytest.mark.parametrize("text", ["{{ state }}", None])
def test_anothers_prompt_is_refused_unless_a_template_is_given(foreign, base, text):
    path = foreign / DECISION_TEMPLATE
    path.write_text(text) if text else path.unlink()
    with pytest.raises(CheckpointError, match="--template"):
        plan_members([str(foreign)], str(base))
    plan = plan_members([str(foreign)], str(base), template=OURS)
    assert plan.calibrations[0].temperature == 1.7
    assert describe(read_checkpoint(str(foreign), str(base))).faults
    with pytest.raises(CheckpointError, match="`score --template FILE`"):
        export_adapter(str(foreign), foreign.parent / "gift", "org/model", str(base))


def test_other_labels_than_letters_are_refused(foreign, base):
    changed(foreign, labels={"choice": ["1", "2"]})
    with pytest.raises(CheckpointError, match="labels 1, 2"):
        plan_members([str(foreign)], str(base))


def test_prompt_and_temperature_are_exported(foreign, base, tmp_path):
    export_model(str(foreign), tmp_path / "whole", str(base))
    export_adapter(str(foreign), tmp_path / "gift", "org/model", str(base))
    for plan in (plan_members([str(tmp_path / "whole")]), plan_members([str(tmp_path / "gift")], str(base))):
        assert (plan.template, plan.calibrations[0].temperature) == (OURS, 1.7)
    assert read_decisions(tmp_path / "whole").calibration.temperature == 1.7


def test_a_manifest_comes_first(fold, preparer, base):
    write_decision_files(fold, preparer.chat, OURS, Calibration(9.0))
    plan = plan_members([str(fold)], str(base))
    assert plan.template == PromptTemplate() and plan.calibrations[0].rows == 60
