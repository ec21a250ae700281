"""A checkpoint's folder, and where its base is found: beside it, by --base, or on the hub."""

import pytest

from scoring.checkpoints.checkpoint import find_base, read_checkpoint
from scoring.checkpoints.weights import CheckpointError
from scoring.files.reading import FileError


def test_missing_files_are_named(tmp_path, copy):
    with pytest.raises(CheckpointError, match="no such folder"):
        read_checkpoint(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="neither"):
        read_checkpoint(str(tmp_path / "empty"))
    (tmp_path / "empty" / "adapter_config.json").write_text("{broken")
    with pytest.raises(FileError, match="damaged"):
        read_checkpoint(str(tmp_path / "empty"))


def test_the_base_is_found_beside_the_checkpoint(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # from wherever the command runs
    assert find_base("../../base", demo / "checkpoints" / "fold0").resolve() == (demo / "base").resolve()
    with pytest.raises(CheckpointError, match="--base"):
        find_base("./nowhere")


@pytest.mark.parametrize(
    "name, revision, expected",
    [
        ("org/model@v1.2", None, ("org/model", "v1.2")),
        ("org/model", "abc", ("org/model", "abc")),
        ("org/model@v2", "abc", ("org/model", "v2")),
        ("org/model", None, ("org/model", None)),
    ],
)
def test_a_hub_id_and_its_revision_reach_the_hub(monkeypatch, tmp_path, name, revision, expected):
    asked = {}

    def download(repository, **options):
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_base(name, revision=revision) == tmp_path
    assert (asked["repository"], asked["revision"]) == expected
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for pattern in asked["allow_patterns"])


def test_a_hub_that_does_not_answer_is_reported(monkeypatch):
    def download(repository, **options):
        raise OSError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match="org/model: neither a folder nor available from the hub"):
        find_base("org/model@main")
