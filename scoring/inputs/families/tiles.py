"""Pictures as square tiles of one size: what families whose towers see tiles have in common."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from scoring.inputs.pixels import CLIP_COLOURS, PictureSettings, PixelPolicy

# What the library's processors of such families have by themselves.
PICTURE_SETTINGS = {"size": {"height": 384, "width": 384}, **CLIP_COLOURS}
# How older files name modules of the language model, and what they are now.
LANGUAGE_RENAMED = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
)


@dataclass(frozen=True)
class TiledPolicy(PixelPolicy):
    """Pictures as tiles one below the other; a subclass says which. tile: side of a tile in pixels."""

    tile: int = 448

    @property
    def patch_shape(self) -> tuple[int, ...]:
        return 3, self.tile, self.tile

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """(rows * side, columns * side, 3) -> (tiles * side, side, 3): the tiles row by row, one below the other."""
        side, (height, width) = self.tile, pixels.shape[:2]
        tiles: np.ndarray = pixels.reshape(height // side, side, width // side, side, 3).transpose(0, 2, 1, 3, 4)
        return tiles.reshape(-1, side, 3)

    def patches(self, picture: Image.Image) -> np.ndarray:
        """(tiles, 3, side, side) float32 of an RGB picture. Equal to the library's processor to the bit."""
        pixels = self.resized(picture)
        values = np.stack([levels.take(pixels[..., channel]) for channel, levels in enumerate(self.values)])
        return np.ascontiguousarray(values.reshape(3, -1, self.tile, self.tile).swapaxes(0, 1))


def tile_of(settings: PictureSettings) -> int:
    """The side of a tile in pixels; 0 where the settings have none."""
    return (settings.size or {}).get("height") or 0
