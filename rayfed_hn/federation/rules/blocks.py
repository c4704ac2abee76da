"""Vectors of many sites, some parameters at a time.

A server step is bound by memory: it should read every update once, and what it computes from it
should still be in a core's cache when it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rayfed_hn.models.site_features import FEWEST_ROWS

WIDTH = 16_384  # parameters at a time
VALUES = 2**20  # of all sites in one block: 4 MiB
TERMS = 64  # of a sum in float32: its error stays below the rounding of the networks themselves
GROUP = 64  # vectors made together


def places(size: int, count: int, device: torch.device) -> Iterator[slice]:
    """Where the blocks of vectors of one size begin and end: blocks of about the same width.

    In a narrow last block, BLAS would add in another order for another number of vectors.

    Args:
        size: Length of the vectors.
        count: How many there are.
        device: A GPU takes them whole: there, starting an operation costs more than memory.
    """
    width = size if device.type != "cpu" else max(1, min(WIDTH, VALUES // max(1, count)))
    width = math.ceil(size / math.ceil(size / width))
    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


def blocks(
    vectors: Sequence[np.ndarray], device: torch.device, scales: Sequence[float] | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """A block of all vectors after the other: its place, and its values (B, block).

    The values are overwritten by those of the next block.

    Args:
        vectors: float32, all of one length.
        device: Where the values are wanted.
        scales: What the vectors are multiplied with (default: 1).
    """
    scaled = [(i, scale) for i, scale in enumerate(scales or ()) if scale != 1]
    buffer: np.ndarray | None = None
    for place in places(len(vectors[0]), len(vectors), device):
        width = place.stop - place.start
        if buffer is None:
            buffer = np.empty((len(vectors), width), np.float32)
        for row, vector in zip(buffer, vectors, strict=True):
            row[:width] = vector[place]
        for number, scale in scaled:
            buffer[number, :width] *= np.float32(scale)
        yield place, torch.from_numpy(buffer[:, :width]).to(device)


def weighted_sum(share_B: Tensor, vectors_BW: Tensor) -> Tensor:
    """sum_k share_k u_k in the order of the rows, float64 (W,).

    At most 64 products are added in float32, and such sums in float64: close to a sum in float64,
    without converting every update.

    Args:
        share_B: float64 (B,), on the CPU.
        vectors_BW: float32.
    """
    share_B = share_B.to(vectors_BW.device, torch.float32)
    total_W = torch.zeros(vectors_BW.shape[1], dtype=torch.float64, device=vectors_BW.device)
    for start in range(0, len(share_B), TERMS):
        total_W += share_B[start : start + TERMS] @ vectors_BW[start : start + TERMS]
    return total_W


def total(share_B: Tensor, vectors: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """``weighted_sum`` where nothing else is made of the vectors: they are read once, as they are.

    Returns float64 (P,) on the device.
    """
    total_P = torch.zeros(len(vectors[0]), dtype=torch.float64, device=device)
    for start in range(0, len(vectors), TERMS):
        part_P = torch.zeros(len(vectors[0]), device=device)
        for share, vector in zip(share_B[start:].tolist(), vectors[start : start + TERMS]):  # noqa: B905
            part_P.add_(torch.from_dlpack(vector).to(device), alpha=share)
        total_P += part_P
    return total_P


def generate(base_P: Tensor, rows_SE: Tensor, head_EP: Tensor) -> list[np.ndarray]:
    """Base + row W for every row, each float32 (P,), on the CPU.

    A row's vector of 64 values or more does not depend on which others are made with it.

    Args:
        base_P: float32.
        rows_SE: float32, on the same device.
        head_EP: W, float32.
    """
    made = [np.empty(len(base_P), np.float32) for _ in rows_SE]
    for start in range(0, len(made), GROUP):
        group = made[start : start + GROUP]
        rows_GE = rows_SE[start : start + GROUP]
        rows_GE = pad(rows_GE, (0, 0, 0, max(0, FEWEST_ROWS - len(group))))
        for place in places(len(base_P), GROUP, head_EP.device):
            values_GW = torch.addmm(base_P[place], rows_GE, head_EP[:, place]).cpu().numpy()
            for vector, values_W in zip(group, values_GW, strict=False):  # without the padding
                vector[place] = values_W
    return made
