"""Tables as people really have them: every spelling that is read, every fault that is reported."""

import base64
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scoring.errors import InputError, describe
from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import PictureError, PictureLimits
from scoring.readers.opening import open_table
from scoring.tables.reading import TableOptions, read_columns, read_questions, read_table
from scoring.tables.rows import LONGEST_CELL
from tests.shared.picture_tables import coded, pictures, write_tables

HEADER = "id,path,question,a,b,c,d,answer,task_type,task_hint"
CASES = Path(__file__).resolve().parents[1] / "cases" / "tables"


@pytest.fixture
def table(tmp_path):
    """Write a table beside a picture `p.png`, and read it."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "p.png")

    def write(content: str | bytes, name: str = "t.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, TableOptions(**options))

    return write


def row(**cells) -> str:
    values = (
        dict(id="1", path="p.png", question="q?", a="w", b="x", c="y", d="z", answer="a", task_type="t", task_hint="h")
        | cells
    )
    return ",".join(values.values())


def test_a_plain_table_is_read(table):
    result = table(f"{HEADER}\n{row()}\n")
    question = result.questions[0]
    assert (question.id, question.options, question.answer) == ("1", ("w", "x", "y", "z"), "a")
    assert question.pictures == (question.picture,) and question.sizes == ((40, 30),)
    assert not result.problems and result.letters == "abcd"


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("cp949"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: gzip.compress(text.encode()),
    ],
)
def test_usual_encodings_line_ends_and_separators_are_read(table, encode):
    result = table(encode(f"{HEADER}\n{row(question='무엇인가요?', a='고양이')}\n"))
    assert (result.questions[0].question, result.questions[0].options[0]) == ("무엇인가요?", "고양이")


def test_a_guessed_encoding_is_reported(table):
    assert "cp949" in table(f"{HEADER}\n{row(a='고양이')}\n".encode("cp949")).notices[0]


@pytest.mark.parametrize("cell", ["None", "NA", "null", "nan", "N/A", "001", "1.0", "TRUE", "-", "{a}", "<|im_end|>"])
def test_option_texts_stay_text(table, cell):
    assert table(f"{HEADER}\n{row(a=cell)}\n").questions[0].options[0] == cell


def test_ids_stay_text(table):
    assert table(f"{HEADER}\n{row(id='007')}\n{row(id='=1+1')}\n").questions[1].id == "=1+1"


def test_columns_may_have_any_order_case_and_spacing(table):
    result = table("Question , PATH,D,C,B,A,Answer\nq?,p.png,4,3,2,one,D\n")
    assert result.questions[0].options == ("one", "2", "3", "4") and result.questions[0].answer == "d"
    assert result.questions[0].id == "1"  # from the row's number


def test_quoted_line_breaks_are_kept_and_counted_as_lines(table):
    second = row(id="2", answer="x1")
    quoted = '"one\ntwo, ""three"""'
    result = table(f"{HEADER}\n{row(question=quoted)}\n{second}\n")
    assert result.questions[0].question == 'one\ntwo, "three"'
    assert result.problems[0].row == 2 and result.problems[0].line == 4


@pytest.mark.parametrize(
    "cell, letter", [("B", "b"), ("b ", "b"), ("(b)", "b"), ("b.", "b"), ("[B]", "b"), ("b)", "b"), ("x", "b")]
)
def test_usual_spellings_of_an_answer_are_read(table, cell, letter):
    assert table(f"{HEADER}\n{row(answer=cell)}\n").questions[0].answer == letter


def test_numbered_answers_are_read_only_where_all_are(table):
    result = table(f"{HEADER}\n{row(answer='2')}\n{row(id='2', answer='4')}\n")
    assert [question.answer for question in result.questions] == ["b", "d"] and "number" in result.notices[0]
    assert result.answers == "from-1" and result.about()["answers"] == "from-1"
    mixed = table(f"{HEADER}\n{row(answer='2')}\n{row(id='2', answer='a')}\n")
    assert mixed.problems[0].column == "answer"


