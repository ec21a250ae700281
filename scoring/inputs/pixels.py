"""An upright RGB picture -> the pixels and patches that a model sees, and the tokens that they fill.

In: a picture's size, or the picture. Out: its `PictureTokens` by the size alone, before a pixel is decoded; its pixels
(height, width, 3) uint8; and for the slow way of `engine.reference` its patches. A family whose pictures are cut in
another way has a subclass of `PixelPolicy`; `families.registry.policy_of` makes the one of a base.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from scoring.files.reading import as_object, read_json

DEFAULT_BUDGET = 448 * 448  # pixels, as in the competition notebook

CLIP_COLOURS = {  # of the channels, from 0 to 1
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}

Grid = tuple[int, int, int]  # (1, rows, columns) of a picture's patches; or tiles, and rows and columns of each


@dataclass(frozen=True)
class PictureTokens:
    """What a picture becomes in a prompt.

    grid: the picture's size as its family counts it. count: of its tokens. shape: the rows and columns that positions
    of its tokens count; None where they count its tokens one by one, as those of text.
    """

    grid: Grid
    count: int
    shape: tuple[int, int] | None


# ------------------------------------------------------------------ a base's settings
@dataclass
class PictureSettings:
    """The fields of a base's picture settings that are used here."""

    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    image_mean: list[float] = field(default_factory=lambda: [0.5] * 3)
    image_std: list[float] = field(default_factory=lambda: [0.5] * 3)
    size: dict[str, int | None] | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    min_patches: int = 1  # of families that cut pictures into tiles: how many tiles
    max_patches: int = 12
    image_grid_pinpoints: list[list[int]] | None = None  # or into which (height, width) they fit pictures,
    vision_aspect_ratio: str = "anyres_max_9"  # and how many tiles' tokens a picture has at most

    def __post_init__(self) -> None:
        counts = self.patch_size, self.merge_size, self.temporal_patch_size, self.min_patches, self.max_patches
        if min(counts) < 1 or len(self.image_mean) != 3 or len(self.image_std) != 3 or 0 in self.image_std:
            raise ValueError("found impossible patch sizes or colour statistics; expected those of a base")

    @property
    def fewest_pixels(self) -> int:
        edge = (self.size or {}).get("shortest_edge")
        return (self.min_pixels or 0) if edge is None else edge

    @property
    def most_pixels(self) -> int | None:
        """None if the settings set no limit."""
        edge = (self.size or {}).get("longest_edge")
        return (self.max_pixels or None) if edge is None else edge


def read_picture_settings(folder: Path, defaults: Mapping[str, Any]) -> PictureSettings | None:
    """From processor_config.json, which transformers reads first, or preprocessor_config.json; None without either.

    defaults: for what the file leaves out. Raises FileError where the settings are impossible.
    """
    nested = (read_json(folder / "processor_config.json") or {}).get("image_processor")
    if isinstance(nested, dict):
        return as_object(PictureSettings, {**defaults, **nested}, folder / "processor_config.json")
    values = read_json(folder / "preprocessor_config.json")
    return (
        None
        if values is None
        else as_object(PictureSettings, {**defaults, **values}, folder / "preprocessor_config.json")
    )


@dataclass(frozen=True)
class PixelPolicy:
    """How a picture becomes patches: the pixel budget and the base model's patch sizes and normalisation.

    min_pixels, max_pixels: of the picture as the model sees it; 0 for a base that sees none. patch: side of a patch in
    pixels. merge: patches on a side of the square that becomes one token. frames: how often a patch holds the picture,
    as if it were a film. mean, std: of the three channels, levels from 0 to 1.
    """

    min_pixels: int = DEFAULT_BUDGET
    max_pixels: int = DEFAULT_BUDGET
    patch: int = 16
    merge: int = 2
    frames: int = 2
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def of_settings(cls, settings: PictureSettings, pixels: int | None = None) -> Self:
        """With the patch sizes of a base; a budget of `pixels`, or of 448x448 within the limits of the base."""
        fewest, most = cls.limits(settings)
        budget = pixels or max(fewest, min(DEFAULT_BUDGET if most is None else most, DEFAULT_BUDGET))
        return cls(
            min_pixels=budget,
            max_pixels=budget,
            patch=settings.patch_size,
            merge=settings.merge_size,
            frames=settings.temporal_patch_size,
            mean=tuple(settings.image_mean),
            std=tuple(settings.image_std),
        )

    @staticmethod
    def limits(settings: PictureSettings) -> tuple[int, int | None]:
        """The fewest and the most pixels that a base's settings allow; None where they set no limit."""
        return settings.fewest_pixels, settings.most_pixels

    @property
    def budget(self) -> int | None:
        """The most pixels of a picture; None for a base that sees none."""
        return self.max_pixels or None

    def for_count(self, pictures: int) -> "PixelPolicy":
        """How each picture of a question with so many is cut; in most families the number makes no difference."""
        return self

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that a picture is resized to: multiples of patch x merge within the budget."""
        factor = self.patch * self.merge
        new_height, new_width = (round(side / factor) * factor for side in (height, width))
        if new_height * new_width > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            new_height, new_width = (
                max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
            )
        elif new_height * new_width < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            new_height, new_width = (math.ceil(side * grow / factor) * factor for side in (height, width))
        return new_width, new_height

    def grid(self, width: int, height: int) -> Grid:
        """(1, rows, columns) of patches of a picture of that size."""
        new_width, new_height = self.size(width, height)
        return 1, new_height // self.patch, new_width // self.patch

    def tokens(self, grid: Grid) -> PictureTokens:
        """Of a picture of that grid: one for each square of merge x merge patches."""
        rows, columns = grid[1] // self.merge, grid[2] // self.merge
        return PictureTokens(grid, rows * columns, (rows, columns))

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """The shape of one row of `patches`."""
        return (3 * self.frames * self.patch**2,)

    def resized(self, picture: Image.Image) -> np.ndarray:
        """(height, width, 3) uint8: the picture in the size that the model sees."""
        return np.asarray(picture.resize(self.size(*picture.size), Image.Resampling.BICUBIC))

    @property
    def values(self) -> np.ndarray:
        """(3, 256) float32: each level of each channel normalised, with the roundings of the library's processors."""
        levels = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        normalised: np.ndarray = (levels - mean[:, None]) / std[:, None]
        return normalised

    def patches(self, picture: Image.Image) -> np.ndarray:
        """(rows * columns, 3 * frames * patch²) float32 of an RGB picture, in the model's 2x2 merge order.

        Equal to `Qwen2VLImageProcessorPil` to the bit.
        """
        pixels = self.resized(picture)
        height, width = pixels.shape[:2]
        values = np.stack([levels.take(pixels[..., channel]) for channel, levels in enumerate(self.values)])
        rows, columns, patch, merge = height // self.patch, width // self.patch, self.patch, self.merge
        blocks = values.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        blocks = blocks.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
        blocks = np.broadcast_to(blocks, (*blocks.shape[:5], self.frames, patch, patch))
        return np.ascontiguousarray(blocks).reshape(rows * columns, -1)
