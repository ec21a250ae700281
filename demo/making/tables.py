"""`train.csv` (600 rows), `test.csv` (400 rows) and their JPEG pictures, from held-out drawings.

    python -m demo.making.tables

Five task types, 70 % Korean, letters balanced, backgrounds of soft colours; wording, hints and layouts are
those of `wording.TABLE_*`. One random stream with a fixed seed decides everything.
"""

import csv
import hashlib
import random
import shutil
from collections import Counter
from collections.abc import Iterator

from PIL import Image

from demo.making import DEMO
from demo.making.pictures import Picture, confusable, read_drawing, read_pictures
from demo.making.scenes import Pool, Question, translate
from demo.making.vocabulary import CATEGORIES, CLOSE_COLORS, COLORS, OVERLAPPING_CATEGORIES
from demo.making.wording import TABLE_HINTS, TABLE_QUESTIONS, topic_particle

ROWS = {"train": 600, "test": 400}
SHARES = {"object": 0.4, "category": 0.15, "color": 0.12, "count": 0.165, "location": 0.165}
COLUMNS = ["id", "path", "question", "a", "b", "c", "d", "answer", "task_type", "task_hint"]
BACKGROUNDS = [
    (255, 255, 255),
    (245, 245, 240),
    (230, 240, 250),
    (250, 240, 225),
    (235, 250, 235),
    (240, 235, 250),
    (220, 225, 230),
    (255, 250, 215),
]
Drawn = tuple[Image.Image, Question]


class Tables:
    """Draws the rows of one split; `rng` decides everything."""

    def __init__(self, pictures: list[Picture], rng: random.Random):
        self.rng, self.pool = rng, Pool(pictures, rng)

    def rows(self, count: int) -> list[tuple[str, Image.Image, Question]]:
        """(task type, picture, question) in random order."""
        makers = {
            "object": self.objects,
            "category": self.categories,
            "color": self.colors,
            "count": self.counts,
            "location": self.locations,
        }
        rows = []
        for task, share in SHARES.items():
            made = makers[task]()
            rows += [(task, *next(made)) for _ in range(round(count * share))]
        self.rng.shuffle(rows)
        return rows

    def objects(self) -> Iterator[Drawn]:
        while True:  # each picture once before any twice
            for picture in self.rng.sample(self.pool.pictures, len(self.pool.pictures)):
                yield self._alone(picture), self.pool.name_question(picture, self._language(), same_category=0.8)

    def categories(self) -> Iterator[Drawn]:
        return self._groups("category", self.pool.categorized, "category", OVERLAPPING_CATEGORIES, CATEGORIES)

    def colors(self) -> Iterator[Drawn]:
        return self._groups("color", self.pool.colored, "color", CLOSE_COLORS, COLORS)

    def _groups(self, kind: str, pictures: list[Picture], attribute: str, close, korean) -> Iterator[Drawn]:
        """Questions for a shared attribute: four groups that do not overlap, one of them right."""
        groups: dict[str, list[Picture]] = {}
        for picture in pictures:
            groups.setdefault(getattr(picture, attribute), []).append(picture)
        groups = {name: members for name, members in groups.items() if len(members) > 2}
        turn = 0
        while True:
            names = self.rng.sample(sorted(groups), 4)
            if any(frozenset((first, second)) in close for first in names for second in names):
                continue
            right = names.pop(turn % 4)
            turn += 1
            language = self._language()
            yield (
                self._alone(self.rng.choice(groups[right])),
                Question(
                    kind,
                    language,
                    translate(right, language, korean),
                    [translate(name, language, korean) for name in names],
                ),
            )

    def counts(self) -> Iterator[Drawn]:
        turn, countable = 0, [p for style in self.pool.countable.values() for p in style]
        while True:
            counted, other = self.rng.choice(countable), self.rng.choice(countable)
            if confusable(counted, other) or counted.style != other.style:
                continue
            lowest = 1 + turn % 6
            count = lowest + turn // 6 % 4
            turn += 1
            others = self.rng.randint(0, min(3, 9 - count))
            cells = self.rng.sample(range(9), count + others)
            yield (
                self._grid(
                    [(counted if n < count else other, cell) for n, cell in enumerate(cells)], 3, 96, (0.7, 0.92)
                ),
                self.pool.count_question(counted, count, lowest, self._language()),
            )

    def locations(self) -> Iterator[Drawn]:
        turn = 0
        while True:
            four = self.pool.distinct(4, self.pool.countable[self.rng.choice(["flat", "3d"])])
            if not four:
                continue
            yield (
                self._grid([(picture, cell) for cell, picture in enumerate(four)], 2, 144, (0.625, 0.9)),
                self.pool.corner_question(four, turn % 4, self._language()),
            )
            turn += 1

    # --------------------------------------------------------------- drawing
    def _language(self) -> str:
        return "ko" if self.rng.random() < 0.7 else "en"

    def _canvas(self, side: int) -> Image.Image:
        return Image.new("RGB", (side, side), self.rng.choice(BACKGROUNDS))

    def _alone(self, picture: Picture, side: int = 224) -> Image.Image:
        canvas, size = self._canvas(side), side * self.rng.uniform(0.6, 0.92)
        _paste(canvas, picture, self.rng.uniform(0, side - size), self.rng.uniform(0, side - size), size)
        return canvas

    def _grid(
        self, placed: list[tuple[Picture, int]], columns: int, cell: int, sizes: tuple[float, float]
    ) -> Image.Image:
        canvas = self._canvas(columns * cell)
        for picture, number in placed:
            size = cell * self.rng.uniform(*sizes)
            _paste(
                canvas,
                picture,
                number % columns * cell + (cell - size) / 2,
                number // columns * cell + (cell - size) / 2,
                size,
            )
        return canvas


