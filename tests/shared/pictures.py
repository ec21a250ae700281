"""Pictures of random pixels, how transparency is laid on white, and a base's settings of pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def noise(mode: str, size=(61, 47)) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = RNG.integers(0, 256, (size[1], size[0], bands), np.uint8)
    return (
        Image.merge(mode, [Image.fromarray(values[..., band]) for band in range(bands)])
        if mode != "P"
        else Image.fromarray(values[..., 0]).convert("P")
    )


def on_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def write_settings(folder: Path, config: dict[str, Any], pictures: dict[str, Any], **changes: Any) -> Path:
    """A base's configuration and picture settings, with changes to the latter; its folder."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures | changes))
    return folder
