"""Which columns hold what, and what a row asks: every spelling that is recognised, and what is not certain."""

from types import SimpleNamespace

import pytest

from scoring.errors import InputError
from scoring.readers.records import ObjectCell, Row
from scoring.tables.conversations import EXPECTED as ONE_TURN
from scoring.tables.inline_options import EXPECTED as OPTIONS
from scoring.tables.layouts import KNOWN, LAYOUTS, find_layout, read_list
from scoring.tables.rows import answer_text
from scoring.terminal.options import table_options

INLINE = ["1", "p", "What?\nA. one\nB. two"]


def layout_of(tmp_path, header, wanted=None, rows=(), **renamed):
    return find_layout(records_of(tmp_path, header.split(","), rows), renamed, wanted=wanted)


def records_of(tmp_path, header, rows=()):
    """A table that is open for reading, as far as its layout needs it."""
    return SimpleNamespace(file=tmp_path / "t", header=header, rows=lambda: [Row(0, 0, cells) for cells in rows])


@pytest.mark.parametrize(
    "header, options",
    [
        ("id,path,question,a,b,c", [3, 4, 5]),
        ("id,path,question,A,B,C,D", [3, 4, 5, 6]),
        ("B,A,question,path", [1, 0]),
        ("path,question,choice_a,choice_b,choice_c,choice_d", [2, 3, 4, 5]),
        ("path,question,option_a,option_b", [2, 3]),
        ("path,question,optionA,optionB,optionC", [2, 3, 4]),
        ("path,question,option1,option2,option3", [2, 3, 4]),
        ("path,question,Choice_2,Choice_1", [3, 2]),
        ("path,question,choices", [2]),
        ("options,path,question", [0]),
    ],
)
def test_the_options_columns_are_found_by_their_spelling(tmp_path, header, options):
    layout = layout_of(tmp_path, header)
    assert layout.options == options and layout.name == ("choices" if len(options) == 1 else "letters")
    assert {name.casefold() for name in layout.spelled.values()} <= KNOWN


def test_fields_are_found_by_other_names_and_it_is_recorded(tmp_path):
    layout = layout_of(tmp_path, "Index,image_path,Question,hint,category,A,B,answer")
    assert layout.fields == {"id": 0, "path": 1, "question": 2, "answer": 7, "task_type": 4, "task_hint": 3}
    assert layout.spelled == {"id": "Index", "path": "image_path", "task_type": "category", "task_hint": "hint"}
    raw = layout.read(["7", "p", "q", "h", "t", "x", "y", None])
    assert raw.id == "7"
    assert answer_text(raw.answer) == ""
    raw = layout.read(["7", "p", "q", "h", "t", "x", 1, None])
    assert (raw.options, raw.id, raw.question, raw.task_hint) == (["x", "1"], "7", "q", "h")


def test_the_usual_name_goes_before_others(tmp_path):
    layout = layout_of(tmp_path, "index,id,image,path,question,a,b")
    assert (layout.fields["id"], layout.fields["path"], layout.spelled) == (1, 3, {})


def test_all_columns_of_pictures_are_read_in_order(tmp_path):
    layout = layout_of(tmp_path, "question,image_2,image_1,a,b")
    assert layout.pictures == [2, 1] and layout.spelled == {"path": "image_1 … image_2"}
    assert layout.read(["q", "2.png", "1.png", "x", "y"]).pictures == ["1.png", "2.png"]
    assert layout.read(["q", None, "1.png", "x", "y"]).pictures == ["1.png"]
    assert layout_of(tmp_path, "question,image_2,image_1,a,b", path="image_2").pictures == [1]


def test_a_column_that_holds_pictures_goes_before_names_of_files(tmp_path):
    header = ["image", "image_path", "question", "a", "b"]
    assert find_layout(records_of(tmp_path, header), {}).pictures == [1]
    layout = find_layout(records_of(tmp_path, header), {}, {0})
    assert (layout.pictures, layout.fields["path"], layout.spelled) == ([0], 0, {"path": "image"})
    assert find_layout(records_of(tmp_path, header), {"path": "image_path"}, {0}).pictures == [1]


def test_names_that_are_given_go_before_all(tmp_path):
    layout = layout_of(tmp_path, "id,no,file,path,question,choices,one,two", id="no", path="file", a="one", b="two")
    assert (layout.fields["id"], layout.fields["path"], layout.options, layout.name) == (1, 2, [6, 7], "letters")
    assert layout.spelled == {}
    layout = layout_of(tmp_path, "path,question,a,b,answers_of_others", choices="answers_of_others")
    assert (layout.name, layout.options, layout.spelled) == ("choices", [4], {})
    assert layout.names_of_options(["path", "question", "a", "b", "answers_of_others"]) == {4: "answers_of_others"}


