"""Updates that wait for the next version."""

from __future__ import annotations

from collections.abc import Mapping

from rayfed_hn.federation.messages import Refused, Update
from rayfed_hn.federation.rules.base import Contribution
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.screening import Screen, bounded, norm
from rayfed_hn.federation.versions import Asked, Waiting


class Buffer:
    """Updates as they came; what is made of them does not depend on the order.

    Args:
        number: Place of every site in the order of sites.
        schedule: What staleness and arrival count for.
    """

    def __init__(self, number: Mapping[str, int], schedule: Schedule) -> None:
        self._number, self._schedule = number, schedule
        self._waiting: list[Waiting] = []
        self._norms: list[float] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def sites(self) -> set[str]:
        """Whose updates are here."""
        return {waiting.update.site for waiting in self._waiting}

    @property
    def updates(self) -> tuple[Update, ...]:
        """In site order, and in the order in which a site was asked, once they were judged."""
        return tuple(waiting.update for waiting in self._waiting)

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Site and turn of every update."""
        return [(update.site, update.turn) for update in self.updates]

    def add(self, update: Update, asked: Asked) -> None:
        """Take an update that answers a request."""
        self._waiting.append(Waiting(update, asked))

    def clear(self) -> None:
        """Begin the next version."""
        self._waiting, self._norms = [], []

    def judge(self, screen: Screen) -> list[Refused]:
        """Drop what is not to be taken; returns why.

        All of it together, so that the order in which updates came changes no verdict.
        """
        self._waiting.sort(key=lambda w: (self._number[w.update.site], w.update.turn))
        norms = [norm(update.update) for update in self.updates]
        refused = screen.judge(self.updates, norms)
        out = {(one.site, one.turn) for one in refused}
        fine = [key not in out for key in self.keys]
        self._waiting = [w for w, taken in zip(self._waiting, fine, strict=True) if taken]
        self._norms = [n for n, taken in zip(norms, fine, strict=True) if taken]
        return refused

    def remember(self, screen: Screen) -> None:
        """Let the screen know what has gone into a version."""
        for update, length in zip(self.updates, self._norms, strict=True):
            screen.take(update.site, length)

    def contributions(self, version: int, so_far: int, present: int) -> list[Contribution]:
        """What a rule is told of the updates that were judged.

        Args:
            version: Made so far.
            so_far: Updates that came in from all sites since the start.
            present: Sites that are there.
        """
        weights = self._weights(so_far, present)
        bound = self._schedule.config.robust == "norm_bound"
        scales = bounded(self._norms) if bound else [1.0] * len(self._norms)
        return [
            Contribution(
                self._number[update.site],
                update.update,
                self._schedule.discount(version - update.version),
                weights[update.site],
                update.turn,
                scale,
            )
            for update, scale in zip(self.updates, scales, strict=True)
        ]

    def _weights(self, so_far: int, present: int) -> dict[str, float]:
        """Inverse arrival rate of every site that has updates in the version."""
        asked_at: dict[str, list[int]] = {}
        for waiting in self._waiting:
            asked_at.setdefault(waiting.update.site, []).append(waiting.asked.num_updates)
        return {
            site: self._schedule.weight(so_far - min(moments), len(moments), present)
            for site, moments in asked_at.items()
        }
