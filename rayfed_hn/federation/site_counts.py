"""What a server counts of every site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rayfed_hn.federation.rules.base import same_shape


class SiteCounts:
    """Numbers by site, all of which a commit holds.

    Args:
        sites: Their names, in order.

    Attributes:
        turns: Requests for training.
        accepted: Updates that came in time.
        refused: Updates that were dropped for their age.
        last_turn: The last turn whose update came, taken or not; -1: none.
    """

    def __init__(self, sites: Sequence[str]) -> None:
        self._sites = tuple(sites)
        self.turns = dict.fromkeys(sites, 0)
        self.accepted = dict.fromkeys(sites, 0)
        self.refused = dict.fromkeys(sites, 0)
        self.last_turn = dict.fromkeys(sites, -1)

    def _all(self) -> dict[str, dict[str, int]]:
        names = ("turns", "accepted", "refused", "last_turn")
        return {f"sites.{name}": getattr(self, name) for name in names}

    def state(self) -> dict[str, Tensor]:
        """As named tensors, int64 (K,)."""
        return {
            name: torch.tensor([count[site] for site in self._sites])
            for name, count in self._all().items()
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state()``. Raises ``DataError`` if it is another federation's."""
        own = torch.zeros(len(self._sites), dtype=torch.int64)
        for name, count in self._all().items():
            found = same_shape(state, name, own).tolist()
            count.update(zip(self._sites, found, strict=True))
