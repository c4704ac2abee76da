"""What the server knows of a version, of a request, and of an update that waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rayfed_hn.federation.messages import Refused, TrainRequest, Update


@dataclass(frozen=True)
class VersionReport:
    """A version was made.

    Attributes:
        version: Its number; version 0 is the start.
        updates: Those it was made from, in site order. Their validation figures are of the network
            that the sites had received.
        staleness: Of every update: versions made since its site was asked.
        num_alive: Sites still in the federation.
        num_refused: Updates dropped for their age since the version before.
        refused: Updates that were judged and not taken since the version before.
        time: Seconds since the start by the executor's clock; the server has none.
    """

    version: int
    updates: tuple[Update, ...]
    staleness: tuple[int, ...]
    num_alive: int
    num_refused: int = 0
    refused: tuple[Refused, ...] = ()
    time: float = 0.0

    @property
    def mean_validation_metric(self) -> float | None:
        """Mean over the updates where it is defined; None where it is nowhere."""
        return _mean([update.validation_metric for update in self.updates])

    @property
    def mean_signal_to_noise(self) -> float | None:
        """Likewise."""
        return _mean([update.signal_to_noise for update in self.updates])


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class Asked:
    """A request that was not answered yet.

    Attributes:
        version: Whose network the site was sent.
        turn: How many requests the site had before.
        num_updates: Updates that had come in from all sites.
    """

    version: int
    turn: int
    num_updates: int


@dataclass(frozen=True, eq=False)
class InFlight:
    """A request that was not answered yet, with the network that was sent.

    Attributes:
        site: Who was asked.
        asked: For what.
        network: float32 (P,).
    """

    site: str
    asked: Asked
    network: np.ndarray

    @property
    def request(self) -> TrainRequest:
        """The request as it was sent."""
        return TrainRequest(self.site, self.asked.version, self.network, self.asked.turn)


@dataclass(frozen=True)
class Waiting:
    """An update in the buffer.

    Attributes:
        update: As it came.
        asked: The request that it answers.
    """

    update: Update
    asked: Asked
