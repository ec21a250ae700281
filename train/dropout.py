"""Dropout of the adapters' inputs as numbers: a mask is drawn again where it is needed, not kept in memory."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Mask:
    """One layer's mask in one forward: the seed that it is drawn from, and the share of inputs that it drops."""

    seed: int
    share: float


@dataclass
class Dropout:
    """Dropout of all layers: the share of inputs that are dropped, and the seed of this forward's masks."""

    share: float
    seed: int = 0
    generator: torch.Generator | None = None

    def begin(self, *position: int) -> None:
        """Start a forward at a position of the training, such as (seed, step, batch): the same position, same masks."""
        self.seed = int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0] >> 1)

    def mask(self, layer: int) -> Mask:
        """A layer's mask in this forward, for kernels, which draw it themselves."""
        return Mask((self.seed + layer * 0x9E3779B97F4A7C15) % 2**63, self.share)

    def draw(self, layer: int, x: torch.Tensor) -> torch.Tensor | None:
        """(like `x`) 1 for elements to keep, 0 for those to drop; None without dropout. For where no kernel draws."""
        if not self.share:
            return None
        seed = self.mask(layer).seed
        if x.device.type == "cpu":  # many times as fast as torch's generator there
            bits = np.random.SFC64(seed).random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
            return torch.from_numpy((bits >= round(self.share * 65536)).astype(np.float32)).view(x.shape).to(x.dtype)
        self.generator = self.generator or torch.Generator(x.device)
        return torch.empty_like(x).bernoulli_(1 - self.share, generator=self.generator.manual_seed(seed))
