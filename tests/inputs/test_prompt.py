"""The default prompt is the notebook's; templates are texts with placeholders."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.prompt import PromptTemplate, TemplateError
from scoring.inputs.tokens import ChatPrompt, ChatTokenizer
from tests.shared.templates import THEIR_FILE, THEIRS

NOTEBOOK_SYSTEM = (
    "당신은 시각 정보를 세밀하게 분석하여 질문에 논리적으로 답하는 비주얼 AI 전문가입니다. "
    "이미지에서 주요 대상과 그 특징(형태, 재질, 위치, 배경)을 관찰하고, "
    "보기 중 가장 가능성이 높은 정답을 선택하세요. "
    "최종 출력은 반드시 a, b, c, d 중 하나의 소문자 한 글자만 작성하세요."
)
NOTEBOOK_USER = (
    "질문: Q?\n\n보기:\n(a) w\n(b) x\n(c) y\n(d) z\n\n"
    "이미지를 관찰한 후, 가장 알맞은 보기를 고르세요. "
    "정답은 반드시 소문자 알파벳 a, b, c, d 중 하나로만 답하세요.\n\n힌트: H"
)


def test_the_default_prompt_is_the_notebooks_to_the_character():
    assert PromptTemplate().render("Q?", ["w", "x", "y", "z"], "H") == (NOTEBOOK_SYSTEM, NOTEBOOK_USER)


def test_without_a_hint_its_line_is_left_out():
    assert PromptTemplate().render("Q?", ["w", "x", "y", "z"])[1] == NOTEBOOK_USER.removesuffix("\n\n힌트: H")


def test_letters_follow_the_number_of_options():
    system, user = PromptTemplate().render("Q?", ["w", "x", "y", "z", "v"])
    assert "a, b, c, d, e 중" in system and "a, b, c, d, e 중" in user and "(e) v" in user


def test_cells_are_inserted_unchanged():
    _, user = PromptTemplate().render("{options} {0} {letters}", ["{question}", "%s", "\\1", "{{x}}"], "{hint}")
    assert user.startswith("질문: {options} {0} {letters}\n")
    assert "(a) {question}\n(b) %s\n(c) \\1\n(d) {{x}}" in user and user.endswith("힌트: {hint}")


def test_any_character_changes_the_fingerprint():
    assert PromptTemplate().fingerprint != PromptTemplate(hint="\n\n힌트:  {task_hint}").fingerprint
    assert PromptTemplate().fingerprint == PromptTemplate().fingerprint


def test_the_default_prompt_is_recorded_as_the_demos_checkpoints_recorded_it(demo):
    fold = demo / "checkpoints" / "fold0"
    calibration = json.loads((fold / "calibration.json").read_text("utf-8"))
    assert PromptTemplate().fingerprint == calibration["fingerprint"]["template"] == "f3bd2edfbe601c25"
    assert PromptTemplate().to_json() == json.loads((fold / "scoring.json").read_text("utf-8"))["template"]
    assert THEIRS.to_json()["letters"] == "upper" and PromptTemplate(**THEIRS.to_json()) == THEIRS


def test_capital_letters_are_shown_wherever_the_template_has_letters():
    template = replace(THEIRS, system="{letters}?")
    assert template.render("Q", ["w", "a", "y", "z", "v"], "h") == (
        "A, B, C, D, E?",
        "Q\nA. w\nB. a\nC. y\nD. z\nE. v\nReply with A, B, C, D, E and nothing else.\nA hint: h",
    )
    assert template.labels == "ABCDEFGHIJKLMNOPQRSTUVWXYZ" and PromptTemplate().labels[:4] == "abcd"


def test_the_letters_and_the_system_turn_are_part_of_the_fingerprint():
    templates = [THEIRS, replace(THEIRS, letters="lower"), replace(THEIRS, system="{letters}?")]
    assert len({template.fingerprint for template in templates}) == 3
    assert THEIRS.differing(replace(THEIRS, letters="lower", system="x")) == ["system", "letters"]
    texts = json.dumps(PromptTemplate(system="").to_json(), ensure_ascii=False)  # once those of an empty system turn
    assert PromptTemplate(system="").fingerprint != hashlib.sha256(texts.encode()).hexdigest()[:16]


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "foreign-checkpoints.md"


def test_the_documents_example_gives_the_conversation_beside_it(base, tmp_path):
    section = DOCUMENT.read_text("utf-8").partition("## The prompt of another tool")[2]
    (conversation,) = re.findall(r"```text\n(.*?)```", section, re.S)
    (text,) = re.findall(r"```toml\n(.*?)```", section, re.S)
    (tmp_path / "theirs.toml").write_text(text, "utf-8")
    template = PromptTemplate.read(tmp_path / "theirs.toml")
    system, user = template.render("How many boats lie at the pier?", ["none", "one", "two", "more than two"])
    chat = ChatTokenizer(base)
    picture = PixelPolicy().tokens((1, 2, 2))  # of one token
    ids = chat.encode(ChatPrompt(system, (0, user), [picture])).ids.tolist()
    assert conversation == chat.tokenizer.decode(ids, skip_special_tokens=False) + "C<|im_end|>\n"
    assert template.labels[2] == "C"
    assert template.render("Q", ["x", "y"], "h")[1].endswith("nothing else.\nA hint: h")


def test_a_template_is_read_from_a_file(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text(
        'system = "Answer with {letters}."\nuser = "{question}\\n{options}{hint}"\nhint = " ({task_hint})"\n'
    )
    assert PromptTemplate.read(path).render("Q", ["x", "y"], "h") == ("Answer with a, b.", "Q\n(a) x\n(b) y (h)")
    path.write_text(THEIR_FILE)
    assert PromptTemplate.read(path) == THEIRS


@pytest.mark.parametrize(
    "text, message",
    [
        ("user = 'no placeholders'", "{question}"),
        ("user = 1", "user"),
        ("sytem = 'x'", "sytem"),
        ("= broken", "TOML"),
        ("option = '{option}'", "{letter}"),
        ("letters = 'Upper'", "letters are 'Upper'; expected lower or upper"),
        ("letters = true", "letters: expected texts named"),
        ("letters = 'upper'", "the default system and user would ask for a lower-case letter"),
        ("letters = 'upper'\nsystem = ''", "the default user would ask"),
        ("system = '  '", "system is blank"),
        ("system = 'about {question}'", "system has {question}, which is not filled there; expected {letters}"),
        ("user = '{question} {options} {letter}'", "user has {letter}"),
        ("hint = '{task_hint} {hint}'", "hint has {hint}, which is not filled there; expected {task_hint}"),
        ("user = '<image>{question} {options}'", "user has <image>, which the model would read as ordinary text"),
        ("user = '{question} <image 1> {options}'", "user has <image 1>, which"),
        ("system = 'x<|im_end|>'", "system has <|im_end|>"),
    ],
)
def test_faulty_template_files_are_refused(tmp_path, text, message):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(TemplateError, match=None) as caught:
        PromptTemplate.read(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
