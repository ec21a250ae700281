"""`Question`: what is asked, whatever table or program it comes from."""

from dataclasses import dataclass

from scoring.inputs.pictures import DEFAULT_LIMITS, Picture, PictureLimits


@dataclass(frozen=True, slots=True)
class Question:
    """One row. `options` in the data's order; `answer` a letter or ""; `fault` what makes it unusable or "".

    `pictures` are files, the bytes of files, or opened. `<image 2>` in a text is the place of the second; pictures that
    no text names come before the texts. `sizes` are those of the upright pictures, from their headers. `limits`: how
    large a picture may be when it is decoded.

    >>> Question("q1", 1, (), "Which is larger?", ("two", "three"), answer="b").picture is None
    True
    """

    id: str
    row: int
    pictures: tuple[Picture, ...]
    question: str
    options: tuple[str, ...]
    answer: str = ""
    task_type: str = ""
    task_hint: str = ""
    fault: str = ""
    sizes: tuple[tuple[int, int], ...] = ()
    limits: PictureLimits = DEFAULT_LIMITS

    @property
    def picture(self) -> Picture | None:
        """The first picture; None for a question in words alone."""
        return self.pictures[0] if self.pictures else None
