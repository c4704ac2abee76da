"""Bags of several sites in one tensor: the shorter ones end in zeros that nothing may look at.

Shapes: S sites, N tiles of the longest bag, D features, W values of a tile in any layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.masks import Masks, draw_mask


@dataclass(frozen=True)
class PaddedBags:
    """One bag of every site.

    Attributes:
        features_SND: float32, standardised; what stands at absent tiles is finite.
        present_SN: Which tiles there are, bool.
        lengths: Tiles of every bag.
    """

    features_SND: Tensor
    present_SN: Tensor
    lengths: tuple[int, ...]


def pad(
    bags: Sequence[LabelledBag],
    rows: Sequence[np.ndarray | None],
    device: torch.device | str = "cpu",
) -> PaddedBags:
    """Put one bag of every site, or the given rows of it, beside each other on a device."""
    parts = [bag.parts(chosen) for bag, chosen in zip(bags, rows, strict=True)]
    lengths = tuple(sum(len(part) for part in site) for site in parts)
    shape = (len(bags), max(lengths), bags[0].features_ND.shape[1])
    features_SND = torch.empty(shape, pin_memory=torch.device(device).type == "cuda")
    for row_ND, site in zip(features_SND.numpy(), parts, strict=True):
        start = 0
        for part in site:
            row_ND[start : start + len(part)] = part
            start += len(part)
        row_ND[start:] = 0.0
    present_SN = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    scaled_SND = _standardised(send(features_SND, device), bags)
    return PaddedBags(scaled_SND, send(present_SN, device), lengths)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the CPU on a device, without waiting until a GPU has it."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _standardised(features_SND: Tensor, bags: Sequence[LabelledBag]) -> Tensor:
    scales = [bag.standardisation for bag in bags]
    if all(scale is None for scale in scales):
        return features_SND
    dim = features_SND.shape[2]
    none = (np.zeros(dim, np.float32), np.ones(dim, np.float32))
    pairs = [none if s is None else (s.centre_D, s.deviation_D) for s in scales]
    centre_SD, deviation_SD = (
        send(torch.from_numpy(np.stack(side)), features_SND.device)
        for side in zip(*pairs, strict=True)
    )
    return (features_SND - centre_SD[:, None]) / deviation_SD[:, None]


@dataclass(frozen=True)
class PaddedMasks:
    """Dropout masks of padded bags, every site's from its own source.

    A site draws what it would draw for its bag alone: the same shapes in the same order.
    """

    sources: Sequence[Masks]
    lengths: Sequence[int]

    def draw(self, x_SNW: Tensor, keep: float) -> Tensor:
        """1 with the chance ``keep``, else 0; 0 at absent tiles."""
        mask_SNW = torch.zeros_like(x_SNW)
        for mask_NW, length, source in zip(mask_SNW, self.lengths, self.sources, strict=True):
            mask_NW[:length] = draw_mask(source, mask_NW[:length], keep)
        return mask_SNW


def softmax_of_tiles(scores_N: Tensor, present_N: Tensor | None) -> Tensor:
    """Attention (N,) or (S, N) that sums to one; none of it on absent tiles."""
    if present_N is not None:
        scores_N = scores_N.masked_fill(~present_N, float("-inf"))
    return torch.softmax(scores_N, dim=-1)


def weighted_sum(weights_N: Tensor, hidden_NH: Tensor) -> Tensor:
    """sum_n w_n h_n, (H,) or (S, H)."""
    return (weights_N.unsqueeze(-2) @ hidden_NH).squeeze(-2)
