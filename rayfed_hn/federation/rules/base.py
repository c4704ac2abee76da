"""What every rule offers, and what it is given.

A rule is explicit state and a few functions over it. It knows nothing of versions, clocks, lost
sites or transport. Updates are u_i = theta_i - theta'_i; sums run in site order, so that arrival
order cannot change a bit of the result.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.errors import DataError


@dataclass(frozen=True, eq=False)
class Contribution:
    """One update as a rule sees it.

    Attributes:
        site: The site's number, in the order of the names.
        update: float32 (P,).
        discount: s(tau) = (1 + tau)^-a for an update that is tau versions late; 1 for a fresh one.
        weight: Inverse arrival rate of the site, 1 where all sites are equally fast.
        turn: How many requests the site had before the one that this answers.
        scale: What the update is multiplied with before anything else.
    """

    site: int
    update: np.ndarray
    discount: float = 1.0
    weight: float = 1.0
    turn: int = 0
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class SiteEmbeddings:
    """The vectors from which a rule makes the networks of sites.

    Attributes:
        rows_KE: A row for every site, float64 (K, E).
        learned: Whether training moves them; others say nothing about the sites.
        by_chance: Whether they began as random draws of which some were closer than others. Then
            some networks may be alike for no other reason.
    """

    rows_KE: np.ndarray
    learned: bool
    by_chance: bool


@dataclass(frozen=True, eq=False)
class Generator:
    """A frozen hypernetwork, which makes the network of a site that it has never seen.

    Attributes:
        start_V: Mean of the sites' embeddings, float32 (V,).
        make: From an embedding (V,) to a network (P,), differentiable.
    """

    start_V: Tensor
    make: Callable[[Tensor], Tensor]


class Rule(ABC):
    """What every method offers. Sites are numbered in the order of their names.

    Attributes:
        gate: Share of a site's personal part in the networks that are evaluated.
    """

    gate = 1.0

    @property
    @abstractmethod
    def size(self) -> int:
        """P."""

    @abstractmethod
    def networks(self, sites: Sequence[int]) -> list[np.ndarray]:
        """The networks that sites receive now, each float32 (P,), not to be written to.

        What is the same for all is the same array.
        """

    def parameters_for(self, site: int) -> np.ndarray:
        """The network that a site receives now, float32 (P,)."""
        return self.networks([site])[0]

    def evaluated(self, sites: Sequence[int]) -> list[np.ndarray]:
        """The networks that sites are evaluated with, each float32 (P,).

        With a gate below 1 they lie between what all share and what is the site's own.
        """
        networks, shared = self.networks(sites), None if self.gate == 1 else self.shared()
        if shared is None:
            return networks
        return [shared + np.float32(self.gate) * (own - shared) for own in networks]

    @abstractmethod
    def shared(self) -> np.ndarray | None:
        """What is common to the networks of all sites now, float32 (P,); None if nothing is."""

    def site_embeddings(self) -> SiteEmbeddings | None:
        """The embeddings of all sites now; None where networks are made without any."""
        return None

    def generator(self) -> Generator | None:
        """What makes networks from embeddings; None where nothing does."""
        return None

    @abstractmethod
    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        """Make the next version.

        Args:
            contributions: In site order; of one site in the order in which it was asked.
            complete: Whether this is one fresh update from every site that is there.
            among: How many sites share what these updates change: those of the cohort where a
                version waits for it, all where nobody waits.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that the next version depends on."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state()``. Raises ``DataError`` if it is another federation's."""


def stack(contributions: Sequence[Contribution]) -> tuple[list[int], Tensor]:
    """The sites' numbers and their updates, float64 (B, P)."""
    updates = np.stack([c.scale * c.update.astype(np.float64) for c in contributions])
    return [c.site for c in contributions], torch.from_numpy(updates)


def factors(contributions: Sequence[Contribution]) -> Tensor:
    """Discount times weight of each contribution, float64 (B, 1)."""
    values = [[c.discount * c.weight] for c in contributions]
    return torch.tensor(values, dtype=torch.float64)


def same_shape(state: Mapping[str, Tensor], name: str, own: Tensor) -> Tensor:
    """A tensor of a checkpoint, if it is what this rule needs."""
    loaded = state.get(name)
    if loaded is None or loaded.shape != own.shape or loaded.dtype != own.dtype:
        got = "nothing" if loaded is None else f"{loaded.dtype} {tuple(loaded.shape)}"
        raise DataError(
            f"checkpoint: '{name}' should be {own.dtype} {tuple(own.shape)}, found {got}; it "
            "belongs to a run with other sites, bags or model settings"
        )
    return loaded
