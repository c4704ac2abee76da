"""How much one site, or one patient, can move what is released."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Products and norms in float32 are off by less: the clipped norm stays below the limit.
_SLACK = 1e-6


def clip_factor(parts: Sequence[Tensor], limit: float) -> tuple[float, float]:
    """What to multiply tensors by so that their common norm is at most ``limit``.

    One factor for all of them: a norm of each would let a site move by as many limits as it has
    tensors.

    Returns:
        The factor, 1 where nothing is to be done; and the norm before, in float64. What is not
        finite has an infinite norm, and factor 0.
    """
    total = sum(float(part.detach().double().square().sum()) for part in parts)
    norm = total**0.5
    if not torch.isfinite(torch.tensor(norm)):
        return 0.0, float("inf")
    return (1.0, norm) if norm <= limit else (limit / norm * (1 - _SLACK), norm)


def clipped(vector: Tensor, limit: float) -> tuple[Tensor, float]:
    """A vector (P,) scaled down to a norm of at most ``limit``, and its norm before.

    A vector that is not finite becomes zero: a mechanism must have an answer to any data.
    """
    factor, norm = clip_factor([vector], limit)
    return (torch.zeros_like(vector) if factor == 0 else vector * factor), norm
