"""Leaves tiles out of a bag by the artefacts that were measured when it was made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.bags.bag import ARTEFACTS, Bag
from rayfed_hn.config import DataConfig


@dataclass(frozen=True)
class TileFilter:
    """The largest share of a tile that each artefact may cover; None does not ask.

    A share that nobody measured (imported features) never leaves a tile out.
    """

    limits: tuple[float | None, ...] = (None,) * len(ARTEFACTS)

    def __bool__(self) -> bool:
        return any(limit is not None for limit in self.limits)

    def keeps(self, artefacts_N4: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return bool (N,): which tiles stay."""
        limits = np.array([np.inf if limit is None else limit for limit in self.limits])
        return np.logical_not(np.any(artefacts_N4 > limits, axis=1))

    def apply(self, bag: Bag) -> Bag:
        """Return the bag without the tiles to leave out; the same bag if all of them stay.

        A bag of which no tile is left must not be asked for; ``SiteBags`` leaves such bags out.
        """
        keep = self.keeps(bag.artefacts_N4)
        if keep.all():
            return bag
        return replace(
            bag,
            features_ND=bag.features_ND[keep],
            coords_N2=bag.coords_N2[keep],
            tissue_N=bag.tissue_N[keep],
            artefacts_N4=bag.artefacts_N4[keep],
            verify=False,
        )


def tile_filter(config: DataConfig) -> TileFilter:
    """Return the filter that ``data.max_blur`` and its kin ask for."""
    return TileFilter(tuple(getattr(config, f"max_{name}") for name in ARTEFACTS))
