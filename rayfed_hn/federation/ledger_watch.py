"""What sites have said of their privacy ledgers, so that one that went back is seen.

A ledger only grows: who answers a later request has charged more than before. A site whose ledger
was replaced by an older one, or taken away, promises more than it keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rayfed_hn.federation.messages import Update


@dataclass(frozen=True)
class Charged:
    """What a site had charged in this run when it answered a request, as it says."""

    turn: int
    releases: int
    epsilon: float | None


class LedgerWatch:
    """Remembers the newest word of every site.

    Args:
        known: From ``about``, of a run that goes on.
        back: Likewise: ledgers that have gone back.
    """

    def __init__(
        self, known: Mapping[str, Mapping[str, Any]] | None = None, back: Sequence[Any] = ()
    ) -> None:
        self._known = {site: Charged(**one) for site, one in (known or {}).items()}
        self._back: list[Any] = list(back)

    def see(self, updates: Sequence[Update]) -> None:
        """Take what updates say."""
        for update in sorted(updates, key=lambda one: one.turn):
            before = self._known.get(update.site)
            if before is not None and update.turn <= before.turn:
                continue
            if before is not None and update.releases <= before.releases > 0:
                numbers = {"before": before.releases, "after": update.releases}
                self._back.append({"site": update.site, "turn": update.turn, **numbers})
            if before is not None or update.releases:
                charged = Charged(update.turn, update.releases, update.epsilon)
                self._known[update.site] = charged

    @property
    def about(self) -> dict[str, Any]:
        """Ready for JSON."""
        ledgers = {site: asdict(one) for site, one in sorted(self._known.items())}
        return {"ledgers": ledgers, "ledgers_back": list(self._back)}
