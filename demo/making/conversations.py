"""Endless random conversations about random scenes: what the base model is pretrained on.

A conversation is a `Scene` (which pictures stand where) and its text as pieces `(text, kind)`, where the
kind says how much the loss counts: "" (context), "letter" (the answer to a choice), "text" (an answer in
words), "mark" (O or X after an option: does this name fit?) or "lookup" ("{option}?" -> its letter).

Marks and look-ups make letters learnable in minutes: a letter alone says whether four
comparisons came out right together, a mark says it of each, and a look-up teaches which letter stands where.
"""

import random
from dataclasses import dataclass, replace

from demo.making.pictures import Picture
from demo.making.scenes import Pool, Question, translate
from demo.making.vocabulary import CATEGORIES, COLORS
from demo.making.wording import (
    CLOSINGS,
    HINT_LABELS,
    HINTS,
    INSTRUCTIONS,
    OPTION_STYLES,
    OPTIONS_LABELS,
    QUESTION_LABELS,
    QUESTIONS,
    SYSTEM,
    YES_NO,
)


@dataclass(frozen=True)
class Curriculum:
    """How the text of a stage is drawn; probabilities unless said otherwise."""

    system: float  # a system prompt stands first
    turns: tuple[float, ...]  # weights of 1, 2, … questions a picture
    other_styles: float  # options are not written "(a) …"
    free_answers: float  # a choice is answered in words
    marks: tuple[float, float, float]  # weights of: no option marked, each with 1/2, all
    lookups: float  # a look-up follows a choice
    instructions: int = 0  # if not 0, up to three longer instructions follow the options
    scenes: tuple[float, ...] = (0.63, 0.18, 0.19)  # weights of: one picture, four corners, a grid
    corners: tuple[float, ...] = (
        0.2,
        0.55,
        0.1,
        0.15,
        0,
        0,
    )  # weights of what is asked of four corners, see `_corners`


SEE = Curriculum(system=0.7, turns=(0.5, 0.3, 0.2), other_styles=0.8, free_answers=0.15, marks=(1, 0, 0), lookups=0)
CHOOSE = Curriculum(
    system=0.35, turns=(0.7, 0.3), other_styles=0.2, free_answers=0, marks=(0.35, 0.3, 0.35), lookups=0.5
)
CHOOSE_LATE = replace(CHOOSE, other_styles=0.45, marks=(0.7, 0.15, 0.15), lookups=0.3)
# What stands in a corner was answered in words long before it was chosen among names that all are in the picture:
# that takes "where is this option?" and "is that the corner asked for?", so both are asked for themselves.
LOCATE = replace(
    CHOOSE, marks=(0.2, 0.2, 0.6), lookups=0.3, scenes=(0.25, 0.55, 0.2), corners=(0.1, 0.35, 0.05, 0.15, 0.15, 0.2)
)
FOLLOW = replace(CHOOSE, other_styles=0.3, marks=(1, 0, 0), lookups=0.15, instructions=3, scenes=(0.5, 0.3, 0.2))


@dataclass(frozen=True)
class Place:
    """Where one picture stands: centre and size as shares of the canvas, rotation in radians."""

    picture: int
    x: float
    y: float
    size: float
    rotation: float = 0.0
    mirrored: bool = False


Scene = list[Place]
Pieces = list[tuple[str, str]]


