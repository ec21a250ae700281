"""Checkpoints whose files a test may change."""

import json
import shutil
from pathlib import Path

import pytest

from tests.shared.demo import FOLD0


@pytest.fixture
def copy(tmp_path, demo):
    """A copy of the first checkpoint; `change(tensors)` may return others, `config` and `drop` alter its files."""
    from safetensors.torch import load_file, save_file

    def make(change=lambda tensors: tensors, drop=(), name="copy", **config):
        folder = tmp_path / name
        shutil.copytree(demo / "checkpoints" / "fold0", folder)
        save_file(change(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
        settings = json.loads((folder / "adapter_config.json").read_text()) | config
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        for file in drop:
            (folder / file).unlink()
        return folder

    return make


@pytest.fixture
def fold(tmp_path):
    """A copy of a demo checkpoint that may be written into."""
    return Path(shutil.copytree(FOLD0, tmp_path / "fold0"))