@pytest.mark.parametrize(
    "header, message",
    [
        ("path,question,a,b,choices", "options in several places: 'a', 'b'; 'choices'; expected one of them; name it"),
        ("path,question,a,b,option_a,option_b", "options in several places"),
        ("path,question,choices,options", "options in several places: 'choices'; 'options'"),
        ("path,question,a,c", "two or more columns a, b, c, …, without a gap"),
        ("path,question,a", "found option columns a among"),
        ("path,question,option1", "found option columns none among"),
        ("x,a,b", "a column 'path'; rename the column"),
        ("path,question,a,b,B", "column b: found 2 columns of that name"),
    ],
)
def test_what_is_not_certain_is_refused_with_what_decides(tmp_path, header, message):
    with pytest.raises(InputError) as caught:
        layout_of(tmp_path, header)
    assert message in str(caught.value)


def test_all_faults_of_the_columns_are_reported_at_once_and_long_headers_are_cut(tmp_path):
    with pytest.raises(InputError) as caught:
        layout_of(tmp_path, ",".join(f"column{number}" for number in range(5000)))
    assert [problem.column for problem in caught.value.problems] == ["path", "question", "a, b, …"]
    assert all("… and 4,970 more" in problem.found for problem in caught.value.problems)


# ------------------------------------------------------------------ options inside the question, and conversations
def test_options_inside_most_questions_make_the_layout(tmp_path):
    other = ["2", "p", "How many are there?"]
    layout = layout_of(tmp_path, "id,path,question", rows=[INLINE, other, INLINE])
    assert (layout.name, layout.options, layout.names_of_options(["id", "path", "question"])) == ("inline", [], {})
    raw = layout.read(INLINE)
    assert (raw.question, raw.options, raw.fault) == ("What?", ["one", "two"], None)
    fault = layout.read(other).fault
    assert (fault.column, fault.found, fault.expected) == ("question", f"no list of options in '{other[2]}'", OPTIONS)
    with pytest.raises(InputError, match="rename the columns with the options, or give --layout inline if the quest"):
        layout_of(tmp_path, "id,path,question", rows=[INLINE, other])
    assert layout_of(tmp_path, "id,path,question", "inline", rows=[other]).name == "inline"


def test_columns_of_options_go_before_what_a_question_holds(tmp_path):
    layout = layout_of(tmp_path, "id,path,question,a,b", rows=[[*INLINE, "one", "two"]])
    assert layout.name == "letters" and layout.read([*INLINE, "one", "two"]).question == INLINE[2]
    assert layout_of(tmp_path, "id,path,question,a,b", "inline").read([*INLINE, "x", "y"]).options == ["one", "two"]


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation"])
def test_a_column_of_turns_makes_a_conversation(tmp_path, name):
    layout = layout_of(tmp_path, f"id,images,{name},answer")
    assert (layout.name, layout.turns) == ("chat", {"messages": 2})
    assert layout.spelled == {"path": "images"} | ({} if name == "messages" else {"messages": name})
    turns = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": INLINE[2]}]
    raw = layout.read(["1", ["p.png"], turns, "B"])
    assert (raw.question, raw.options, raw.answer, raw.system) == ("What?", ["one", "two"], "B", "Be brief.")
    raw = layout.read(["1", ["p.png"], [*turns, {"from": "gpt", "value": "A"}], "B"])
    assert (raw.answer, raw.pictures) == ("A", [["p.png"]])
    assert layout.names_of_options(["id", "images", name, "answer"]) == {2: name}


def test_turns_may_be_written_as_text_and_hold_the_pictures(tmp_path):
    layout = layout_of(tmp_path, "messages,images")
    parts = '[{"type": "image", "image": "a.png"}, {"type": "text", "text": "What? (A) one (B) two"}]'
    raw = layout.read([f'[{{"role": "user", "content": {parts}}}]', None])
    assert (raw.question, raw.options, raw.pictures) == ("<image>What?", ["one", "two"], ["a.png"])
    fault = layout.read([f'[{{"role": "user", "content": {parts}}}]', ["b.png"]]).fault
    assert fault.found == "pictures in the conversation and in another column"


