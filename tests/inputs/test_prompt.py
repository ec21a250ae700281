"""The default prompt is the notebook's; templates are texts with placeholders."""

import pytest

from scoring.inputs.prompt import PromptTemplate, TemplateError

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


def test_a_template_is_read_from_a_file(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text(
        'system = "Answer with {letters}."\nuser = "{question}\\n{options}{hint}"\nhint = " ({task_hint})"\n'
    )
    assert PromptTemplate.read(path).render("Q", ["x", "y"], "h") == ("Answer with a, b.", "Q\n(a) x\n(b) y (h)")


@pytest.mark.parametrize(
    "text, message",
    [
        ("user = 'no placeholders'", "{question}"),
        ("user = 1", "user"),
        ("sytem = 'x'", "sytem"),
        ("= broken", "TOML"),
        ("option = '{option}'", "{letter}"),
    ],
)
def test_faulty_template_files_are_refused(tmp_path, text, message):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(TemplateError, match=None) as caught:
        PromptTemplate.read(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
