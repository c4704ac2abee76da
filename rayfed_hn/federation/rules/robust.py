"""Sums over sites that a minority of them cannot move at will (Yin et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rayfed_hn.config import RoundsConfig
from rayfed_hn.federation.rules.blocks import weighted_sum


@dataclass(frozen=True)
class Trimming:
    """How many of the largest and smallest values of every parameter do not count.

    Attributes:
        share: Of the sites, at each end; None: all but the one or two in the middle.
    """

    share: float | None

    @classmethod
    def of(cls, config: RoundsConfig) -> Trimming | None:
        """As ``rounds.robust`` says; None where all values count."""
        if config.robust == "median":
            return cls(None)
        return cls(config.trim) if config.robust == "trimmed_mean" else None

    def cut(self, num_sites: int) -> int:
        """Values at each end; of three sites and more at least one, so that it protects them."""
        most = (num_sites - 1) // 2
        if self.share is None or self.share == 0:
            return most if self.share is None else 0
        return min(most, max(1, int(self.share * num_sites)))


def combine(
    share_B: Tensor, sites: Sequence[int], vectors_BW: Tensor, trimming: Trimming | None
) -> Tensor:
    """sum_k share_k u_k, float64 (W,), or B times the middle of its terms.

    Several terms of one site are added first: a site has one vote, however fast it is. Of the votes
    of S sites the extremes of every parameter are left out, and the mean of the rest is taken S
    times: without extremes that is the sum.

    Args:
        share_B: float64, on the CPU.
        sites: Whose each term is.
        vectors_BW: float32.
        trimming: What is left out; None: nothing.
    """
    if trimming is None:
        return weighted_sum(share_B, vectors_BW)
    share_B = share_B.to(vectors_BW.device, torch.float32)
    votes_SW = _by_site(sites, share_B[:, None] * vectors_BW)
    cut = trimming.cut(len(votes_SW))
    if cut:
        votes_SW = votes_SW.sort(dim=0).values[cut : len(votes_SW) - cut]
    return votes_SW.double().mean(dim=0) * len(set(sites))


def pull_in(
    sites: Sequence[int], pieces_NW: Tensor, chunks: int, trimming: Trimming | None
) -> Tensor:
    """Updates whose extremes were replaced by the values next to them, float32 (N, W).

    Args:
        sites: Whose each update is, B of them.
        pieces_NW: Every update in pieces, N = B * chunks; of one site they vote by their mean.
        chunks: Pieces of an update.
        trimming: What is extreme; None: nothing.
    """
    if trimming is None:
        return pieces_NW
    cut = trimming.cut(len(set(sites)))
    if not cut:
        return pieces_NW
    pieces_BCW = pieces_NW.unflatten(0, (len(sites), chunks))
    count_B = torch.tensor([1 / sites.count(site) for site in sites], device=pieces_NW.device)
    ordered_SCW = _by_site(sites, count_B[:, None, None] * pieces_BCW).sort(dim=0).values
    return pieces_BCW.clamp(ordered_SCW[cut], ordered_SCW[-1 - cut]).flatten(0, 1)


def _by_site(sites: Sequence[int], terms_BW: Tensor) -> Tensor:
    """Terms of every site added up, in the order of the sites, (S, ...)."""
    unique = sorted(set(sites))
    if len(unique) == len(sites):
        return terms_BW
    place = {site: i for i, site in enumerate(unique)}
    rows = torch.tensor([place[site] for site in sites], device=terms_BW.device)
    sums = torch.zeros(len(unique), *terms_BW.shape[1:], device=terms_BW.device)
    return sums.index_add_(0, rows, terms_BW)
