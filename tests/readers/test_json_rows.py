"""JSON and JSONL: the same rows from each, and what is broken is named by its line."""

import json

import pytest

from scoring.errors import InputError
from scoring.readers import json_rows
from scoring.readers.json_rows import looks_like_json, open_json

ROWS = [{"id": 1, "question": "무엇?", "choices": ["a", "b"]}, {"id": "x", "score": 1.50, "question": None}]
CELLS = [[1, "무엇?", ["a", "b"], None], ["x", None, None, "1.5"]]


def opened(folder, text):
    path = folder / "t.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_json(path, "digest")


@pytest.mark.parametrize(
    "text, form, lines",
    [
        (json.dumps(ROWS), "JSON", [0, 0]),
        (json.dumps(ROWS, indent=1), "JSON", [0, 0]),
        ("\ufeff" + json.dumps(ROWS), "JSON", [0, 0]),
        (json.dumps({"version": 1, "data": ROWS}), "JSON", [0, 0]),
        ("\n".join(map(json.dumps, ROWS)), "JSONL", [1, 2]),
        ("\ufeff" + "\r\n\r\n".join(map(json.dumps, ROWS)) + "\n", "JSONL", [1, 3]),
    ],
)
def test_rows_are_the_same_in_every_form(tmp_path, text, form, lines):
    table = opened(tmp_path, text)
    assert (table.format, table.header) == (form, ["id", "question", "choices", "score"])
    assert [list(row) for row in table.rows()] == [[n + 1, lines[n], CELLS[n]] for n in range(2)]
    assert list(table.rows()) == list(table.rows()) and looks_like_json(text.encode()[:100])


def test_an_object_in_one_line_is_a_table_of_one_row(tmp_path):
    assert [row.cells for row in opened(tmp_path, '{"id": 1, "tags": ["x"]}').rows()] == [[1, ["x"]]]


def test_what_pandas_writes_for_a_missing_cell_is_missing(tmp_path):
    assert next(opened(tmp_path, '[{"a": NaN, "b": null, "c": "NaN"}]').rows()).cells == [None, None, "NaN"]


def test_numbers_stay_as_written(tmp_path):
    table = opened(tmp_path, '[{"a": 1.10, "b": 1e3, "c": Infinity, "d": 12345678901234567890, "e": true}]')
    assert next(table.rows()).cells == ["1.10", "1e3", "Infinity", 12345678901234567890, True]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"id": 1}\n{"id": 2,}\n', "broken JSON in line 2, column 10"),
        ('[{"id": 1},\n {"id" 2}]', "broken JSON in line 2, column 8"),
        ('{"id": 1}\n[2]\n', r"'\[2\]' in line 2; expected an object"),
        ('[{"id": 1}, 2]', "'2' in row 2; expected an object"),
        ('{"id": 1, "id": 2}\n{"id": 3}', "the key 'id' twice in one object"),
        ('{"a": [{"x": 1}],\n "b": [{"x": 1}]}', "an object with 2 lists of objects .'a', 'b'."),
        ('{\n"a": 1}', "an object with 0 lists of objects"),
        ("[]", "no objects"),
        ("[" * 100_000, "broken JSON"),
        (b'{"id": "\xff"}\n{"id": 2}', "byte 0xff in line 1, not UTF-8"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, text)


def test_a_list_that_is_parsed_at_once_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_BYTES", 50)
    assert opened(tmp_path, '{"id": 1}\n' * 20).format == "JSONL"
    with pytest.raises(InputError, match="GiB of JSON; expected a smaller file; write one object a line"):
        opened(tmp_path, json.dumps([{"id": 1}] * 20))


@pytest.mark.parametrize("head", ["id,path\n", "[id],path\n", '"id"\n', "", "[1, 2]"])
def test_text_with_separators_is_not_taken_for_json(head):
    assert not looks_like_json(head.encode())


def test_a_conversation_in_one_line_is_a_row_and_its_turns_are_no_table(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}], "images": ["p.png"]}\n')
    table = open_json(tmp_path / "t.jsonl", "")
    assert (table.format, table.header) == ("JSONL", ["messages", "images"]) and len(list(table.rows())) == 1


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("separator", [",", "\n", "\n\n \n"])
def test_a_reading_from_a_later_row_on_gives_what_a_whole_one_gives(tmp_path, after, separator):
    rows = separator.join(json.dumps({"id": number}) for number in range(4))
    table = opened(tmp_path, f"\ufeff[{rows}]" if separator == "," else f"\ufeff{rows}\n")
    assert list(table.rows(after=after)) == list(table.rows())[after:]


def test_lines_before_the_first_row_are_not_parsed(tmp_path):
    table = opened(tmp_path, '{"id": 1}\n{"id": 2}\n')
    table.file.write_text('{"id"; 1}\n{"id": 2}\n')
    assert list(table.rows(after=1)) == [(2, 2, [2])]
