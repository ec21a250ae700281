"""The sentences that questions are made of: one set for pretraining, another for the tables.

No sentence of TABLE_* is used in pretraining, so what the tables ask is new in its wording, too.
Placeholders: {name} a picture's name, {corner} a corner.
"""

# ------------------------------------------------------------------ train.csv and test.csv
TABLE_QUESTIONS = {
    "object": {"en": ["What is shown in the picture?", "What does this picture show?", "Which of these is in the image?"],
               "ko": ["그림에 보이는 것은 무엇인가요?", "이 이미지에 나타난 것은 무엇인가요?", "사진 속에 있는 것을 고르세요."]},
    "animal": {"en": ["Which animal is in the picture?", "What animal does the image show?"],
               "ko": ["그림 속 동물은 무엇인가요?", "이 이미지에 보이는 동물을 고르세요."]},
    "category": {"en": ["Which category does the thing in the picture belong to?"],
                 "ko": ["그림 속 대상은 어느 종류에 속하나요?"]},
    "color": {"en": ["What is the main colour of the object?"], "ko": ["그림 속 물체의 주된 색은 무엇인가요?"]},
    "count": {"en": ['How many times does "{name}" appear in the picture?'], "ko": ["그림에 {name}{topic} 몇 개 있나요?"]},
    "location": {"en": ["What is at the {corner} of the picture?"], "ko": ["그림의 {corner}에 있는 것은 무엇인가요?"]},
}
TABLE_HINTS = {
    "object": {"en": "Name the main thing in the picture.", "ko": "그림의 주된 대상을 확인하세요."},
    "category": {"en": "Think of the kind of thing.", "ko": "대상의 종류를 생각하세요."},
    "color": {"en": "Look at the colour that fills the object.", "ko": "물체를 가장 많이 채운 색을 보세요."},
    "count": {"en": "Count only the named thing.", "ko": "물어본 대상만 세세요."},
    "location": {"en": "Look at the named corner.", "ko": "말한 위치를 보세요."},
}

