"""InternVL3 and 3.5 in transformers' format (repositories "…-hf"): a picture becomes square tiles and a thumbnail."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, Self

import numpy as np
from PIL import Image

from scoring.inputs.families.family import Family
from scoring.inputs.families.tiles import LANGUAGE_RENAMED, PICTURE_SETTINGS, TiledPolicy, tile_of
from scoring.inputs.pixels import Grid, PictureSettings, PictureTokens


@dataclass(frozen=True)
class TilePolicy(TiledPolicy):
    """As the library's `GotOcr2ImageProcessorPil`, which InternVL's processor tells to crop.

    A picture is scaled to the arrangement of tiles whose ratio of sides is nearest to its own, of as many tiles as the
    pixels hold. Where that is more than one, the whole picture follows as one more tile, which no budget counts.
    """

    @classmethod
    def of_settings(cls, settings: PictureSettings, pixels: int | None = None) -> Self:
        tile, token = tile_of(settings), settings.patch_size * settings.merge_size
        if tile < 1 or tile % token or (settings.size or {}).get("width") != tile:
            raise ValueError(f"found tiles of size {settings.size}; expected squares, multiples of {token} pixels")
        return replace(super().of_settings(settings, pixels), min_pixels=settings.min_patches * tile**2, tile=tile)

    @staticmethod
    def limits(settings: PictureSettings) -> tuple[int, int | None]:
        area = tile_of(settings) ** 2
        return settings.min_patches * area, settings.max_patches * area

    def arrangement(self, width: int, height: int) -> tuple[int, int]:
        """(columns, rows) of the tiles that a picture is cut into.

        Among equal ratios the larger arrangement is taken, as long as the picture fills more than half of its pixels.
        """
        return _arrangement((width, height), self.tile**2, self.min_pixels, self.max_pixels)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) of all tiles together, without the thumbnail."""
        columns, rows = self.arrangement(width, height)
        return columns * self.tile, rows * self.tile

    def grid(self, width: int, height: int) -> Grid:
        """(tiles, rows, columns): with the thumbnail, and the patches of each tile."""
        columns, rows = self.arrangement(width, height)
        tiles, side = columns * rows, self.tile // self.patch
        return tiles + (tiles > 1), side, side

    def tokens(self, grid: Grid) -> PictureTokens:
        """Tile by tile, one for each square of merge x merge patches; positions count them as text."""
        tiles, rows, columns = grid
        return PictureTokens(grid, tiles * (rows // self.merge) * (columns // self.merge), None)

    def resized(self, picture: Image.Image) -> np.ndarray:
        """(tiles * side, side, 3) uint8: the tiles row by row, one below the other, and the thumbnail."""
        (columns, rows), side = self.arrangement(*picture.size), self.tile
        tiles = self.cut(np.asarray(picture.resize((columns * side, rows * side), Image.Resampling.BICUBIC)))
        if rows * columns == 1:
            return tiles
        return np.concatenate([tiles, np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))])


@lru_cache(maxsize=10_000)
def _arrangement(size: tuple[int, int], area: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """See `TilePolicy.arrangement`. size: of the picture, (width, height). area: of a tile."""
    width, height = size
    best, smallest = (1, 1), float("inf")
    for columns, rows in _arrangements(min_pixels // area, max_pixels // area):
        difference = abs(width / height - columns / rows)
        larger = difference == smallest and width * height > 0.5 * area * columns * rows
        if difference < smallest or larger:
            best, smallest = (columns, rows), difference
    return best


@cache
def _arrangements(fewest: int, most: int) -> list[tuple[int, int]]:
    """(columns, rows) of that many tiles, in the order in which they are tried: few first."""
    pairs = [(columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    return sorted((pair for pair in pairs if math.prod(pair) >= fewest), key=math.prod)


class _TiledFamily(Family):
    """The size of patches, and how many become a token, are not in the picture settings but in config.json."""

    def picture_defaults(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        patch = self.vision_config(config).get("patch_size")
        patch = patch[0] if isinstance(patch, list) and patch else patch
        ratio = config.get("downsample_ratio")
        of_config = {
            "patch_size": patch or 14,
            "merge_size": round(1 / ratio) if isinstance(ratio, int | float) and ratio > 0 else 2,
        }
        return {**self.picture_settings, **of_config}


INTERNVL = _TiledFamily(
    name="InternVL",
    model_types=("internvl",),
    image_token="<IMG_CONTEXT>",
    around=("<img>", "</img>"),
    end_of_turn="<|im_end|>",
    picture_settings=PICTURE_SETTINGS,
    policy=TilePolicy,
    vision="model.vision_tower",
    projector="model.multi_modal_projector",
    renamed=(
        *LANGUAGE_RENAMED,
        (r"^(vision_tower|multi_modal_projector)\.", r"model.\1."),
    ),
    text_types=("qwen2", "qwen3", "llama"),
)
