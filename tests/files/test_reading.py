"""Small JSON files: an object with fields of the right type, or an error that names file and field."""

from dataclasses import dataclass

import pytest

from scoring.files.reading import FileError, as_object, read_json, read_object


@dataclass
class Inner:
    size: float


@dataclass
class Outer:
    name: str
    inner: Inner
    count: int = 1

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"count is {self.count}; expected 1 or more")


def test_a_missing_file_is_read_as_none(tmp_path):
    assert read_json(tmp_path / "none.json") is None and read_object(Outer, tmp_path / "none.json") is None


def test_an_object_becomes_the_dataclass_and_unknown_keys_are_ignored(tmp_path):
    (tmp_path / "f.json").write_text('{"name": "가", "inner": {"size": 2}, "more": 7}', "utf-8")
    assert read_object(Outer, tmp_path / "f.json") == Outer("가", Inner(2.0))


@pytest.mark.parametrize("content, problem", [(b"[]", "a list"), (b"{", "Expecting"), (b"\xff\xfe", "codec")])
def test_content_that_is_no_json_object_is_refused_with_the_file(tmp_path, content, problem):
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"{problem}.*; expected a JSON object; the file is damaged") as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: found ")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(FileError, match="found a folder; expected a file with a JSON object"):
        read_json(tmp_path)


def test_all_faults_are_named_at_once_by_their_fields():
    with pytest.raises(FileError) as error:
        as_object(Outer, {"inner": {"size": "x" * 100}, "count": "2"}, "f.json")
    text = str(error.value)
    assert text.startswith("f.json: found no name; expected one; ") and text.endswith("or was made for something else")
    assert f"inner.size is '{'x' * 59}…; expected a valid number" in text
    assert "count is '2'; expected a valid integer" in text
    with pytest.raises(FileError, match="count is 0; expected 1 or more"):
        as_object(Outer, {"name": "n", "inner": {"size": 1}, "count": 0}, "f.json")
