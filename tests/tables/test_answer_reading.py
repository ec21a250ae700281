"""What an answer means, and what all answers of a table mean together."""

import pytest

from scoring.tables.answer_reading import AUTO, AnswerError, AnswerSurvey, read_answer

OPTIONS = ["apple", "pear", "plum", "fig"]


@pytest.mark.parametrize(
    "cell",
    ["B", "b", "(b)", "[B]", "b.", "B)", "B:", "② ".strip(), "B. pear", "(B) pear", "b) pear", "Answer: B", "정답: B"]
    + ["The correct answer is (B)", "answer B.", "Answer: B. pear", "pear"]
    + [
        "Ｂ",
        "（ｂ）",
        "Ｂ．",
        "b,",
        "b;",
        "B、",
        "B。",
        "Option B",
        "choice b",
        "option (b)",
        "Pear",
        "PEAR",
        "ｐｅａｒ",
    ],
)
def test_every_usual_spelling_of_an_answer_is_read(cell):
    assert read_answer(cell, OPTIONS) == "b"


@pytest.mark.parametrize(
    "cell, found",
    [
        ("e", "'e'"),
        ("⑤", "'⑤'"),
        ("B. plum", "'B. plum'"),
        ("pears", "'pears'"),
        ("option apple pear", "'option apple pear'"),
        ("А", "'А', which is CYRILLIC CAPITAL LETTER A"),
        ("Β", "'Β', which is GREEK CAPITAL LETTER BETA"),
        ("가", "'가'"),
        ("A or B", "several right answers, 'A or B'"),
        ("2", "'2'"),
        ("a,b", "several right answers, 'a,b'"),
        ("A; C", "several right answers"),
        ("(A) and (B)", "several right answers"),
        ("BD", "several right answers, 'BD'"),
        ("AZ", "'AZ'"),
    ],
)
def test_what_means_no_option_or_several_is_refused(cell, found):
    with pytest.raises(AnswerError) as caught:
        read_answer(cell, OPTIONS)
    assert caught.value.found.startswith(found) and caught.value.expected


def test_a_reading_that_is_named_holds_for_every_answer():
    assert read_answer("1", OPTIONS, "from-0") == "b" and read_answer("1", OPTIONS, "from-1") == "a"
    assert read_answer("A", ["x", "A"], "letters") == "a" and read_answer("A", ["x", "A"], "text") == "b"
    for cell, reading, expected in [
        ("4", "from-0", "a number from 0 to 3"),
        ("0", "from-1", "a number from 1 to 4"),
        ("b", "from-1", "a number from 1 to 4"),
        ("pear", "letters", "one of a, b, c, d"),
        ("b", "text", "an option's text"),
        ("x", AUTO, "one of a, b, c, d or an option's text"),
    ]:
        with pytest.raises(AnswerError) as caught:
            read_answer(cell, OPTIONS, reading)
        assert caught.value.expected == expected


@pytest.mark.parametrize("cell", ["nan", "None", "NaN", "null", "N/A", "-", "?"])
def test_what_stands_for_no_answer_elsewhere_is_told_to_be_left_empty(cell):
    with pytest.raises(AnswerError, match="or an empty cell where there is no answer"):
        read_answer(cell, OPTIONS)
    assert read_answer(cell, ["x", cell]) == "b"


def test_exact_spellings_go_before_nearly_equal_ones():
    assert read_answer("pear", ["Pear", "PEAR", "pear"]) == "c"
    assert read_answer("FALSE", ["true", "false"]) == "b" and read_answer("True", ["true", "false"]) == "a"
    assert read_answer("Option A", ["Option B", "Option A"]) == "b"  # an option's text, and no letter
    with pytest.raises(AnswerError, match="'PEAR'"):
        read_answer("PEAR", ["Pear", "pear"])  # either may be meant
    with pytest.raises(AnswerError, match="which is a letter and the text of option b"):
        read_answer("Ａ", ["x", "a"])


def test_numbers_as_pandas_writes_them_are_places():
    assert reading_of(["1.0", "2.0", "4.0"]) == "from-1" and reading_of(["0.0", "3.0"]) == "from-0"
    assert reading_of(["01", "04"]) == "from-1" and reading_of(["1.5", "4"]) == AUTO
    assert [read_answer(cell, OPTIONS, "from-1") for cell in ("1.0", "02", "4")] == ["a", "b", "d"]


def test_a_text_that_two_options_have_is_no_answer():
    with pytest.raises(AnswerError):
        read_answer("same", ["same", "same"])


def reading_of(answers, options=OPTIONS, from_0=False):
    survey = AnswerSurvey()
    for cell in answers:
        survey.add(cell, options)
    return survey.reading(from_0)


@pytest.mark.parametrize(
    "answers, reading",
    [
        ([], AUTO),
        (["a", "B", "pear"], AUTO),
        (["1", "b"], AUTO),
        (["0", "1", "3"], "from-0"),
        (["1", "4"], "from-1"),
        (["4"], "from-1"),
        (["1", "2", "3"], None),
        (["0", "4"], AUTO),  # from neither: each is a fault of its row
        (["0", "5"], AUTO),
        (["7"], AUTO),
        (["12"], AUTO),
    ],
)
def test_numbers_are_places_only_where_that_is_certain(answers, reading):
    assert reading_of(answers) == reading


def test_numbers_beside_options_that_are_numbers():
    assert reading_of(["1", "3"], ["1", "2", "3", "4"]) is None  # the text, or the place
    assert reading_of(["10", "30"], ["10", "20", "30", "40"]) == "text"
    assert reading_of(["2", "4"], ["2", "3", "5", "6"]) == "from-1"  # 4 is no text of an option
    assert reading_of(["0", "1"], ["1", "0"]) is None


def test_whole_numbers_beside_a_list_count_from_0():
    assert reading_of(["1", "2"], from_0=True) == "from-0"
    assert reading_of(["1", "4"], from_0=True) == "from-1"
    assert reading_of(["1", "2"], ["1", "2"], from_0=True) is None
