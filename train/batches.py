"""Which rows are in which step, in which order their options are, and how their pictures are augmented."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from scoring.inputs.orders import reordered
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.inputs.referring import refer_to_each_other


def epoch_order(count: int, batch: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Row indices of each step of one epoch: every row once, the remainder in the last step."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return [order[start : start + batch] for start in range(0, count, batch)]


def shuffled(question: Question, seed: int, epoch: int) -> Question:
    """The question with its options in an order of this epoch, unless they refer to each other."""
    if refer_to_each_other(question.options):
        return question
    order = np.random.default_rng((seed, epoch, question.row)).permutation(len(question.options))
    return reordered(question, "".join(LETTERS[option] for option in order))


@dataclass
class AugmentingPreparer(Preparer):
    """Prepares pictures as scoring does, then crops up to a tenth of each side and changes the light, by `strength`.

    Pictures are not mirrored or rotated, because questions ask for left and right. The same seed, epoch and row give
    the same picture.
    """

    strength: float = 0.0
    seed: int = 0
    epoch: int = 0

    def picture(self, question: Question, index: int = 0) -> Image.Image:
        """One of the question's pictures decoded, upright, in RGB, augmented. Raises PictureError."""
        picture = super().picture(question, index)
        if not self.strength:
            return picture
        random = np.random.default_rng((self.seed, self.epoch, question.row, *[index] * (index > 0)))
        width, height = picture.size
        cut = 0.1 * self.strength * random.random(4)
        box = (cut[0] * width, cut[1] * height, (1 - cut[2]) * width, (1 - cut[3]) * height)
        picture = picture.resize(picture.size, Image.Resampling.BICUBIC, box)
        for enhancement in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            picture = enhancement(picture).enhance(1 + self.strength * random.uniform(-0.3, 0.3))
        return picture