def test_numbers_that_may_mean_two_things_are_refused_until_it_is_said_what_they_are(table):
    """The second option, or the one whose text is 2; and 2 of four options may be counted from 0 or from 1."""
    doubtful = f"{HEADER}\n{row(a='4', b='3', c='2', d='1', answer='2')}\n"
    with pytest.raises(
        InputError, match="1 answers that are all numbers, which are also texts of options; .*--answers"
    ):
        table(doubtful)
    for answers, letter in (("text", "c"), ("from-1", "b"), ("from-0", "c")):
        assert table(doubtful, answers=answers).questions[0].answer == letter
    with pytest.raises(InputError, match="1 answers that are all numbers; .*--answers from-1"):
        table(f"{HEADER}\n{row(answer='2')}\n")
    zero = table(f"{HEADER}\n{row(answer='2')}\n{row(id='2', answer='0')}\n")
    assert [question.answer for question in zero.questions] == ["c", "a"] and "0 = a" in zero.notices[0]
    counts = {"a": "10", "b": "20", "c": "30", "d": "40"}
    texts = table(f"{HEADER}\n{row(**counts, answer='20')}\n{row(id='2', **counts, answer='40')}\n")
    assert [question.answer for question in texts.questions] == ["b", "d"] and texts.answers == "text"


def test_a_letter_that_is_another_options_text_is_a_fault_of_its_row(table):
    result = table(f"{HEADER}\n{row(a='X', b='A', answer='A')}\n{row(id='2', answer='w')}\n")
    assert "'A', which is a letter and the text of option b" in result.problems[0].text
    assert result.questions[1].answer == "a" and len(result.problems) == 1
    assert table(f"{HEADER}\n{row(a='X', b='A', answer='A')}\n", answers="text").questions[0].answer == "b"


def test_repeated_ids_are_reported_with_all_other_faults(table):
    rows = [row(), row(path="none.png"), row(id="2", question=""), row(id="2")]
    with pytest.raises(InputError) as caught:
        table("\n".join([HEADER, *rows]))
    assert [(problem.row, problem.column) for problem in caught.value.problems] == [
        (2, "id"),
        (2, "path"),
        (3, "question"),
        (4, "id"),
    ]


# ------------------------------------------------------------------ other names, formats and layouts
def test_a_list_of_options_and_other_names_are_read_and_said(table):
    first = '{"question_id": "q1", "image_path": "p.png", "question": "q?", "choices": ["w", "x", "y"], "answer": 1}'
    second = '{"question_id": "q2", "image_path": "p.png", "question": "q?", "choices": ["w"], "answer": 0}'
    result = table(f"[{first}, {second}]")
    assert (result.questions[0].id, result.questions[0].options) == ("q1", ("w", "x", "y"))
    assert [question.answer for question in result.questions] == ["b", "a"]  # a list counts from 0
    assert result.reading() == (
        "JSON, a list of options; id from 'question_id', path from 'image_path'; answers: numbers, 0 = a"
    )
    assert result.about() == {
        "file": str(result.file),
        "sha256": result.digest,
        "columns": {"id": "question_id", "path": "image_path"},
        "layout": "choices",
        "answers": "from-0",
    }
    assert [problem.text for problem in result.problems] == [
        "row 2 (id 'q2'), column b: found 1 options; expected at least 2; fill the options in or drop the row"
    ]


def test_options_inside_the_questions_are_read_and_said(table):
    text = "<image>\\nWhich lane?\\nA. left\\nB. right\\nAnswer with the option's letter."
    rows = [
        f'{{"index": 1, "question": "{text}", "path": "p.png", "answer": "B"}}',
        f'{{"index": 2, "question": "{text}", "path": "p.png", "answer": "right"}}',
        '{"index": 3, "question": "How many lanes?", "path": "p.png", "answer": "2"}',
    ]
    result = table("\n".join(rows))
    assert [(question.question, question.options, question.answer) for question in result.good] == [
        ("Which lane?", ("left", "right"), "b")
    ] * 2
    assert result.layout == result.about()["layout"] == "inline"
    assert result.reading() == (
        "JSONL, options inside the question; id from 'index'; answers: letters or the options' texts"
    )
    assert "cut off in 2 rows: 'Answer with the option's letter.'" in result.notices[0]
    assert "2 questions begin with marks such as <image>" in result.notices[1]
    assert [(problem.row, problem.column) for problem in result.problems] == [(3, "question")]
    assert "found no list of options in 'How many lanes?'; expected a question, and after it" in result.problems[0].text


