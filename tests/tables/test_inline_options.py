"""Options inside a question's text: every way of writing that is read, and what is refused since it is not certain."""

import time

import pytest

from scoring.tables.inline_options import EXPECTED, InlineError, cut_options


@pytest.mark.parametrize(
    "text, question, options",
    [
        # MMStar and K-MMStar: a heading, then all in one line
        (
            "What is on the shelf?\nOptions: A: The cup is on it., B: Two books, C: A cup, a plate, D: none",
            "What is on the shelf?",
            ["The cup is on it.", "Two books", "A cup, a plate", "none"],
        ),
        (
            "<image>\n선반에 몇 개가 있나요?\nOptions: A: 1,000, B: 20, C: 3",
            "<image>\n선반에 몇 개가 있나요?",
            ["1,000", "20", "3"],
        ),
        ("무엇인가요?\n보기: A: 컵, B: 책", "무엇인가요?", ["컵", "책"]),
        # RealWorldQA, LLaVA and V*: an option a line
        ("Which lane is free?\n\nA. Left\nB. Middle\nC. Right\n", "Which lane is free?", ["Left", "Middle", "Right"]),
        ("Is it day?\n(A) yes\n(B) no", "Is it day?", ["yes", "no"]),
        ("Is it day?\nOptions:\n a) yes\n b) no", "Is it day?", ["yes", "no"]),
        ("Is it day?\nA: yes\n\nB: no", "Is it day?", ["yes", "no"]),
        ("Is it day?\n[A] yes\n[B] no", "Is it day?", ["yes", "no"]),
        ("Is it day?\nA.yes\nB.no", "Is it day?", ["yes", "no"]),
        ("When?\nA. A.M.\nB. P.M.", "When?", ["A.M.", "P.M."]),
        ("Which?\nA. one\nand a half\nB. two", "Which?", ["one\nand a half", "two"]),
        # LLaVA's ScienceQA: a context, a heading, and letters in brackets
        ("Which?\nContext: N/A\nOptions: (A) a kelp (B) kelp bass", "Which?\nContext: N/A", ["a kelp", "kelp bass"]),
        ("Choose from the following options: A: x, B: y", "Choose from the following options:", ["x", "y"]),
        ("Which one? Choices: A. It falls. B. It stands.", "Which one?", ["It falls.", "It stands."]),
        # behind a question mark, or a sentence
        ("What is it? (A) cat (B) dog", "What is it?", ["cat", "dog"]),
        ("What is it? A. cat B. dog", "What is it?", ["cat", "dog"]),
        ("It shows a pet. (a) cat; (b) dog", "It shows a pet.", ["cat", "dog"]),
        # two columns of options
        ("Which?\nA. one B. two\nC. three D. four", "Which?", ["one", "two", "three", "four"]),
        # other signs for letters
        ("무엇인가요?\nＡ．컵\nＢ．책", "무엇인가요?", ["컵", "책"]),
        ("무엇인가요？（Ａ）컵（Ｂ）책", "무엇인가요？", ["컵", "책"]),
        ("무엇인가요? ① 컵 ② 책", "무엇인가요?", ["컵", "책"]),
        ("这是什么？\n选项：A：杯子，B：书", "这是什么？", ["杯子", "书"]),
    ],
)
def test_options_are_cut_out_of_the_text(text, question, options):
    assert cut_options(text) == (question, options, "")


def test_picture_marks_at_the_end_come_before_the_question():
    assert cut_options("Is it day?\n(A) yes\n(B) no\n<image>") == ("<image>\nIs it day?", ["yes", "no"], "")
    text = "Which is darker?\n(A) the first\n(B) the second\nAnswer:\n<image>\n<image>\n"
    assert cut_options(text) == ("<image>\n<image>\nWhich is darker?", ["the first", "the second"], "Answer:")
    with pytest.raises(InlineError, match="'<image>' after the last option"):
        cut_options("Is <image> darker?\n(A) yes\n(B) no\n<image>")


@pytest.mark.parametrize(
    "text, options",
    [
        ("Is it vitamin A. or vitamin B. here?\nA. the first\nB. the second", ["the first", "the second"]),
        ("Who?\nA. see B. Smith\nB. nobody\nC. see A. Smith", ["see B. Smith", "nobody", "see A. Smith"]),
        ("Which?\nA. yeast\nB. mould\nC. a virus\nD. E. coli", ["yeast", "mould", "a virus", "E. coli"]),
        ("Who?\nOptions: A: Jones, B: see A. Smith, C: nobody", ["Jones", "see A. Smith", "nobody"]),
        ("Who?\nOptions: A: see B: left, B: right, C: nobody", ["see B: left", "right", "nobody"]),
        ("In A: 3 and B: 4 are given. Options: A: 3, B: 4", ["3", "4"]),
    ],
)
def test_letters_within_the_question_or_an_option_are_left_alone(text, options):
    assert cut_options(text).options == options


