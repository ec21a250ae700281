"""Conversations: the spellings of turns that are read, and those that are no question with at most one answer."""

import pytest

from scoring.tables.conversations import EXPECTED, Conversation, ConversationError, read_query, read_turns

QUESTION = "<image>\nWhat is it?\nA. cat\nB. dog"
IMAGE = {"type": "image"}


@pytest.mark.parametrize(
    "turns",
    [
        [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "B"}],
        [{"from": "Human", "value": QUESTION, "weight": None}, {"from": "assistant", "value": "B"}],
        [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "B"}],
        [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}, {"role": "assistant", "content": "B"}],
        [{"human": QUESTION, "assistant": "B"}],
    ],
)
def test_all_spellings_of_turns_give_the_same_conversation(turns):
    assert read_turns(turns) == Conversation(QUESTION, "B")


def test_an_answer_may_be_missing_and_a_system_turn_is_kept_apart():
    system = {"role": "system", "content": "Be brief."}
    assert read_turns([system, {"role": "user", "content": "What?"}]) == Conversation("What?", system="Be brief.")
    assert read_turns([{"human": "What?"}]) == Conversation("What?")
    assert read_turns([{"from": "human", "value": "What?"}, {"from": "gpt", "value": None}]) == Conversation("What?")


@pytest.mark.parametrize(
    "parts, text, pictures",
    [
        ([IMAGE, {"type": "text", "text": "What?"}], "<image>What?", ()),
        ([{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}], "<image>What?", ("a.png",)),
        (
            [{"type": "text", "text": "Is "}, IMAGE, {"type": "text", "text": " like "}, IMAGE],
            "Is <image> like <image>",
            (),
        ),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo", ()),
        ([{"type": "image_url", "image_url": {"url": "data:…"}}, "What?"], "<image>What?", ("data:…",)),
        ([{"type": "input_image", "image_url": "a.png"}, {"type": "input_text", "text": "q"}], "<image>q", ("a.png",)),
        ([{"type": "image", "path": "a.png", "text": None}], "<image>", ("a.png",)),
        ([{"type": "image", "image": {"bytes": b"P", "path": None}}], "<image>", ({"bytes": b"P", "path": None},)),
    ],
)
def test_parts_become_one_text_with_marks_where_the_pictures_stand(parts, text, pictures):
    conversation = read_turns([{"role": "user", "content": parts}])
    assert (conversation.question, conversation.pictures) == (text, pictures)


@pytest.mark.parametrize(
    "turns, found",
    [
        (None, "an empty cell"),
        ([], "an empty cell"),
        ("What?", "'What?', no list of turns"),
        (["What?", "B"], "no list of turns"),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": "A"}, {"from": "human", "value": "r"}], "2 human"),
        ([{"from": "gpt", "value": "A"}], "turns of assistant"),
        ([{"from": "gpt", "value": "A"}, {"from": "human", "value": "q"}], "turns of assistant, user"),
        ([{"from": "system", "value": "s"}], "turns of the system alone"),
        ([{"from": "human", "value": "q"}, {"from": "system", "value": "s"}], "turns of user, system"),
        ([{"from": "tool", "value": "q"}], "a turn of 'tool'"),
        ([{"text": "q"}], "a turn with the keys 'text'"),
        ([{"role": "user", "content": [{"type": "video"}]}], "a part of the type 'video'"),
        ([{"from": "human", "value": "<video>\nq"}], "<video> in a turn"),
        ([{"role": "user", "content": [IMAGE | {"image": "a.png"}, IMAGE]}], "pictures in some parts"),
        ([{"role": "user", "content": [IMAGE | {"image": "a.png"}, "<image> q"]}], "pictures in some parts"),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": "<image>"}], "a picture in the answer"),
    ],
)
def test_what_is_no_question_with_one_answer_is_refused(turns, found):
    with pytest.raises(ConversationError) as caught:
        read_turns(turns)
    assert found in caught.value.found and EXPECTED in str(caught.value)


def test_query_and_response_are_a_conversation_without_a_history():
    assert read_query(QUESTION, "B", None, None) == Conversation(QUESTION, "B")
    assert read_query(QUESTION, None, [], "Be brief.") == Conversation(QUESTION, system="Be brief.")
    with pytest.raises(ConversationError, match="a history of 1 turns"):
        read_query(QUESTION, "B", [["one", "two"]], None)
