"""LLaVA-OneVision in transformers' format ("llava-hf/…"): a picture alone becomes tiles, one of several does not."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
from PIL import Image

from scoring.inputs.families.family import Family
from scoring.inputs.families.tiles import LANGUAGE_RENAMED, PICTURE_SETTINGS, TiledPolicy, tile_of
from scoring.inputs.pixels import Grid, PictureSettings, PictureTokens

Arrangement = tuple[int, int]  # (columns, rows) of tiles


@dataclass(frozen=True)
class AnyresPolicy(TiledPolicy):
    """As the library's `LlavaOnevisionImageProcessorPil`.

    The one picture of a question is fitted into one of several resolutions, between black borders, and cut into tiles.
    The whole picture comes before them as one more tile, which no budget counts. Of several pictures each is one tile:
    the whole on a square of the mean colour.

    resolutions: those within the budget, in tiles, in the order in which they are tried. room: how many tiles' tokens a
    picture keeps beside the whole; more are scaled down to so many. alone: whether the question has one picture.
    """

    resolutions: tuple[Arrangement, ...] = ((1, 1),)
    room: int = 9
    alone: bool = True

    @classmethod
    def of_settings(cls, settings: PictureSettings, pixels: int | None = None) -> Self:
        tile, pinpoints = tile_of(settings), settings.image_grid_pinpoints or []
        if tile < settings.patch_size or (settings.size or {}).get("width") != tile:
            raise ValueError(
                f"found tiles of size {settings.size}; expected squares of {settings.patch_size} pixels or more"
            )
        if not pinpoints or (wrong := [sides for sides in pinpoints if not _is_tiled(sides, tile)]):
            raise ValueError(
                f"found image_grid_pinpoints {wrong[:1] if pinpoints else pinpoints}; "
                f"expected pairs of height and width, multiples of {tile} pixels"
            )
        ratio = re.fullmatch(r"anyres_max_([1-9]\d*)", settings.vision_aspect_ratio)
        if not ratio:
            raise ValueError(
                f"found vision_aspect_ratio {settings.vision_aspect_ratio!r}; expected anyres_max_9 or alike"
            )
        policy = super().of_settings(settings, pixels)
        most = max(policy.max_pixels, min(map(math.prod, pinpoints)))
        resolutions = ((width // tile, height // tile) for height, width in pinpoints if height * width <= most)
        return replace(policy, tile=tile, resolutions=tuple(resolutions), room=int(ratio[1]))

    @staticmethod
    def limits(settings: PictureSettings) -> tuple[int, int | None]:
        areas = [math.prod(sides) for sides in settings.image_grid_pinpoints or []]
        return (min(areas), max(areas)) if areas else (0, None)

    def for_count(self, pictures: int) -> Self:
        alone = pictures < 2
        return self if alone == self.alone else replace(self, alone=alone)

    def arrangement(self, width: int, height: int) -> Arrangement:
        """(columns, rows) of the resolution that keeps most of a picture's pixels, and of those the smallest."""
        return _arrangement((width, height), self.tile, self.resolutions)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) of all tiles together, without the whole."""
        columns, rows = self.arrangement(width, height) if self.alone else (1, 1)
        return columns * self.tile, rows * self.tile

    def grid(self, width: int, height: int) -> Grid:
        """(tiles of the largest resolution, height and width of the picture); zeros where it is not alone."""
        return (max(map(math.prod, self.resolutions)), height, width) if self.alone else (0, 0, 0)

    def tokens(self, grid: Grid) -> PictureTokens:
        """One for each patch of the whole; then row by row those of the tiles, without borders, and one after each row.

        Positions count them as text.
        """
        side, (tiles, height, width) = self.tile // self.patch, grid
        if not tiles:
            return PictureTokens(grid, side**2 + 1, None)
        columns, rows = (count * side for count in self.arrangement(width, height))
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        shrink = math.sqrt(rows * columns / (self.room * side**2))
        if shrink > 1.1:
            rows, columns = int(rows // shrink), int(columns // shrink)
        return PictureTokens(grid, side**2 + rows * (columns + 1), None)

    def resized(self, picture: Image.Image) -> np.ndarray:
        """(tiles * side, side, 3) uint8: the whole picture, and where it is alone the tiles row by row below it."""
        square = (self.tile, self.tile)
        if not self.alone:
            colour = tuple(int(level * 255) for level in self.mean)
            centred = _centred(picture, (max(picture.size),) * 2, colour)
            return np.asarray(centred.resize(square, Image.Resampling.BICUBIC))
        fitted = picture.resize(self._fitted(*picture.size), Image.Resampling.BICUBIC)
        tiles = self.cut(np.asarray(_centred(fitted, self.size(*picture.size), (0, 0, 0))))
        return np.concatenate([np.asarray(picture.resize(square, Image.Resampling.BICUBIC)), tiles])

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) of a picture within its resolution: as large as fits, in the same ratio."""
        new_width, new_height = self.size(width, height)
        across, down = new_width / width, new_height / height
        if across < down:
            return new_width, min(math.ceil(height * across), new_height)
        return min(math.ceil(width * down), new_width), new_height


