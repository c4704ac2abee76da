"""Dropout masks from a seed, drawn where the network is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEVELS = 2**16  # of the chance to be kept; a quarter and a half are exact


class CpuMasks:
    """Masks of one site's training on a CPU.

    PyTorch's ``bernoulli_`` takes six times as long there, a tenth of a training step.

    Args:
        seed: Of the masks.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.SFC64(seed))

    def draw(self, like: Tensor, keep: float) -> Tensor:
        """1 with the chance ``keep``, else 0, in the shape of a tensor."""
        bits = self._rng.integers(0, LEVELS, size=tuple(like.shape), dtype=np.uint16)
        return torch.from_numpy((bits < round(keep * LEVELS)).astype(np.float32)).to(like.dtype)


Masks = torch.Generator | CpuMasks


def masks_of(seed: int, device: torch.device | str) -> Masks:
    """The source of the masks of a training on a device."""
    if torch.device(device).type == "cpu":
        return CpuMasks(seed)
    return torch.Generator(device=device).manual_seed(seed)


def draw_mask(source: Masks, like: Tensor, keep: float) -> Tensor:
    """1 with the chance ``keep``, else 0, in the shape and on the device of a tensor."""
    if isinstance(source, CpuMasks):
        return source.draw(like, keep)
    return torch.empty_like(like).bernoulli_(keep, generator=source)
