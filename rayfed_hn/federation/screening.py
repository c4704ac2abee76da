"""Every update is judged before it is taken: what a server remembers of updates, and refuses.

That bytes are an update at all, of the right shape and type and finite, is found where they are
read (``messages.Update.from_bytes``). Here it is asked whether its norm is within reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.config import FEWEST_VOTES, RoundsConfig
from rayfed_hn.errors import DataError
from rayfed_hn.federation.messages import Refused, SiteLost, Update
from rayfed_hn.federation.rules.base import same_shape

RECENT = 5  # norms of a site that are its own history
ABSURD = 1e18  # root mean square of what parameters change by; float32 holds its square
BLOCK = 16_384  # values whose squares are added at a time: they stay in a core's cache


class Screen:
    """Judges norms, and counts who is refused.

    A norm is refused beyond

        factor * sqrt(work) * min(max(own, usual), factor * usual)

    ``own`` is the median of the site's last norms that were taken, or the very last one if that is
    larger: strong noise makes norms grow with every version. ``usual`` is the median over sites of
    the last norm that each sent, taken or not: a minority cannot move it, and all may move
    together. Work is a site's steps over those of most, if it has more. Where fewer than three
    sites were seen, nobody knows what is usual, and ``factor * own`` is the limit. Medians are the
    lower ones, and norms of 0 tell nothing. Absurd numbers are refused from anybody.

    Verdicts depend on versions and the updates of this one, not on the order in which these came.

    Args:
        sites: Their names, in order.
        config: ``rounds``.
        steps: Of every site per version, where they differ.

    Attributes:
        refused: All that was refused since the start, in the order in which it happened.
    """

    def __init__(
        self, sites: Sequence[str], config: RoundsConfig, steps: Mapping[str, int] | None = None
    ) -> None:
        self._number = {site: i for i, site in enumerate(sites)}
        self._factor, self._most = config.norm_factor, config.max_refusals
        work_K = np.array([1.0 if steps is None else steps[site] for site in sites])
        self._work_K = np.sqrt(np.maximum(1.0, work_K / np.median(work_K)))
        self._taken_KR = np.zeros((len(sites), RECENT))  # the latest first; 0: none
        self._last_K = np.zeros(len(sites))
        self._row_K = np.zeros(len(sites), np.int64)  # refusals in a row
        self.refused: list[Refused] = []
        self._reported = 0

    def judge(self, updates: Sequence[Update], norms: Sequence[float]) -> list[Refused]:
        """Those that should not be taken.

        Args:
            updates: All that would make a version; of one site in the order in which it was asked.
            norms: Of each.
        """
        if self._factor is None:
            return []
        for update, norm in zip(updates, norms, strict=True):
            if norm > 0:
                self._last_K[self._number[update.site]] = norm
        usual = _middle(self._last_K, FEWEST_VOTES)
        return [
            Refused(update.site, update.version, update.turn, why)
            for update, norm in zip(updates, norms, strict=True)
            if (why := self._verdict(update, norm, usual))
        ]

    def _verdict(self, update: Update, norm: float, usual: float) -> str:
        number = self._number[update.site]
        own = max(_middle(self._taken_KR[number], 1), float(self._taken_KR[number, 0]))
        factor = self._factor or math.inf
        limit = factor * (min(max(own, usual), factor * usual) if usual else own)
        limit = limit * float(self._work_K[number]) or math.inf  # of who is the first, all goes
        limit = min(limit, ABSURD * math.sqrt(update.update.size))
        if norm <= limit:
            return ""
        known = f"its own {own:.3g}, " if own else ""
        known += f"usual {usual:.3g}, " if usual else ""
        return f"norm {norm:.3g}, {known}at most {limit:.3g}"

    def take(self, site: str, norm: float) -> None:
        """An update went into a version."""
        number = self._number[site]
        self._row_K[number] = 0
        if norm > 0:
            self._taken_KR[number] = [norm, *self._taken_KR[number, :-1]]

    def refuse(self, refused: Refused) -> SiteLost | None:
        """Count a refusal; returns the loss of a site that has had too many in a row."""
        number = self._number[refused.site]
        self.refused.append(refused)
        self._row_K[number] += 1
        if self._row_K[number] < self._most:
            return None
        self._row_K[number] = 0  # who is asked again after all begins anew
        times = "its update was" if self._most == 1 else f"{self._most} updates in a row were"
        reason = f"{times} refused, the last one: {refused.reason}"
        return SiteLost(refused.site, refused.version, reason, refused.turn)

    def num_refused(self, site: str) -> int:
        """Updates of a site that were refused since the start."""
        return sum(refused.site == site for refused in self.refused)

    def news(self) -> tuple[Refused, ...]:
        """What was refused since the last call."""
        begun, self._reported = self._reported, len(self.refused)
        return tuple(self.refused[begun:])

    def state(self) -> dict[str, Tensor]:
        """All that later verdicts depend on, and what was refused."""
        listed = json.dumps([asdict(refused) for refused in self.refused]).encode()
        return {
            "screen.taken": torch.from_numpy(self._taken_KR.copy()),
            "screen.last": torch.from_numpy(self._last_K.copy()),
            "screen.row": torch.from_numpy(self._row_K.copy()),
            "screen.refused": torch.from_numpy(np.frombuffer(listed, np.uint8).copy()),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a ``state()``. Raises ``DataError`` if it is another federation's."""
        own = self.state()
        self._taken_KR, self._last_K, self._row_K = (
            same_shape(state, name, own[name]).numpy().copy()
            for name in ("screen.taken", "screen.last", "screen.row")
        )
        try:
            listed = json.loads(state["screen.refused"].numpy().tobytes())
            self.refused = [Refused(**refused) for refused in listed]
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"checkpoint: 'screen.refused' cannot be read ({type(error).__name__})"
            ) from None
        self._reported = len(self.refused)


def _middle(norms: np.ndarray, fewest: int) -> float:
    """The lower median of what is known; 0 of fewer values than that."""
    known = np.sort(norms[norms > 0])
    return float(known[(len(known) - 1) // 2]) if len(known) >= fewest else 0.0


def norm(vector: np.ndarray) -> float:
    """Euclidean norm of a float32 vector, good to six digits.

    Blocks go through one buffer, so that it does not depend on where the vector lies; in single
    precision, which is seven times faster, unless that overflows (1e30) or vanishes.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        total = _squares(vector, np.empty(BLOCK, np.float32))
    if not 0 < total < math.inf:
        total = _squares(vector, np.empty(BLOCK))
    return math.sqrt(total)


def _squares(vector: np.ndarray, buffer: np.ndarray) -> float:
    total = 0.0
    for start in range(0, vector.size, BLOCK):
        block = buffer[: min(BLOCK, vector.size - start)]
        np.copyto(block, vector[start : start + BLOCK])
        total += float(block @ block)
    return total


def bounded(norms: Sequence[float]) -> list[float]:
    """What every vector is multiplied with so that none is longer than the (lower) median.

    Vectors of length 0 are not counted: sites that learned nothing stop no others.
    """
    usual = _middle(np.array(norms), 1)
    return [1.0 if norm <= usual else usual / norm for norm in norms]
