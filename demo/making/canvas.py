"""Draws scenes on the GPU: pictures scaled, turned and placed on a background, then disturbed.

All drawings are on the device in three sizes (premultiplied RGBA). Each is sampled from the size that
is just larger than what is drawn, so that small pictures have no jagged edges.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from demo.making.conversations import Scene

LEVELS = ((1.0, 0.49), (0.5, 0.33), (1 / 3, 0))  # scale of a copy, smallest share of the canvas it is used for


def load_drawings(path: Path, device: str) -> list[torch.Tensor]:
    """(pictures, 4, side, side) in [0, 1], premultiplied, at each of LEVELS."""
    with zipfile.ZipFile(path) as archive:
        files = [f"{p['code']}-{p['style']}.webp" for p in json.loads(archive.read("pictures.json"))]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGBA")) for name in files])
    full = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
    full = full.to(torch.float16 if device == "cuda" else torch.float32) / 255
    full = torch.cat([full[:, :3] * full[:, 3:], full[:, 3:]], 1)
    return [full if scale == 1 else F.interpolate(full, scale_factor=scale, mode="area") for scale, _ in LEVELS]


def places(scenes: list[Scene]) -> np.ndarray:
    """(places, 8) float32: scene, level, picture, x, y, size, rotation, mirrored."""
    rows = []
    for number, scene in enumerate(scenes):
        for place in scene:
            level = next(n for n, (_, smallest) in enumerate(LEVELS) if place.size >= smallest)
            rows.append((number, level, place.picture, place.x, place.y, place.size, place.rotation, place.mirrored))
    return np.array(rows, np.float32)


def draw(
    drawings: list[torch.Tensor], placed: torch.Tensor, count: int, grid: tuple[int, int], disturb: bool = True
) -> torch.Tensor:
    """(count, 3, height, width) in [-1, 1] of `placed` (see `places`) on grids of 16-pixel patches."""
    height, width = 16 * grid[0], 16 * grid[1]
    device, dtype = drawings[0].device, drawings[0].dtype
    canvas = (
        _backgrounds(count, height, width, device, dtype)
        if disturb
        else torch.ones(count, 3, height, width, device=device, dtype=dtype)
    )
    for level, copies in enumerate(drawings):
        on_level = placed[placed[:, 1] == level]
        if not len(on_level):
            continue
        shape = (len(on_level), 4, height, width)
        sampled = F.grid_sample(
            copies[on_level[:, 2].long()],
            F.affine_grid(_to_drawing(on_level, height, width), shape, align_corners=False).to(dtype),
            align_corners=False,
            padding_mode="zeros",
        )
        layer = torch.zeros(count, *shape[1:], device=device, dtype=dtype).index_add_(0, on_level[:, 0].long(), sampled)
        canvas = canvas * (1 - layer[:, 3:]).clamp(0, 1) + layer[:, :3]
    return (_disturbed(canvas.float()) if disturb else canvas.float()).clamp(0, 1) * 2 - 1


def _to_drawing(placed: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(places, 2, 3) affine maps from canvas coordinates in [-1, 1] to a drawing's."""
    _, _, _, x, y, size, rotation, mirrored = placed.T
    cos, sin, pixels, flip = rotation.cos(), rotation.sin(), size * min(height, width), 1 - 2 * mirrored
    across, down, left, top = width / pixels, height / pixels, 1 - 2 * x, 1 - 2 * y
    first = torch.stack([cos * across, sin * down, cos * across * left + sin * down * top], 1) * flip[:, None]
    second = torch.stack([-sin * across, cos * down, -sin * across * left + cos * down * top], 1)
    return torch.stack([first, second], 1)


def _backgrounds(count: int, height: int, width: int, device, dtype) -> torch.Tensor:
    """Backgrounds of light, white or any colours; three in ten fade into a second colour."""

    def share(*shape):
        return torch.rand(count, *shape, device=device)

    kind, turn = share(1, 1, 1), share(1, 1, 1) * 2 * torch.pi
    light = kind < 0.55
    first = torch.where(
        light, 0.8 + 0.2 * share(3, 1, 1), torch.where(kind < 0.7, torch.ones_like(kind), share(3, 1, 1))
    )
    second = torch.where(light, 0.8 + 0.2 * share(3, 1, 1), share(3, 1, 1))
    ys, xs = torch.meshgrid(
        torch.linspace(-0.5, 0.5, height, device=device), torch.linspace(-0.5, 0.5, width, device=device), indexing="ij"
    )
    along = (xs * turn.cos() + ys * turn.sin() + 0.5).clamp(0, 1) * (share(1, 1, 1) < 0.3)
    return (first * (1 - along) + second * along).to(dtype)


def _disturbed(pictures: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast and saturation shifted; a fifth blurred; three in ten noisy."""
    count, _, height, width = pictures.shape
    brightness, contrast, saturation, noisy = torch.rand(4, count, 1, 1, 1, device=pictures.device)
    grey = pictures.mean(1, keepdim=True)
    pictures = grey + (pictures - grey) * (1 + 0.35 * (2 * saturation - 1))
    pictures = ((pictures - 0.5) * (1 + 0.25 * (2 * contrast - 1)) + 0.5) * (1 + 0.15 * (2 * brightness - 1))
    blurred = (
        F.interpolate(
            F.avg_pool2d(pictures[: count // 5], 2), size=(height, width), mode="bilinear", align_corners=False
        )
        if count >= 5
        else pictures[:0]
    )
    pictures = torch.cat([blurred, pictures[len(blurred) :]])
    return pictures + torch.randn_like(pictures) * 0.03 * (noisy < 0.3)