def test_there_may_be_as_many_options_as_letters():
    letters = [chr(ord("A") + number) for number in range(26)]
    text = "Which?\n" + "\n".join(f"{letter}. option {letter}" for letter in letters)
    assert cut_options(text).options == [f"option {letter}" for letter in letters]
    circled = "Which?\n" + "\n".join(f"{sign} {index}" for index, sign in enumerate("①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳㉑㉒㉓㉔㉕㉖"))
    assert cut_options(circled).options == [str(number) for number in range(26)]


@pytest.mark.parametrize(
    "instruction",
    [
        "Please answer directly with only the letter of the correct option and nothing else.",
        "Answer with the option's letter from the given choices directly.",
        "Answer with the option’s letter from the given choices and only give the best option.",
        "Please select the correct answer from the options above.",
        "Answer with the option letter only.",
        "Answer:",
        "Think step by step before answering.",
        "정답 선택지의 알파벳 하나만 답하세요.",
        "주어진 선택지 중 해당 옵션의 문자로 직접 답하세요.",
        "请直接回答选项字母。",
        "選択肢の記号で答えてください。",
    ],
)
def test_an_instruction_in_lines_after_the_options_is_cut_off(instruction):
    text = f"Which?\nA. one\nB. two\n{instruction} \n"
    assert cut_options(text) == ("Which?", ["one", "two"], instruction)
    assert cut_options(text.replace("\nPlease", "\n\nPlease")).options == ["one", "two"]


@pytest.mark.parametrize(
    "instruction",
    [
        "Please answer directly with only the letter of the correct option and nothing else.",
        "Answer with the option's letter from the given choices directly.",
        "Please select the correct answer from the options above.",
    ],
)
def test_a_known_instruction_is_cut_off_in_the_line_of_the_last_option_too(instruction):
    text = f"Which? Choices: A. It falls. B. It stands. {instruction}"
    assert cut_options(text) == ("Which?", ["It falls.", "It stands."], instruction)


def test_an_option_that_sounds_like_an_instruction_is_an_option():
    text = "Which sign?\nA. Answer with the letter.\nB. 정답을 선택하세요"
    assert cut_options(text).options == ["Answer with the letter.", "정답을 선택하세요"]
    assert cut_options("What now? (A) Wait (B) Answer the phone").options == ["Wait", "Answer the phone"]


@pytest.mark.parametrize(
    "text, found",
    [
        ("What is it?", "no list of options in 'What is it?'"),
        ("", "no list of options in ''"),
        ("What is it?\nA. cat", "no list of options in"),
        ("What is it?\nA. cat\nC. dog", "lines that begin with the letters A, C"),
        ("What is it?\nA. cat\nB. dog\nA. cow", "lines that begin with the letters A, B, A"),
        ("What is it?\nOptions: A: cat, C: dog", "options behind the letters A, C"),
        ("What is it?\nB. cat\nC. dog", "no list of options in"),
        ("What is it?\nA. cat\nB. dog C. cow", "an option in a line of its own, and others in one line"),
        ("What is it?\nA. cat\nB. dog\nand why?", "'and why?' after the last option"),
        ("What is it?\nA. cat\nB.", "nothing behind the letter B in"),
        ("<image>\nA. cat\nB. dog", "no question before the options in"),
        ("<image 1>A. cat\nB. dog\n", "no list of options in"),
        ("What?\nA: so\nB: not so\n(A) one\n(B) two", "lists of options in several spellings, (A) and A:"),
        ("What? A. so B. not so. (A) one (B) two", "lists of options in several spellings, (A) and A."),
        ("What? Options: A: a, B: b. Choices: A: c, B: d", "2 lists of options in"),
        ("What?\nOptions: A: 3, see B: left, C: 5", "commas between some options and not between others in"),
        ("What?\nOptions: A: cat, or B: dog", "options in a sentence, "),
        ("What?\nOptions: A: , B: dog", "an empty option in"),
        # running text
        ("See Mr. A. Smith and Mr. B. Jones. Who is taller?", "no list of options in"),
        ("Look.\nA. Smith and B. Jones are there. Who is taller?", "no list of options in"),
        ("Which is longer, (A) the red one or (B) the blue one?", "no list of options in"),
        ("Two lines. (A) is red, (B) is blue. Which is longer?", "a question behind the letters, "),
    ],
)
def test_what_is_not_certain_is_refused(text, found):
    with pytest.raises(InlineError) as caught:
        cut_options(text)
    assert caught.value.found.startswith(found) and EXPECTED in str(caught.value)


@pytest.mark.parametrize("text", ["Options: A: x, " * 12_000, "A. " * 60_000, "\n" * 180_000 + "B.", "(A) " * 45_000])
def test_the_longest_texts_are_refused_in_a_moment(text):
    start = time.process_time()
    with pytest.raises(InlineError):
        cut_options(text)
    assert time.process_time() - start < 10  # of minutes, where the search were quadratic