def test_conversations_are_read_and_what_is_no_question_is_told(table):
    turns = '[{{"from": "human", "value": "{}"}}, {{"from": "gpt", "value": "{}"}}]'
    asked = "<image>\\nWhich?\\n(A) cat\\n(B) dog"
    rows = [
        f'{{"id": "1", "image": "p.png", "conversations": {turns.format(asked, "B")}}}',
        f'{{"id": "2", "image": "p.png", "conversations": {turns.format(asked, "A. cat")}}}',
        f'{{"id": "3", "image": "p.png", "conversations": {turns.format(asked, "a dog")}}}',
        f'{{"id": "4", "image": "p.png", "conversations": {turns.format("Describe it.", "A dog.")}}}',
        f'{{"id": "5", "image": "p.png", "conversations": {turns.format("", "A")}}}',
        f'{{"id": "6", "image": "p.png", "conversations": {turns.format(asked.replace("W", chr(92) + "u0000"), "A")}}}',
    ]
    result = table("[" + ",".join(rows) + "]")
    assert [(question.question, question.answer) for question in result.good] == [("Which?", "b"), ("Which?", "a")]
    assert [(problem.row, problem.column) for problem in result.problems] == [
        (3, "answer"),
        (4, "question"),
        (5, "question"),
        (6, "question"),
    ]
    assert result.reading().startswith(
        "JSON, conversations, options inside the human turn; path from 'image', messages from 'conversations'"
    )


def test_pictures_in_a_conversation_and_in_a_column_are_a_fault_also_inside_the_table(table, tmp_path):
    data = "data:image/png;base64," + base64.b64encode((CASES / "pictures" / "cup.png").read_bytes()).decode()
    parts = [{"type": "image", "image": "p.png"}, {"type": "text", "text": "Which? (A) cat (B) dog"}]
    rows = [{"messages": [{"role": "user", "content": parts}], "images": images} for images in ([data], [])]
    result = table("\n".join(map(json.dumps, rows)))
    assert [problem.text for problem in result.problems] == [
        "row 1 (line 1, id '1'), column messages: found pictures in the conversation and in another column; expected "
        "pictures in one of them; empty one of them"
    ]
    assert len(result.good[0].pictures) == 1


def test_letters_that_options_carry_are_taken_off_if_all_rows_have_them(table):
    first, second = (
        row(a="A. w", b="B. x", c="C. y", d="D. 4", answer="A. w"),
        row(id="2", a="a) 1", b="b) 2", c="", d=""),
    )
    result = table(f"{HEADER}\n{first}\n{second.replace(',a,t,h', ',2,t,h')}\n")
    assert [(question.options, question.answer) for question in result.questions] == [
        (("w", "x", "y", "4"), "a"),
        (("1", "2"), "b"),
    ]
    assert "all 2 rows begin with their letters, such as 'A. w'; they were taken off" in result.notices[0]
    assert result.about()["own_letters"] is True and "their letters taken off" in result.reading()
    some = table(f"{HEADER}\n{first}\n{row(id='2')}\n")
    assert some.questions[0].options == ("A. w", "B. x", "C. y", "D. 4") and some.questions[0].answer == "a"
    assert "1 of 2 rows begin with letters of their own, such as 'A. w' (first: row 1)" in some.notices[0]
    assert "own_letters" not in some.about()


def test_numbers_that_are_texts_without_their_letters_are_not_certain(table):
    lettered = dict(a="A. 1", b="B. 2", c="C. 3", d="D. 4", answer="2")
    with pytest.raises(InputError, match="numbers, which are also texts of options"):
        table(f"{HEADER}\n{row(**lettered)}\n")
    assert table(f"{HEADER}\n{row(**lettered)}\n", answers="text").questions[0].answer == "b"


def test_questions_that_list_their_options_too_are_told(table):
    listing = row(question="which? (A) w (B) x (C) y (D) z", id="2")
    result = table(f"{HEADER}\n{row()}\n{listing}\n")
    assert "the questions of 1 row list the options once more (first: row 2); such rows cannot" in result.notices[0]
    inline = table(f"{HEADER}\n{listing}\n", layout="inline").questions[0]
    assert (inline.question, inline.options) == ("which?", ("w", "x", "y", "z"))