class Conversations:
    """`next(conversations)` gives `(scene, pieces)`; `curriculum` may be exchanged at any time."""

    def __init__(self, pictures: list[Picture], curriculum: Curriculum, seed: int):
        self.rng = random.Random(seed)
        self.pool, self.curriculum = Pool(pictures, self.rng), curriculum

    def __iter__(self):
        return self

    def __next__(self) -> tuple[Scene, Pieces]:
        rng, plan = self.rng, self.curriculum
        scene, ask = rng.choices([self._single, self._corners, self._grid], plan.scenes)[0]()
        pieces: Pieces = []
        if rng.random() < plan.system:
            sentences = SYSTEM[self._language()]
            system = " ".join(rng.sample(sentences, rng.choice([1, 1, 2, 3, 4])))
            pieces.append((f"<|im_start|>system\n{system}<|im_end|>\n", ""))
        picture = "<|vision_start|><|image_pad|><|vision_end|>"
        for _ in range(rng.choices(range(1, len(plan.turns) + 1), plan.turns)[0]):
            for user, answer, kind in ask():
                pieces += [
                    (f"<|im_start|>user\n{picture}", ""),
                    *user,
                    ("<|im_end|>\n<|im_start|>assistant\n", ""),
                    (f"{answer}<|im_end|>", kind),
                    ("\n", ""),
                ]
                picture = ""
        return scene, _joined(pieces)

    # ---------------------------------------------------------------- scenes
    def _single(self):
        """One picture, large; asked for its name, category and colour."""
        rng, pool = self.rng, self.pool
        picture = rng.choice(
            rng.choices([pool.colored, pool.categorized, pool.core, pool.pictures], [0.15, 0.20, 0.50, 0.15])[0]
        )
        size = rng.uniform(0.5, 0.98)
        free = (1 - size) / 2
        mirrored = picture.category not in ("flag", "sign", "hand", "object") and rng.random() < 0.4
        place = Place(
            picture.index,
            0.5 + rng.uniform(-free, free),
            0.5 + rng.uniform(-free, free),
            size,
            rng.gauss(0, 0.12),
            mirrored,
        )

        def ask():
            turn = None
            while not turn:
                turn = self._ask_single(picture, self._language())
            return turn

        return [place], ask

    def _ask_single(self, picture: Picture, language: str):
        rng, pool, name = self.rng, self.pool, getattr(picture, language)
        kind = "flag" if picture.category == "flag" else "name"
        if picture.category == "animal" and rng.random() < 0.4:
            kind = "animal"
        way = rng.choices(
            ["name", "choose name", "confirm", "category", "choose category", "color", "choose color"],
            [0.24, 0.36, 0.08, 0.05, 0.12, 0.03, 0.12],
        )[0]
        if way == "name":
            return self._answer_in_words(kind, language, name)
        if way == "choose name":
            return self._choose(pool.name_question(picture, language), kind)
        if way == "confirm":
            true = rng.random() < 0.5
            named = picture if true else pool.distractors(picture, 1)[0]
            return self._answer_in_words("confirm", language, YES_NO[language][not true], name=getattr(named, language))
        if way.endswith("category"):
            question = pool.category_question(picture, language)
            if way == "category" and question:
                return self._answer_in_words("category", language, translate(picture.category, language, CATEGORIES))
        else:
            question = pool.color_question(picture, language)
            if way == "color" and question:
                return self._answer_in_words("color", language, translate(picture.color, language, COLORS))
        return question and self._choose(question)

    def _corners(self):
        """Four pictures of one style, one in each corner."""
        rng, pool = self.rng, self.pool
        four = pool.distinct(4, pool.countable[rng.choice(["flat", "3d"])])
        scene = [
            Place(
                p.index,
                0.25 + 0.5 * (i % 2) + rng.uniform(-0.03, 0.03),
                0.25 + 0.5 * (i // 2) + rng.uniform(-0.03, 0.03),
                rng.uniform(0.3, 0.48),
                rng.gauss(0, 0.06),
            )
            for i, p in enumerate(four)
        ]

        def ask():
            language, corner = self._language(), rng.randrange(4)
            what = pool.corner_question(four, corner, language)
            where = pool.find_question(four, corner, language)
            way = rng.choices(
                ["words", "choose", "caption", "choose find", "find", "confirm"], self.curriculum.corners
            )[0]
            if way == "words":
                return self._answer_in_words("corner", language, what.right, corner=what.corner)
            if way == "caption":
                return self._answer_in_words("caption", language, ", ".join(getattr(p, language) for p in four))
            if way == "find":
                return self._answer_in_words("find", language, where.right, name=where.name)
            if way == "confirm":
                true = rng.random() < 0.5
                return self._answer_in_words(
                    "confirm corner",
                    language,
                    YES_NO[language][not true],
                    corner=what.corner,
                    name=what.right if true else rng.choice(what.wrong),
                )
            return self._choose(what if way == "choose" else where)

        return scene, ask

    def _grid(self):
        """One to nine pictures of two kinds in a 3 x 3 grid."""
        rng, pool = self.rng, self.pool
        first, second = pool.distinct(2, pool.countable[rng.choice(["flat", "3d"])])
        many = rng.randint(1, 9)
        others = rng.randint(0, min(4, 9 - many))
        size = rng.uniform(0.22, 0.31)
        scene = [
            Place(
                (first if n < many else second).index,
                (cell % 3 + 0.5) / 3 + rng.uniform(-0.01, 0.01),
                (cell // 3 + 0.5) / 3 + rng.uniform(-0.01, 0.01),
                size * rng.uniform(0.9, 1.03),
            )
            for n, cell in enumerate(rng.sample(range(9), many + others))
        ]

        def ask():
            language, way = self._language(), rng.random()
            counted, count = (first, many) if not others or rng.random() < 0.6 else (second, others)
            question = pool.count_question(counted, count, rng.randint(max(0, count - 3), count), language)
            if way < 0.3:
                return self._answer_in_words("count", language, str(count), name=question.name)
            if way < 0.85:
                return self._choose(question)
            if way < 0.93:
                counts = [(first, many), (second, others)][: 1 + (others > 0)]
                return self._answer_in_words(
                    "caption", language, ", ".join(f"{getattr(p, language)} {n}" for p, n in counts)
                )
            wrong = pool.distinct(3, pool.core, avoid=[first, second])
            return self._choose(
                Question("name", language, getattr(counted, language), [getattr(p, language) for p in wrong])
            )

        return scene, ask

    # ---------------------------------------------------------------- turns: lists of (user pieces, answer, kind)
    def _language(self) -> str:
        return "ko" if self.rng.random() < 0.6 else "en"

    def _answer_in_words(self, wording: str, language: str, answer: str, **names):
        question = self.rng.choice(QUESTIONS[wording][language]).format(**names)
        return [([(question, "")], answer, "text")]

    def _choose(self, question: Question, wording: str | None = None):
        """A question with options, and sometimes look-ups of its options after it."""
        rng, plan = self.rng, self.curriculum
        options = question.wrong[:]
        rng.shuffle(options)
        right = rng.randrange(4)
        options.insert(right, question.right)
        style, letters = rng.choice(OPTION_STYLES) if rng.random() < plan.other_styles else OPTION_STYLES[0]
        user = self._options(question, wording or question.kind, options, right, style, letters)
        if rng.random() < plan.free_answers:
            words = style.format(letters[right]) + question.right if rng.random() < 0.5 else question.right
            return [(user, words, "text")]
        turns = [(user, letters[right], "letter")]
        if rng.random() < plan.lookups:
            for option in rng.sample(range(4), rng.choice([1, 2])):
                text = options[option] + rng.choice(["?", "", "은?", " = ?"])
                turns.append(([(text, "")], letters[option], "lookup"))
        return turns

    def _options(self, question: Question, wording: str, options, right: int, style: str, letters: str) -> Pieces:
        rng, plan, language = self.rng, self.curriculum, question.language
        gap = lambda: rng.choice(["\n", "\n\n"])  # noqa: E731
        text = rng.choice(QUESTION_LABELS[language])
        text += rng.choice(QUESTIONS[wording][language]).format(name=question.name, corner=question.corner) + gap()
        label = rng.choice(OPTIONS_LABELS[language]) if rng.random() < 0.6 else ""
        pieces: Pieces = [(text + (label + "\n" if label else ""), "")]
        between = "\n" if rng.random() < 0.9 else ", "
        marked = rng.choices([0, 0.5, 1], plan.marks)[0]
        for number, option in enumerate(options):
            pieces.append(((between if number else "") + style.format(letters[number]) + option, ""))
            if rng.random() < marked:
                pieces.append(("O" if number == right else "X", "mark"))
        if rng.random() < 0.6:
            pieces.append((gap() + rng.choice(CLOSINGS[language]), ""))
        count = rng.choice([0, 1, 1, 2, 3]) if plan.instructions else 0
        if count:
            pieces.append((gap() + " ".join(rng.sample(INSTRUCTIONS[language] + CLOSINGS[language], count)), ""))
        if question.kind in HINTS[language] and rng.random() < (0.45 if plan.instructions else 0.25):
            pieces.append((gap() + rng.choice(HINT_LABELS[language]) + rng.choice(HINTS[language][question.kind]), ""))
        return pieces


def _joined(pieces: Pieces) -> Pieces:
    """Neighbouring context pieces as one, so that they are tokenized as one text."""
    joined: Pieces = []
    for text, kind in pieces:
        if joined and not kind and not joined[-1][1]:
            joined[-1] = (joined[-1][0] + text, "")
        else:
            joined.append((text, kind))
    return joined
