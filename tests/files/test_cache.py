"""Where things lie that can be made again."""

from pathlib import Path

from scoring.files.cache import cache_folder


def test_the_folder_is_where_the_system_keeps_such_things(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "logit-scoring"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert cache_folder() == Path(tmp_path / "me" / ".cache" / "logit-scoring")
