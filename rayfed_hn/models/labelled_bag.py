"""One bag as training sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.models.standardise import Standardisation


@dataclass(frozen=True)
class LabelledBag:
    """The features of a slide, or of the slides of a case, and what is to be predicted.

    Attributes:
        features_ND: float32 (N, D); may be a read-only memory map.
        label: Index of the class, grade or interval of time.
        time: Follow-up of the case, where time is predicted.
        event: Whether it ended with the event.
        more: Features of further slides of the same case, each (N, D).
        standardisation: Applied to the features whenever they are used.
    """

    features_ND: np.ndarray
    label: int
    time: float = field(default=0.0, kw_only=True)
    event: bool = field(default=True, kw_only=True)
    more: tuple[np.ndarray, ...] = field(default=(), kw_only=True)
    standardisation: Standardisation | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.features_ND) + sum(len(part) for part in self.more)

    def parts(self, rows: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """Features of every slide, as they are stored.

        Args:
            rows: Of these rows of the bag only, int64 in ascending order.
        """
        parts = (self.features_ND, *self.more)
        if rows is None:
            return parts
        edges = np.cumsum([0, *(len(part) for part in parts)])
        bounds = np.searchsorted(rows, edges)
        return tuple(
            part[rows[a:b] - start]
            for part, start, a, b in zip(parts, edges, bounds, bounds[1:], strict=False)
        )

    def tensor(self, device: torch.device | str = "cpu", rows: np.ndarray | None = None) -> Tensor:
        """The features on a device; on the CPU a copy, since memory maps are read-only.

        Args:
            device: Where.
            rows: Take these rows only, int64 in ascending order.
        """
        parts = self.parts(rows)
        tensors = [torch.tensor(part, dtype=torch.float32, device=device) for part in parts]
        tensor_ND = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        scale = self.standardisation
        return tensor_ND if scale is None else scale.apply(tensor_ND)
