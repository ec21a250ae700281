"""Options that refer to each other, such as "all of the above" or "위의 모두": their question keeps its order.

An option is cut into clauses. It refers if one of them matches the pattern of English or of Korean as a whole, and
names no letter or number that no option has. tests/cases/referring_options.tsv lists what must be recognised and what
must not.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache

from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question

MARKS = "[①-⑳⑴-⒇ⓐ-ⓩ㉠-㉭㉮-㉻ⅰ-ⅹ]"  # characters that are labels and nothing else
ALL_NUMBERS = re.compile(r"\d(?:(?:, | & |,? and | ?[와과] ?)\d)+")
ANY_NUMBER = re.compile(r"\d(?:(?: or | ?또는 ?|이?나 )\d)+")


def _any(*patterns: str) -> str:
    """The pattern of a text that matches one of these."""
    return f"(?:{'|'.join(patterns)})"


def _joined(label: str, joint: str) -> str:
    """The pattern of two or more labels with a joint between each two."""
    return rf"(?:{label})(?:(?:{joint})(?:{label}))+"


@cache
def _english() -> re.Pattern[str]:
    """Matches a whole clause in lower case, such as "all of the above", "both are correct" or "(a) and (c) only"."""
    several = "(?:two|three|four|five)"
    ordinal = "(?:1st|2nd|3rd|4th|first|second|third|fourth|fifth|last)"
    group = f"(?:all|none|both|n?either|any|each|some|most|one|more than one|a combination|{several})"
    option = "(?:option|answer|choice|alternative|statement)s?"
    which = f"(?:other|above|previous|preceding|following|next|remaining|listed|given|{ordinal}|{several})"
    where = "(?: above| below| here| given| listed| provided)"
    joint = ",? (?:and|or|nor|but not|as well as|and/or) | ?, ?| & "
    label = rf"(?:(?:{option} )?(?:[(\[]?[a-h][)\]]?|\(\d\)|{MARKS})|{option} \d|\(?(?:i{{1,3}}|iv|v)\)?)"
    labels = _joined(label, joint)
    numbers = _joined(r"\d", joint)
    verdict = _any(
        " (?:is|are|(?:can|could|may|might|must|would) be)(?: all| both| not| equally)* (?:(?:in)?correct|right|wrong"
        "|true|false|possible|acceptable|valid|applicable|(?:the )?(?:correct )?answers?)",
        "(?: do(?:es)? not| can| could)? appl(?:y|ies)",
    )
    reason = "(?:,? (?:except|but|because|since) .*)"
    # These refer anywhere in a clause, before a verb or the end: of the above; the other answers; among the choices
    mention = _any(
        f"(?:of|than|except|but|same as) (?:the )?(?:{several} )?(?:above|preceding|following)(?: {several})?",
        f"(?:the|{group}) (?:{which} )+{option}{where}?|(?:these|those|all the|among the) {option}{where}?",
        f"(?:{group}|not) (?:of|in) the (?:{which} )*{option}{where}?|(?:the )?{option}{where}|not in the list",
    )
    # These refer only if the rest of the clause says that they are right or wrong, or why.
    subject = _any(
        # none above; the above two; same as (b)
        f"(?:all|none|both|n?either|any|everything|anything|nothing)(?: the)? above|the above(?: {several})?",
        f"the {several} above|(?:the )?(?:same|opposite)(?: {option})? (?:as|of) (?:above|{label})",
        # both; neither one; all of these; the other two
        f"both|n?either(?: one)?|(?:all|any) {several}|all (?:these|those)|the other {several}",
        f"{group} of (?:the|these|those)(?: {ordinal})? {several}|(?:{group} of |all )?the others",
        f"{group} of (?:the|those) (?:listed|given|mentioned|provided)(?: ones)?{where}?",
        f"(?:all|none|both|n?either|any|any one|each|all {several}|not all|not one) of (?:them|these|those)",
        f"(?:all|any|everything|none) (?:but|except) (?:the )?{ordinal}(?: one| {several})?",
        # neither option; every answer; another answer; other choices
        f"(?:all|both|n?either|any|every|each|another|more than one|(?:{which} )*{which}) {option}",
        # the first two; the first and the third
        f"(?:the )?{ordinal} {several}|(?:(?:both|n?either) )?" + _joined(f"(?:the )?{ordinal}(?: one)?", joint),
        # both a and b; A, C; II only; options 1 and 3
        f"(?:(?:both|n?either|only|just|not) )?{labels}(?: only| together|,? but not both)?|(?:only|just) {label}",
        f"{label} only|(?:both|neither|only|{option}) {numbers}|{numbers} only",
    )
    return re.compile(
        _any(
            f"(?:[\\w']+ )*{mention}(?: (?:is|are|was|were|can|could|may|might|do|does) .*|{reason})?",
            f"(?:(?:not|at least|cannot be|the answer is) )?{subject}(?:{verdict}|{reason})?",
            f"(?:they|{label}|(?:either )?{numbers}|(?:no|{group}) {option}){verdict}",
            f"{group}(?: of (?:them|these|those))?{verdict}|(?:all|none|both) (?:in)?correct",
            f"{label}{verdict},? (?:and|but|or) {label}{verdict}",
            "(?:all|any|everything|anything|nothing|none)(?: of (?:them|these))? (?:except|but)(?: for)? "
            + _any(label, labels),
            f"(?:there is )?no (?:correct|right|valid|suitable|true) {option}",
            f"(?:the (?:correct |right )?{option} (?:is )?not|everything|anything|nothing|none|not) listed{where}?",
            "others?|something else|not applicable",
        )
    )


@cache
def _korean() -> re.Pattern[str]:
    """Matches a whole clause without its spaces, such as "위의모두", "둘다아니다", "①과③" or "보기중에없음"."""
    option = "(?:보기|선택지|선지|답안|정답|답|항목)들?"
    counted = "(?:둘|셋|넷|두개|세개|두가지|세가지|네가지)"
    several = f"(?:(?:두|세|네)(?:개|가지|{option})|둘|셋)"
    together = f"(?:{counted}(?:다|모두)|모두다?|전부다?)"
    ordinal = "(?:(?:첫|두|세|네|다섯)번째)"
    position = "(?:(?:위|앞|뒤|이전|다음|아래|상기|이상)의?(?:에?(?:제시된|언급된|나온|나열된|있는))?)"
    which = f"(?:{position}|이|모든|다른|나머지|제시된|주어진|두|세|마지막|{ordinal})"
    among = _any(
        f"(?:이|위|다음|둘|셋|{which}?{option}|{which}것들?)(?:중|가운데)(?:에|에서)?",
        f"{which}?{option}에",
    )
    among += "[는도]?"
    joint = "이?나|이?거나|와|과|및|,|·|또는|혹은|그리고|하고|이?랑"
    mark = rf"(?:[(\[]?[a-h][)\]]?|{MARKS}|[ㄱㄴㄷㄹㅁㅂ]|\([가나다라마바\d]\)|\d번)"
    label = rf"(?:(?:{option})?{mark}번?(?:{option})?|{option}\d|{ordinal}(?:보기|선택지|선지|답))"
    labels = _any(
        _joined(label, joint),
        _joined("[가나다라마바]", "와|및|,|·|또는"),
        option + _joined(r"\d", joint),
        _joined(r"\d", joint) + "번",
        _joined(f"{label}도", ",?"),
    )
    # How a Korean sentence ends: 정답이다, 정답임, 맞습니다, 틀림, 아닙니다, 해당되지 않음
    verdict = _any(
        "(?:정답|오답|답|참|거짓)(?:이?다|임|입니다|이?에요|이?아니다|이?아님|이?아닙니다)?|아니다|아님|아닙니다|아니에요",
        "(?:맞|옳)(?:지않)?(?:는?다|음|습니다|아요)|틀(?:리|렸|린|립니|렸습니)다|틀림|틀렸음",
        "해당(?:안?[하되된됩됨함한합돼](?:[가-힣]{0,4}[다음요])?)?|(?:적절|정확|가능)(?:하다|함|합니다)?",
    )
    fitting = "(?:(?:맞는|옳은|알맞은|올바른|적절한|해당[하되]는)(?:답|것|보기|내용)|해당(?:사항)?|정답|답)[이가은는]?"
    return re.compile(
        _any(
            # 둘 다 아니다; 모두 정답; 다 맞음
            f"{counted}(?:다|모두){verdict}?|(?:{together}|다){verdict}|둘중에?하나",
            # 위의 모두; 위 보기 전부; 나머지 모두
            f"(?:{position}(?:것|{option}|{several}|사항|내용)?|나머지|{which}?{option})[이가은는]?{together}{verdict}?",
            # 다른 보기; 모든 보기가 정답; 앞의 두 개
            f"{which}(?:보기|선택지|선지|답)들?[이가은는만]?{verdict}?",
            f"(?:앞|뒤|위|처음|마지막|나머지)의?{several}|위의?모든(?:것|{option}){verdict}?",
            # 앞의 답과 같음; 그 외; 첫 번째와 세 번째
            f"(?:위|{which}(?:{option}|{several})|{label})[와과](?:같음|같다|동일하다|동일함|동일)|그(?:외|밖)(?:의?것)?",
            _joined(ordinal, joint),
            # 보기 중에 없음; 정답 없음; 이 중 어느 것도 아니다
            f"(?:{among}(?:{fitting})?|(?:{together}|여기에는?)?{fitting})없(?:다|음|습니다)",
            f"(?:{among}|위의)?(?:어느|어떤)(?:것|쪽|답|보기)에?도{verdict}|아무것도해당[하되]지않(?:는다|음)",
            # A와 B; ①과 ③ 모두 정답; ㄱ만; A는 맞고 B는 틀리다; B를 제외한 전부
            f"{labels}[이가은는만]?(?:{together}|다)?{verdict}?|{label}만{verdict}?|{label}[이가은는]{verdict}",
            f"{label}[이가은는](?:맞|옳|틀리|정답이|참이|거짓이)고,?{label}[이가은는]{verdict}",
            f"(?:{label}|{labels})[을를]?(?:제외한|제외하고|빼고|뺀)(?:모두|전부|나머지)",
        )
    )


def _numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+", text))


def _clauses(option: str) -> list[str]:
    """An option in lower case with single spaces: the whole, then its clauses between marks of punctuation."""
    text = " ".join(unicodedata.normalize("NFC", option).casefold().split())
    clauses = [text, text.split(",")[0], *re.split(r"[;:()\[\]]|[.!?](?: |$)| [–—-] ", text)]
    return [clause.strip(" .,!?\"'") for clause in clauses]


def _refers(clause: str, labels: set[str]) -> bool:
    """Whether a clause speaks of options; numbers and letters that no option has mean something in the picture."""
    if not (_english().fullmatch(clause) or _korean().fullmatch(clause.replace(" ", ""))):
        return False
    return _numbers(clause) | set(re.findall("(?<![a-z])[a-h](?![a-z])", clause)) <= labels


def _numbers_refer(texts: list[str], labels: set[str]) -> bool:
    """Whether an option such as "1 and 2" means options: all numbers in the options are numbers of options.

    "1 or 2" is a count, unless 1 and 2 are options themselves.
    """
    single = {text for text in texts if text in labels}
    return _numbers(" ".join(texts)) <= labels and any(
        ALL_NUMBERS.fullmatch(text) or (ANY_NUMBER.fullmatch(text) and _numbers(text) <= single) for text in texts
    )


@lru_cache(maxsize=1 << 16)
def refer_to_each_other(options: tuple[str, ...]) -> bool:
    """Whether an option speaks of the others ("both a and b", "위의 모두"): such a question keeps its order.

    An option refers if only the others, their letters, numbers or positions give it a meaning: "both" and "둘 다"
    refer; "none", "all" and "없음" do not. "A and B" refers, since the text does not say whether it means letters in
    the picture.
    """
    clauses_of = [_clauses(option) for option in options]
    labels = {label for index in range(len(options)) for label in (LETTERS[index], str(index + 1))}
    if _numbers_refer([whole for whole, *_ in clauses_of], labels):
        return True
    return any(_refers(clause, labels) for clauses in clauses_of for clause in clauses)


def count_referring(questions: Iterable[Question]) -> int:
    """How many of the questions keep the order of their options because these refer to each other."""
    return sum(refer_to_each_other(question.options) for question in questions)
