"""Which columns hold what: every spelling that is recognised, and what is not certain."""

import pytest

from scoring.errors import InputError
from scoring.inputs.layouts import KNOWN, find_layout, read_list


def layout_of(tmp_path, header, **renamed):
    return find_layout(tmp_path / "t", header.split(","), renamed)


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
    assert layout.cell(["7", "p", "q", "h", "t", "x", "y", None], "id") == "7"
    assert layout.cell(["7", "p", "q", "h", "t", "x", "y", None], "answer") == ""
    assert layout.option_texts(["7", "p", "q", "h", "t", "x", 1, None]) == ["x", "1"]


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
    assert find_layout(tmp_path / "t", header, {}).pictures == [1]
    layout = find_layout(tmp_path / "t", header, {}, {0})
    assert (layout.pictures, layout.fields["path"], layout.spelled) == ([0], 0, {"path": "image"})
    assert find_layout(tmp_path / "t", header, {"path": "image_path"}, {0}).pictures == [1]


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