def test_query_and_response_make_a_conversation_where_no_column_is_named_question(tmp_path):
    layout = layout_of(tmp_path, "query,response,images,history")
    assert (layout.name, layout.turns) == ("chat", {"query": 0, "response": 1, "history": 3})
    raw = layout.read(["<image>What?\nA. one\nB. two", "B", ["p.png"], None])
    assert (raw.question, raw.options, raw.answer) == ("<image>What?", ["one", "two"], "B")
    assert layout.read(["q", "A", [], '[["one", "two"]]']).fault.found == "a history of 1 turns"
    assert layout_of(tmp_path, "query,path,question,a,b").name == "letters"


def test_several_turns_are_a_fault_of_the_row(tmp_path):
    turns = [{"from": name, "value": "text"} for name in ("human", "gpt", "human")]
    raw = layout_of(tmp_path, "id,image,conversations").read(["1", "p.png", turns])
    assert raw.fault[:3] == ("messages", "2 human turns", ONE_TURN) and raw.options is None


@pytest.mark.parametrize(
    "header, rows, message",
    [
        ("path,question,a,b,messages", [], "questions in 'question' and in conversations in 'messages'; expected one"),
        ("path,messages,question", [["p", [], INLINE[2]]], "--layout chat, --layout inline or --column messages=NAME"),
        ("path,messages,conversations", [], "found 'messages', 'conversations' among"),
    ],
)
def test_two_layouts_that_fit_are_refused_with_what_decides(tmp_path, header, rows, message):
    with pytest.raises(InputError) as caught:
        layout_of(tmp_path, header, rows=rows)
    assert message in str(caught.value)


def test_the_layout_that_is_asked_for_decides(tmp_path):
    header = "path,question,a,b,choices,messages"
    assert layout_of(tmp_path, header, "letters").options == [2, 3]
    assert layout_of(tmp_path, header, "choices").options == [4]
    assert layout_of(tmp_path, header, "inline").options == []
    assert layout_of(tmp_path, header, "chat").turns == {"messages": 5}
    assert layout_of(tmp_path, "path,question,talk", messages="talk").turns == {"messages": 2}
    for wanted, message in (
        ("chat", "column messages: found no such column"),
        ("letters", "found option columns none"),
        ("choices", "found option columns none"),
        ("inline", ""),
    ):
        if message:
            with pytest.raises(InputError, match=message):
                layout_of(tmp_path, "path,question", wanted)
    with pytest.raises(InputError, match="a column 'question'"):
        layout_of(tmp_path, "path,text", "inline")


def test_the_command_line_knows_all_layouts():
    command = table_options(lambda reading: reading)
    (option,) = [option for option in command.__click_params__ if option.name == "layout"]
    assert tuple(option.type.choices) == LAYOUTS


@pytest.mark.parametrize("kind", ["open", "Open-ended"])
def test_an_open_question_is_told_as_such(tmp_path, kind):
    layout = layout_of(tmp_path, "path,question,options,question_type")
    assert layout.read(["p", "q", "[]", kind]).fault.found == "an open question, without options"
    assert layout.read(["p", "q", "['x', 'y']", kind]).options == ["x", "y"]
    assert layout.read(["p", "q", "[]", "multiple-choice"]).fault is None


def test_what_has_no_order_or_is_no_text_is_no_list_of_options(tmp_path):
    layout = layout_of(tmp_path, "question,choices")
    for cell, found in (({"x", "y"}, "a set, which has no order"), (["x", ObjectCell(1)], """'["x", "<int>"]'""")):
        raw = layout.read(["q", cell])
        assert raw.options is None and raw.fault.found == found and raw.fault.column == "choices"


@pytest.mark.parametrize(
    "cell, texts",
    [
        (["a", 1, None], ["a", "1", ""]),
        ('["a", "b"]', ["a", "b"]),
        ("['a', \"b's\", 3]", ["a", "b's", "3"]),
        ("('a', 'b')", ["a", "b"]),
        ({"B": "two", "A": "one"}, ["one", "two"]),
        ('{"a": "one", "b": "two"}', ["one", "two"]),
        ('{"a": "one", "c": "two"}', None),
        ("a, b", None),
        ("", None),
        (None, None),
        (7, None),
        ('[["a"], "b"]', None),
        ("[" * 10_000, None),
        ("__import__('os').getcwd()", None),
    ],
)
def test_a_list_may_be_written_as_json_or_as_python_writes_it(cell, texts):
    assert read_list(cell) == texts