def test_a_cell_that_is_no_list_of_options_is_a_fault_of_its_row(table):
    lists = ["['w', 'x']", '[""w"", ""x""]', "w or x", "", '[[""w""], ""x""]']
    rows = [f'{number},p.png,q?,"{cell}"' for number, cell in enumerate(lists)]
    result = table("\n".join(["id,path,question,options", *rows]))
    assert [question.options for question in result.questions] == [("w", "x"), ("w", "x"), (), (), ()]
    assert [problem.row for problem in result.problems] == [3, 4, 5]
    assert "found 'w or x'; expected a list of texts" in result.problems[0].text


def test_more_than_twenty_six_options_are_a_fault_of_their_row(table):
    result = table(f'path,question,choices\np.png,q?,"{list(range(27))}"\n')
    assert "found 27 options; expected at most 26" in result.problems[0].text


def test_an_ordinary_table_records_nothing_new(table):
    result = table(f"{HEADER}\n{row()}\n")
    assert result.about() == {"file": str(result.file), "sha256": result.digest}
    assert result.reading() == "CSV, a column for each option; answers: letters or the options' texts"


def test_rows_may_have_fewer_options(table):
    result = table(f"{HEADER}\n{row(c='', d='')}\n{row(id='2', d='')}\n")
    assert [len(question.options) for question in result.questions] == [2, 3] and not result.problems


def test_twenty_six_options_are_read(table):
    letters = [chr(ord("a") + n) for n in range(26)]
    result = table(f"path,question,{','.join(letters)},answer\np.png,q,{','.join(map(str, range(100, 126)))},z\n")
    assert result.questions[0].answer == "z" and result.letters[-1] == "z"


def test_all_faults_of_rows_are_reported_at_once(table):
    rows = [
        row(id="1", path="none.png"),
        row(id="2", question=""),
        row(id="3", b=""),
        row(id="4", b="", c="", d=""),
        row(id="5", answer="e"),
        row(id="6", path=""),
        row(id="7", a="x" * 200_001),
        row(id="8", a="x\0y"),
        row(id="9"),
    ]
    result = table("\n".join([HEADER, *rows]))
    assert [problem.row for problem in result.problems] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [problem.column for problem in result.problems] == ["path", "question", "b", "b", "answer", "path", "a", "a"]
    assert [question.id for question in result.good] == ["9"]
    for problem in result.problems:
        assert problem.found and problem.expected and problem.fix
    with pytest.raises(InputError) as caught:
        read_questions(result.file)
    assert str(caught.value).count("\n") == 7


def test_long_lists_of_faults_are_cut_and_the_rest_is_counted(table):
    result = table("\n".join([HEADER, *(row(id=str(n), path=f"none{n}.png") for n in range(30))]))
    text = describe(result.problems)
    assert len(text.splitlines()) == 11 and "20 more" in text


