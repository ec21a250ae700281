"""What `show` says of a checkpoint."""

import shutil


def test_a_faulty_checkpoint_is_shown_as_such(cli, tmp_path, demo):
    shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "c")
    data = (tmp_path / "c" / "adapter_model.safetensors").read_bytes()
    (tmp_path / "c" / "adapter_model.safetensors").write_bytes(data[:-10])
    assert "cut off" in cli("show", tmp_path / "c", "--base", "demo/base", check=2).stderr