# ------------------------------------------------------------------ pretraining
QUESTIONS = {
    "name": {"en": ["What is this?", "What do you see?", "Name the object.", "What is in this image?",
                    "What is the thing here?", "Which thing can be seen?", "Identify the object in the image.",
                    "Pick what the picture contains.", "Which one is drawn here?"],
             "ko": ["이것은 무엇입니까?", "무엇이 보이나요?", "이게 뭐예요?", "그림에 무엇이 있나요?", "물체의 이름은 무엇인가요?",
                    "사진에 나타난 대상은?", "이미지 속 대상을 고르세요.", "그림이 나타내는 것은 무엇일까요?",
                    "여기에 그려진 것은 무엇인가?", "이미지에 보이는 것의 이름을 말하세요."]},
    "animal": {"en": ["Which animal is this?", "Name the animal.", "What creature is drawn?"],
               "ko": ["어떤 동물인가요?", "이 동물의 이름은 무엇입니까?", "사진 속 동물을 말하세요."]},
    "flag": {"en": ["Which country is this flag from?", "Whose flag is this?"],
             "ko": ["이 국기는 어느 나라의 것인가요?", "어느 나라 깃발입니까?"]},
    "category": {"en": ["What kind of thing is this?", "To which group does the object belong?",
                        "What type of thing do you see?", "Choose the category of the object."],
                 "ko": ["이것은 어떤 종류인가요?", "대상의 종류는 무엇입니까?", "물체가 속하는 분류를 고르세요.",
                        "무슨 종류의 것이 보이나요?"]},
    "color": {"en": ["What colour is it?", "Which colour covers most of the object?",
                     "What is the colour of this thing?", "Name the main colour."],
              "ko": ["무슨 색인가요?", "물체의 색은 무엇입니까?", "대상의 주요 색을 고르세요.", "이것은 어떤 색인가요?",
                     "가장 많은 색은 무엇인가요?"]},
    "count": {"en": ['How many "{name}" are there?', 'Count the "{name}".', 'How many times can you see "{name}"?',
                     'What is the number of "{name}" in the image?'],
              "ko": ["{name}의 수는 몇 개입니까?", "{name}: 모두 몇 개인가요?", "이미지에서 {name}의 개수를 세세요.",
                     "{name} 몇 개가 보이나요?"]},
    "corner": {"en": ["What can be seen in the {corner} corner?", "Which thing is {corner}?",
                      "Name the object at the {corner}.", "What is in the {corner} part?"],
               "ko": ["{corner}에는 무엇이 있습니까?", "{corner}에 보이는 것은?", "이미지의 {corner} 대상을 고르세요.",
                      "{corner} 위치의 물체는 무엇인가요?"]},
    "find": {"en": ["Where is the {name}?", "In which corner is the {name}?"],
             "ko": ["{name}의 위치는 어디인가요?", "{name} 어디에 있나요?"]},
    "confirm": {"en": ["Is this a picture of: {name}?", "Does the image show {name}?", "Can you see {name}?"],
                "ko": ["이것은 {name} 맞나요?", "그림에 {name} 있나요?", "{name} 보이나요?"]},
    "confirm corner": {"en": ["{corner}: {name}?", "Is {name} at the {corner}?"],
                       "ko": ["{corner}: {name}?", "{corner}에 {name} 있나요?"]},
    "caption": {"en": ["Describe the image.", "Describe.", "What are the things, in order?", "List everything."],
                "ko": ["이미지를 설명하세요.", "설명하세요.", "보이는 것을 차례로 말하세요.", "모두 말하세요."]},
}
YES_NO = {"en": ("yes", "no"), "ko": ("예", "아니요")}
SYSTEM = {
    "ko": ["당신은 이미지를 보고 답하는 AI입니다.", "당신은 그림 전문가입니다.", "이미지를 보고 질문에 답하세요.",
           "주요 대상과 특징을 관찰하세요.", "정답을 고르세요.", "정답 하나만 작성하세요.", "형태와 재질, 배경과 위치를 분석하세요.",
           "보기 중 하나를 선택하세요.", "가장 알맞은 것을 선택하세요.", "최종 답은 소문자 한 글자입니다.",
           "논리적으로 생각하고 짧게 답하세요.", "시각 정보를 분석하는 도우미입니다.", "가능성이 높은 답을 말하세요.",
           "반드시 세밀하게 관찰하고 답하세요.", "출력은 한 글자로 합니다."],
    "en": ["You are a helpful assistant.", "You look at pictures and answer.", "Answer the question about the image.",
           "Choose the right option.", "Look closely at the picture.", "Reply with one letter only.", "Be short.",
           "You are an expert in images."],
}
HINTS = {
    "ko": {"name": ["대상을 보세요.", "그림을 잘 보세요.", "주된 것을 확인하세요."],
           "category": ["종류를 생각하세요.", "무슨 종류인지 보세요."], "color": ["색을 보세요.", "채운 색을 확인하세요."],
           "count": ["잘 세세요.", "같은 대상만 세세요."], "corner": ["위치를 보세요.", "위치를 확인하세요."]},
    "en": {"name": ["Look at the thing.", "Find the main object."], "category": ["Think of its kind.", "Which kind?"],
           "color": ["Look at the colour."], "count": ["Count with care."], "corner": ["Look at that corner."]},
}
HINT_LABELS = {"ko": ["힌트: ", "참고: "], "en": ["Hint: ", "Note: "]}
QUESTION_LABELS = {"ko": ["질문: ", "문제: ", "", "", "물음: "], "en": ["Question: ", "Q: ", "", ""]}
OPTIONS_LABELS = {"ko": ["보기:", "선택지:", "", "다음 중 고르세요:"], "en": ["Options:", "Choices:", "", ""]}
OPTION_STYLES = [("({}) ", "abcd"), ("{}. ", "abcd"), ("{}) ", "abcd"), ("{}: ", "abcd"), ("[{}] ", "abcd"),
                 ("{}. ", "ABCD"), ("({}) ", "ABCD"), ("{}. ", "1234"), ("({}) ", "1234")]
CLOSINGS = {
    "ko": ["정답을 고르세요.", "답은?", "정답:", "알맞은 것을 고르세요.", "한 글자로 답하세요.", "보기에서 고르세요.",
           "글자 하나만 쓰세요.", "이미지를 보고 정답을 선택하세요.", "소문자 알파벳으로 답하세요."],
    "en": ["Answer:", "Choose one.", "Answer with the letter.", "Which option is right?", "Reply with one letter."],
}
# Longer instructions, for the last stage alone: they teach that "a, b, c, d" in an instruction is no option.
INSTRUCTIONS = {
    "ko": ["답은 a, b, c, d 가운데 하나입니다.", "a부터 d까지의 알파벳 중에서 하나를 쓰세요.",
           "다른 말 없이 a, b, c, d 중에서 답하세요.", "그림을 자세히 본 다음 가장 맞는 보기를 고르세요.",
           "이미지를 살펴본 뒤 정답을 하나만 고르세요.", "소문자 하나만 적으세요.", "보기 가운데 가장 알맞은 것의 글자를 쓰세요.",
           "설명은 필요 없습니다.", "잘 모르면 가장 가까운 것을 고르세요.", "한 번 더 보고 답하세요."],
    "en": ["Reply with a, b, c or d.", "The answer is one of a, b, c, d.",
           "Look at the image, then choose the best option.", "Write only one lower-case letter.",
           "No explanation is needed."],
}


def topic_particle(word: str) -> str:
    """The Korean topic particle after a word: 은 after a final consonant, 는 otherwise."""
    closed = "가" <= word[-1] <= "힣" and (ord(word[-1]) - 0xAC00) % 28
    return "은" if closed else "는"