def _paste(canvas: Image.Image, picture: Picture, x: float, y: float, size: float) -> None:
    """The drawing, cropped to what is opaque, scaled into the square at (x, y)."""
    drawing = read_drawing(picture)
    box = drawing.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    drawing = drawing.crop(box) if box else drawing
    scale = min(size / drawing.width, size / drawing.height, 3)
    drawing = drawing.resize(
        (max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))), Image.LANCZOS
    )
    canvas.paste(drawing, (int(x + (size - drawing.width) / 2), int(y + (size - drawing.height) / 2)), drawing)


def _text(task: str, question: Question, picture_is_animal: bool, rng: random.Random) -> str:
    wording = "animal" if task == "object" and picture_is_animal else task
    return rng.choice(TABLE_QUESTIONS[wording][question.language]).format(
        name=question.name, corner=question.corner, topic=topic_particle(question.name) if question.name else ""
    )


def make() -> None:
    """Write both tables and `demo/images/`."""
    rng, pictures = random.Random(20261125), read_pictures()
    animals = {name for p in pictures if p.category == "animal" for name in (p.en, p.ko)}
    shutil.rmtree(DEMO / "images", ignore_errors=True)
    (DEMO / "images").mkdir()
    for split, count in ROWS.items():
        rows = Tables([p for p in pictures if p.split == split], rng).rows(count)
        letters = [letter for _ in range(count // 4) for letter in rng.sample(range(4), 4)]
        with open(DEMO / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for number, ((task, picture, question), letter) in enumerate(zip(rows, letters, strict=True)):
                options = rng.sample(question.wrong, 3)
                options.insert(letter, question.right)
                path = f"images/{hashlib.sha1(f'{split}{number}'.encode()).hexdigest()[:10]}.jpg"
                picture.save(DEMO / path, quality=88)
                table.writerow(
                    [
                        f"{split}_{number:04d}",
                        path,
                        _text(task, question, question.right in animals, rng),
                        *options,
                        "abcd"[letter],
                        task,
                        TABLE_HINTS[task][question.language],
                    ]
                )
        print(split, len(rows), Counter(task for task, *_ in rows), Counter("abcd"[letter] for letter in letters))


if __name__ == "__main__":
    make()