def _is_tiled(sides: list[int], tile: int) -> bool:
    """Whether these are a height and a width of whole tiles."""
    return len(sides) == 2 and all(side >= tile and side % tile == 0 for side in sides)


def _centred(picture: Image.Image, size: tuple[int, int], colour: tuple[int, ...]) -> Image.Image:
    """The picture in the middle of one of that size; what is left over by one is below and on the right."""
    canvas = Image.new("RGB", size, colour)
    canvas.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
    return canvas


@lru_cache(maxsize=10_000)
def _arrangement(size: tuple[int, int], tile: int, resolutions: tuple[Arrangement, ...]) -> Arrangement:
    """See `AnyresPolicy.arrangement`. size: of the picture, (width, height)."""
    width, height = size
    best, most, least = resolutions[0], 0, math.inf
    for columns, rows in resolutions:
        scale = min(columns * tile / width, rows * tile / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        wasted = columns * rows * tile**2 - kept
        if kept > most or (kept == most and wasted < least):
            best, most, least = (columns, rows), kept, wasted
    return best


class _AnyresFamily(Family):
    """What its processor does is partly in config.json."""

    def picture_defaults(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        of_config = {
            "patch_size": self.vision_config(config).get("patch_size") or 14,
            "merge_size": 1,
            "image_grid_pinpoints": config.get("image_grid_pinpoints")
            or [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
            "vision_aspect_ratio": config.get("vision_aspect_ratio") or "anyres_max_9",
        }
        return {**self.picture_settings, **of_config}

    def limit(self, config: Mapping[str, Any]) -> str:
        tower = self.vision_config(config).get("model_type", "siglip_vision_model")
        if tower != "siglip_vision_model":
            return f"a vision tower of type {tower!r}"
        if config.get("vision_feature_layer", -1) != -1:
            return "features of other layers of its tower than the last (vision_feature_layer)"
        if config.get("vision_feature_select_strategy", "full") != "full":
            return "features that leave a patch out (vision_feature_select_strategy)"
        return super().limit(config)


LLAVA_ONEVISION = _AnyresFamily(
    name="LLaVA-OneVision",
    model_types=("llava_onevision",),
    image_token="<image>",
    in_texts=True,
    end_of_turn="<|im_end|>",
    picture_settings=PICTURE_SETTINGS,
    policy=AnyresPolicy,
    vision="model.vision_tower",
    projector="model.multi_modal_projector",
    not_linear=("embed_tokens", "position_embedding"),
    renamed=(
        *LANGUAGE_RENAMED,
        (r"^(vision_tower\.|multi_modal_projector\.|image_newline$)", r"model.\1"),
        (r"^model\.vision_tower\.vision_model\.", "model.vision_tower."),
    ),
    text_types=("qwen2",),
)