@pytest.mark.parametrize(
    "content, message",
    [
        ("path,question,a\np.png,q,x\n", "without a gap"),
        ("path,question,a,b,d\np.png,q,x,y,z\n", "without a gap"),
        ("path,path,question,a,b\np.png,p.png,q,x,y\n", "2 columns of that name"),
        (f"{HEADER}\n{row()},extra\n", "11 cells"),
        (f"{HEADER}\n1,p.png\n", "2 cells"),
        (f"{HEADER}\n{row(question=chr(34) + 'open')}\n{row(id='2')}\n", "quoting"),
        (f"{HEADER}\n{row()}\n{row()}\n", "again (first in row 1)"),
        (f"{HEADER}\n", "no rows"),
        ("", "an empty file"),
        (b"PK\x03\x04rest", "Excel"),
        (b"id,path\n\xff\xfe\xfa\x81\n", "byte 0xff in line 2"),
    ],
)
def test_a_faulty_table_is_refused(table, content, message):
    with pytest.raises(InputError, match=None) as caught:
        table(content)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, message in ((tmp_path / "none.csv", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(InputError, match=message):
            read_table(path)


def test_control_characters_are_escaped_in_messages(table):
    result = table(f"{HEADER}\n{row(answer=chr(27) + '[31mred')}\n")
    assert "\x1b" not in describe(result.problems) and "\\x1b" in describe(result.problems)


def test_equal_options_are_allowed_and_reported(table):
    assert "equal options" in table(f"{HEADER}\n{row(b='w')}\n").notices[0]


def test_a_cut_picture_is_a_fault_only_in_a_deep_check(table, tmp_path):
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[:60])
    text = f"{HEADER}\n{row(path='cut.png')}\n{row(id='2', path='cut.png')}\n"
    assert not table(text).problems  # the header is whole
    assert len(table(text, deep=True).problems) == 2


def test_a_limit_applies_to_its_own_reading_alone(table, tmp_path, preparer):
    """Nor of the process: a question keeps the limit under which its picture was accepted."""
    text = f"{HEADER}\n{row()}\n"
    for deep in (False, True):
        assert "over 1,199 pixels" in table(text, limits=PictureLimits(1199), deep=deep).problems[0].text
        accepted = table(text, deep=deep)
        assert not accepted.problems and preparer.picture(accepted.questions[0]).size == (40, 30)
    strict = table(text, limits=PictureLimits(1200)).questions[0]
    Image.new("RGB", (41, 30), "red").save(tmp_path / "p.png")
    with pytest.raises(PictureError, match="over 1,200 pixels"):
        preparer.picture(strict)
    assert preparer.picture(accepted.questions[0]).size == (41, 30)


# ------------------------------------------------------------------ tables as benchmarks write them
@pytest.mark.parametrize(
    "name, hint, category, reading",
    [
        ("vlmevalkit.tsv", "자세히 보세요", "objects", "TSV, a column for each option"),
        ("seed_bench.json", "", "", "JSON, a column for each option"),
        ("science_qa.jsonl", "자세히 보세요", "", "JSONL, a list of options"),
        ("mmmu.csv", "", "", "CSV with semicolons, a list of options"),
    ],
)
def test_the_same_questions_come_out_of_every_layout(demo, name, hint, category, reading):
    table = read_table(CASES / name, TableOptions(images=demo))
    assert not table.problems and table.reading().startswith(reading)
    assert [question.id for question in table.questions] == ["100", "101", "102"]
    assert [question.answer for question in table.questions] == ["b", "d", "a"]
    first, second, _ = table.questions
    assert (first.question, first.options) == ("그림에 있는 것은 무엇인가요?", ("고양이", "사과", "자동차", "시계"))
    assert (first.task_hint, second.task_hint, first.task_type) == (hint, "", category)
    assert second.options == ("a boat", "a tree", "a drum", "a shoe") and second.sizes[0][0] > 0


# ------------------------------------------------------------------ pictures inside tables, and folders of files
@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder in which pictures of tables are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "logit-scoring" / "pictures"


@pytest.mark.parametrize(
    "name, reading",
    [
        ("mmbench_ko.parquet", "Parquet, a column for each option"),
        ("k_dtcbench.parquet", "Parquet, a column for each option"),
        ("seed_bench.parquet", "Parquet, a column for each option"),
        ("blink.parquet", "Parquet, a list of options"),
        ("vlmevalkit_base64.tsv", "TSV, a column for each option"),
        ("vlmevalkit_references.tsv", "TSV, a column for each option"),
        ("vlmevalkit_lists.tsv", "TSV, a column for each option"),
    ],
)
def test_pictures_come_out_of_the_cells_of_every_layout(cache, name, reading):
    table = read_table(CASES / name)
    assert not table.problems and table.pictures_inside and table.reading().startswith(reading)
    assert "pictures inside the table" in table.reading() and not table.is_usual
    assert [question.answer for question in table.questions] == ["b", "d", "a"]
    assert table.questions[0].options == ("사각형", "원", "삼각형", "별")
    first, second, third = pictures()
    expected = [[first], [second], [third]]
    if name == "blink.parquet":
        expected[1].append(first)
    elif name == "vlmevalkit_references.tsv":
        expected[0] = [third]
    elif name == "vlmevalkit_lists.tsv":
        expected[0].append(second)
    assert [[picture.read_bytes() for picture in question.pictures] for question in table.questions] == expected
    assert all(picture.is_relative_to(cache) for question in table.questions for picture in question.pictures)
    assert table.questions[2].sizes == ((30, 40),)


def test_pictures_come_out_of_the_turns_of_conversations(table, cache):
    first, second, _ = pictures()
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{coded(first)}"}}
    parts = [url, {"type": "text", "text": "What is it?\n(A) cat\n(B) dog"}]
    lines = [{"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "B"}]}]
    lines.append({"messages": [{"role": "user", "content": parts[1]["text"]}], "images": [coded(second)]})
    result = table("\n".join(map(json.dumps, lines)))
    assert not result.problems and result.pictures_inside
    assert [question.pictures[0].read_bytes() for question in result.questions] == [first, second]


def test_pictures_in_a_conversation_and_beside_it_stay_a_fault(tmp_path, cache):
    data = pictures()[0]
    turns = [{"from": "human", "value": "What is it?\n(A) cat\n(B) dog"}]
    held = [{"role": "user", "content": [{"type": "image", "image": coded(data)}, {"type": "text", "text": "q"}]}]
    rows = {"messages": [json.dumps(turns), json.dumps(held)], "image": [{"bytes": data, "path": None}] * 2}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    problems = read_table(tmp_path / "t.parquet").problems
    assert [(problem.row, problem.found) for problem in problems] == [
        (2, "pictures in the conversation and in another column")
    ]


def test_the_committed_files_are_those_that_the_script_makes(tmp_path):
    write_tables(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        made, committed = (open_table(file, {"index"}) for file in (path, CASES / path.name))
        assert made.header == committed.header and list(made.rows()) == list(committed.rows())


def test_a_check_writes_nothing(cache):
    kept, looked_at = (
        read_table(CASES / "mmbench_ko.parquet", TableOptions(store=PictureStore(keep))) for keep in (True, False)
    )
    assert kept.questions == looked_at.questions
    for path in sorted(cache.glob("*/*")):
        path.unlink()
    read_table(CASES / "mmbench_ko.parquet", TableOptions(store=PictureStore(keep=False), deep=True))
    assert not list(cache.glob("*/*"))


def test_base64_in_a_table_of_text_may_be_long_and_is_never_shown_whole(table, cache):
    file = io.BytesIO()
    Image.effect_noise((512, 512), 100).save(file, "PNG")
    data = coded(file.getvalue())
    assert len(data) > LONGEST_CELL
    good = table(f"{HEADER}\n{row(path=data)}\n")
    assert not good.problems and good.questions[0].sizes == ((512, 512),)
    cut = table(f"{HEADER}\n{row(path=data[:200_001])}\n{row(id='2', path=data[:40_000])}\n", deep=True)
    assert [problem.found.split(" ")[0] for problem in cut.problems] == [f"'{data[:32]}…'"] * 2
    assert "(200,001 characters): broken base64" in cut.problems[0].found
    assert "(base64, 40,000 characters): broken pixels" in cut.problems[1].found
    assert len(describe(cut.problems)) < 800


def test_long_cells_of_other_columns_are_still_refused(table):
    result = table(f"{HEADER}\n{row(question='q' * (LONGEST_CELL + 1))}\n")
    assert "at most 200,000" in result.problems[0].text


def test_rows_without_a_picture_beside_pictures_in_cells_are_faulty(table, cache):
    data = coded(pictures()[0])
    result = table(f"{HEADER}\n{row(path=data)}\n{row(id='2', path='')}\n")
    assert [problem.row for problem in result.problems] == [2] and "--text-only-rows" in result.problems[0].fix
    assert not table(f"{HEADER}\n{row(path=data)}\n{row(id='2', path='')}\n", text_only_rows=True).problems


def test_a_column_of_pictures_under_another_name_is_pointed_out(table):
    with pytest.raises(InputError, match="no such column, but pictures in column 'foto'; .* give --column path=foto"):
        table(f"foto,question,a,b\n{coded(pictures()[0])},q,x,y\n")


def test_progress_is_shown_while_pictures_are_taken_from_cells(cache):
    totals = []

    def progress(items, total):
        totals.append(total)
        return items

    read_table(CASES / "mmbench_ko.parquet", progress=progress)
    read_table(CASES / "vlmevalkit_base64.tsv", progress=progress)
    assert totals == [3, 0, None, 0]


@pytest.fixture
def shards(tmp_path, cache):
    """A dataset's folder: the questions of mmbench_ko.parquet as test (in two files) and dev."""
    rows = pq.read_table(CASES / "mmbench_ko.parquet")
    (tmp_path / "set" / "data").mkdir(parents=True)
    parts = {"test-00000-of-00002": rows[:1], "test-00001-of-00002": rows[1:], "dev-00000-of-00001": rows}
    for name, part in parts.items():
        pq.write_table(part, tmp_path / "set" / "data" / f"{name}.parquet")
    return tmp_path / "set"


def test_a_folder_of_files_is_a_table_of_the_split_that_is_chosen(shards):
    table = read_table(shards, TableOptions(split="test"))
    assert [(question.id, question.row) for question in table.questions] == [("100", 1), ("101", 2), ("102", 3)]
    assert table.about() == {
        "file": str(shards),
        "sha256": table.digest,
        "columns": {"id": "index", "path": "image", "task_type": "category", "task_hint": "hint"},
        "split": "test",
    }
    assert table.reading().startswith("Parquet, 2 files of the split 'test', a column for each option; id from 'index'")
    assert read_table(shards, TableOptions(split="dev")).digest != table.digest
    with pytest.raises(InputError, match="files of 2 splits: 'dev', 'test'"):
        read_table(shards)


def test_faults_name_the_file_of_a_folder_and_its_row(shards):
    file = shards / "data" / "test-00001-of-00002.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1] |= {"index": 100, "answer": "Z"}
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)
    with pytest.raises(InputError) as caught:
        read_table(shards, TableOptions(split="test"))
    assert [(Path(problem.file).name, problem.row, problem.column) for problem in caught.value.problems] == [
        (file.name, 2, "id"),
        (file.name, 2, "answer"),
    ]
    assert "'100' again (first in test-00000-of-00002.parquet, row 1)" in str(caught.value)
    rows[1] |= {"index": 102}
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(file)), file)
    bad = read_table(shards, TableOptions(split="test")).questions[2]
    assert bad.row == 3 and bad.fault.startswith(f"{file.name}, row 2 (id '102'), column answer: found 'Z'")


def test_pictures_that_cells_of_a_folder_name_lie_in_it(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "p.png")
    pq.write_table(pa.table({"path": ["p.png"], "question": ["q"], "a": ["x"], "b": ["y"]}), tmp_path / "one.parquet")
    assert read_table(tmp_path).questions[0].pictures == (tmp_path / "p.png",)


def test_the_rows_of_a_split_are_read_where_a_column_tells_it(table):
    text = f"{HEADER},split\n{row()},dev\n{row(id='2')},test\n"
    assert len(table(text).questions) == 2  # not filtered without a choice
    chosen = table(text, split="test")
    assert [(question.id, question.row) for question in chosen.questions] == [("2", 2)]
    assert chosen.about()["split"] == "test" and chosen.digest != table(text).digest
    with pytest.raises(InputError, match="no column 'split' among"):
        table(f"{HEADER}\n{row()}\n", split="test")


def test_columns_are_read_of_a_split(shards):
    columns = read_columns(shards, ["category"], "index", "test")
    assert columns["category"] == dict.fromkeys(["100", "101", "102"], "shapes")


COMING_OUT = {  # table -> layout, and of each row without a fault: id, pictures, question, options, answer
    "mmstar.jsonl": (
        "inline",
        ("0", 1, "Which object is brown?", "The house.|The cup.|The boat, with its sail.|None of them.", "b"),
        ("1", 1, "How much does the cup hold?", "1,000 ml|250 ml|2 l", "b"),
    ),
    "k_mmstar.jsonl": (
        "inline",
        ("0", 1, "지붕은 무슨 색인가요?", "빨간색|파란색|초록색|노란색", "a"),
        ("1", 1, "배의 돛은 몇 개인가요?", "1개|2개|3개|없음", "a"),
    ),
    "realworldqa.csv": (
        "inline",
        ("1", 1, "Which way does the sail point?", "Left|Right|It hangs down", "b"),
        ("2", 1, "What is on top of the house?", "A red roof|A flag", "a"),
    ),
    "science_qa_no_picture.jsonl": (
        "choices",
        ("1", 1, "Which phase of the moon is shown?", "a crescent|a full moon", "a"),
        ("2", 0, "Which is the largest?", "a cup|a house|a pea", "b"),
    ),
    "ai2d.jsonl": (
        "choices",
        ("1", 1, "What does the letter at the top stand for?", "roof|wall|door|sky", "a"),
        ("2", 1, "Which part floats?", "sail|hull|mast|rope", "b"),
    ),
    "blink.jsonl": (
        "choices",
        ("1", 3, "Which picture is more like the first one?", "the second image|the third image", "b"),
        ("2", 1, "How many sails are there?", "0|1|2|3", "b"),
    ),
    "mmmu.jsonl": (
        "choices",
        ("validation_Art_1", 1, "What is drawn in <image 1>?", "a cup|a potter's wheel|a plate", "a"),
        ("validation_Art_2", 3, "Which drawing shows the same?", "<image 2>|<image 3>", "b"),
    ),
    "seed_bench_lists.json": ("letters", ("101", 2, "How many pictures are there?", "one|two|three|four", "b")),
    "mmbench_letters.tsv": (
        "letters",
        ("1", 1, "What is this?", "a cup|a plate", "a"),
        ("2", 1, "무엇인가요?", "배|집|달|컵", "b"),
    ),
    "llava.json": (
        "chat",
        ("a1", 1, "What is this?", "A cup|A plate", "a"),
        ("a2", 1, "Where is the boat?\nContext: N/A", "on land|on the water", "b"),
        ("a3", 1, "Is it day?", "yes|no", "b"),
    ),
    "sharegpt.json": (
        "chat",
        ("b1", 2, "Which picture is darker?", "the first|the second", "b"),
        ("b2", 1, "What is this?<image 1>", "a house|a boat", "a"),
    ),
    "ms_swift.jsonl": (
        "chat",
        ("1", 1, "무엇인가요?", "집|컵|배", "b"),
        ("2", 2, "Is <image 2> darker?", "yes|no", "a"),
    ),
    "ms_swift_query.jsonl": (
        "chat",
        ("1", 1, "What is this?", "A cup|A plate", "a"),
        ("2", 0, "What is 1 + 1?", "2|3", "a"),
    ),
    "openai.jsonl": ("chat", ("1", 1, "What is this?", "A cup|A boat", "b")),
}
FAULTS = {  # table -> (row, a part of what is wrong with it)
    "realworldqa.csv": (3, "found no list of options in 'How many houses are there?"),
    "mmmu.jsonl": (3, "found an open question, without options"),
}


@pytest.mark.parametrize("name", COMING_OUT)
def test_the_questions_of_benchmarks_and_tools_come_out(name):
    table = read_table(CASES / name, TableOptions(text_only_rows=True))
    layout, *expected = COMING_OUT[name]
    found = [
        (question.id, len(question.pictures), question.question, "|".join(question.options), question.answer)
        for question in table.good
    ]
    assert (table.layout, found) == (layout, expected)
    faults = [FAULTS[name]] if name in FAULTS else []
    assert [problem.row for problem in table.problems] == [row for row, _ in faults]
    assert all(text in problem.text for problem, (_, text) in zip(table.problems, faults))


def test_a_layout_that_is_asked_for_is_read_and_recorded():
    """BLINK's prompt holds the options once more, and may be read instead of them."""
    table = read_table(CASES / "blink.jsonl", TableOptions(columns={"question": "prompt"}, layout="inline"))
    assert (table.layout, table.about()["layout"]) == ("inline", "inline")
    assert table.questions[1].options == ("0", "1", "2", "3") and table.questions[1].answer == "b"
    assert table.questions[1].question == "How many sails are there?\nSelect from the following choices."


@pytest.mark.parametrize("cell", ['"q \\ud800"', '["x", "\\udfff y"]', '{"a": "\\ud800", "b": "y"}'])
def test_half_a_character_in_json_is_a_fault_of_its_row(table, cell):
    name = "question" if cell[0] == '"' else "choices"
    row = {"id": "1", "path": "p.png", "question": "q", "choices": ["x", "y"]}
    rows = [json.dumps(row | {name: json.loads(cell)}), json.dumps(row | {"id": "2"})]
    result = table("\n".join(rows))
    assert [(problem.row, problem.column) for problem in result.problems] == [(1, name)]
    assert "half of a character" in result.problems[0].found
