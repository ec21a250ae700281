"""What is drawn and what is asked of it: one thing, four corners, or a grid to count.

A `Scene` says where which picture stands; a `Question` says what is asked about it, with the right
answer and three wrong ones that are neither true nor confusable with it. Pretraining
(`conversations.py`) and the tables (`tables.py`) put both into their own words and drawings.
"""

import random
from collections import defaultdict
from dataclasses import dataclass

from demo.making.pictures import Picture, confusable
from demo.making.vocabulary import (
    CATEGORIES,
    CLOSE_COLORS,
    COLORS,
    CORNERS,
    OVERLAPPING_CATEGORIES,
    UNCLEAR_CATEGORY,
    UNCOUNTABLE,
    VAGUE_CATEGORIES,
)


@dataclass
class Question:
    """kind: name, category, color, count, corner or find; `about` is the picture or corner that is named."""

    kind: str
    language: str
    right: str
    wrong: list[str]
    name: str = ""
    corner: str = ""


def translate(word: str, language: str, korean: dict[str, str]) -> str:
    return word if language == "en" else korean[word]


class Pool:
    """The pictures of one split, sorted by what can be asked about them. `rng` decides everything."""

    def __init__(self, pictures: list[Picture], rng: random.Random):
        self.rng, self.pictures = rng, pictures
        self.core = [p for p in pictures if p.core]
        self.colored = [p for p in pictures if p.color]
        self.categorized = [
            p for p in pictures if p.category not in VAGUE_CATEGORIES and not UNCLEAR_CATEGORY.search(p.en)
        ]
        self.countable = {
            style: [p for p in self.core if p.style == style and not UNCOUNTABLE.search(p.en)]
            for style in ("flat", "3d")
        }
        self.by_category = defaultdict(list)
        for picture in pictures:
            self.by_category[picture.category].append(picture)

    def distinct(self, count: int, pool: list[Picture], avoid: list[Picture] = ()) -> list[Picture]:
        """`count` pictures of the pool, none confusable with another or with `avoid`; [] if 200 draws do not do."""
        chosen = []
        for _ in range(200):
            candidate = self.rng.choice(pool)
            if not any(confusable(candidate, other) for other in (*chosen, *avoid)):
                chosen.append(candidate)
            if len(chosen) == count:
                return chosen
        return []

    def distractors(self, picture: Picture, count: int = 3, same_category: float = 0.6) -> list[Picture]:
        """Pictures whose names are wrong answers; of the same category with the given probability."""
        near = picture.category == "flag" or self.rng.random() < same_category
        return (near and self.distinct(count, self.by_category[picture.category], [picture])) or self.distinct(
            count, self.core, [picture]
        )

    # -------------------------------------------------------------- questions
    def name_question(self, picture: Picture, language: str, same_category: float = 0.6) -> Question:
        wrong = [getattr(other, language) for other in self.distractors(picture, 3, same_category)]
        return Question("name", language, getattr(picture, language), wrong)

    def category_question(self, picture: Picture, language: str) -> Question | None:
        """None where the picture's category is arguable."""
        if UNCLEAR_CATEGORY.search(picture.en) or picture.category in VAGUE_CATEGORIES - {"face", "flag", "hand"}:
            return None
        wrong = [
            c
            for c in CATEGORIES
            if c not in ("object", "place", "sign", "sky", picture.category)
            and frozenset((c, picture.category)) not in OVERLAPPING_CATEGORIES
        ]
        right, *wrong = (translate(c, language, CATEGORIES) for c in [picture.category, *self.rng.sample(wrong, 3)])
        return Question("category", language, right, wrong)

    def color_question(self, picture: Picture, language: str) -> Question | None:
        """None where the picture has no clear main colour."""
        if not picture.color:
            return None
        wrong = [c for c in COLORS if c != picture.color and frozenset((c, picture.color)) not in CLOSE_COLORS]
        right, *wrong = (translate(c, language, COLORS) for c in [picture.color, *self.rng.sample(wrong, 3)])
        return Question("color", language, right, wrong)

    def count_question(self, counted: Picture, count: int, lowest: int, language: str) -> Question:
        """The options are four numbers in a row from `lowest`."""
        wrong = [str(n) for n in range(lowest, lowest + 4) if n != count]
        return Question("count", language, str(count), wrong, name=getattr(counted, language))

    def corner_question(self, four: list[Picture], corner: int, language: str) -> Question:
        right, *wrong = (getattr(p, language) for p in [four[corner], *four[:corner], *four[corner + 1 :]])
        return Question("corner", language, right, wrong, corner=CORNERS[corner][language])

    def find_question(self, four: list[Picture], corner: int, language: str) -> Question:
        right, *wrong = (c[language] for c in [CORNERS[corner], *CORNERS[:corner], *CORNERS[corner + 1 :]])
        return Question("find", language, right, wrong, name=getattr(four[corner], language))
