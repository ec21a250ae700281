"""What `show` says of a checkpoint."""

import json
import shutil

from tests.shared.templates import THEIRS


def test_a_faulty_checkpoint_is_shown_as_such(cli, tmp_path, demo):
    shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "c")
    data = (tmp_path / "c" / "adapter_model.safetensors").read_bytes()
    (tmp_path / "c" / "adapter_model.safetensors").write_bytes(data[:-10])
    assert "cut off" in cli("show", tmp_path / "c", "--base", "demo/base", check=2).stderr


def test_capital_letters_and_a_missing_system_turn_are_shown(cli, tmp_path, demo):
    shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "c")
    command = ["show", tmp_path / "c", "--base", "demo/base"]
    assert "letters       abcd\n" in cli(*command).stdout
    manifest = json.loads((tmp_path / "c" / "scoring.json").read_text()) | {"template": THEIRS.to_json()}
    (tmp_path / "c" / "scoring.json").write_text(json.dumps(manifest))
    shown = cli(*command).stdout
    assert "letters       abcd, shown and answered in upper case\n" in shown
    assert "system      none: the conversation begins with the user's turn\n" in shown
