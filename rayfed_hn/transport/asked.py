"""What a site was asked in a run, on its own disk: what it tells is bounded, whoever asks."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np

from rayfed_hn.config import Config
from rayfed_hn.errors import MessageError
from rayfed_hn.federation.json_lines import JsonLines
from rayfed_hn.federation.messages import CandidatesRequest, Request, TrainRequest
from rayfed_hn.federation.schedule import kept_turns, most_turns, turns_between

FILE = "asked.jsonl"
_WHY = (
    "no server needs more, unless it has lost the same versions more than once; ask whoever runs "
    "it, and begin a new run if that is so"
)


class Asked:
    """Networks that a site was sent. With every one it tells a loss, a metric and an update.

    A question that is repeated is let through as long as its answer is kept; later it counts anew,
    as noise may be drawn anew for it.

    Args:
        folder: The site's run directory.
        config: Of the run.

    Raises:
        DataError: The file is damaged.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self._file = JsonLines(folder / FILE)
        self._most, self._most_networks = most_turns(config), turns_between(config)
        # While a robust rule waits for others, a fast site may be asked any number of times.
        rounds = config.rounds
        self._any_number = rounds.buffer_size is not None and rounds.robust != "none"
        self._kept = kept_turns(config)
        self._turns: list[tuple[int, int, str]] = []
        self._networks: defaultdict[int, set[str]] = defaultdict(set)
        self._candidates: set[str] = set()
        for record in self._file.read():
            self._note(**record)

    def check(self, request: Request) -> None:
        """Write a request down before it is answered.

        Raises:
            MessageError: It is one too many.
            StorageError: It cannot be written down.
        """
        if isinstance(request, TrainRequest):
            if self._any_number:
                return
            self._check_turn(request.version, request.turn, _digest(request.parameters))
        elif isinstance(request, CandidatesRequest):
            self._check_candidates(_digest(request.parameters, *request.shared_SP))

    def _check_turn(self, version: int, turn: int, network: str) -> None:
        if (version, turn, network) in self._turns[-self._kept :]:
            return
        networks = self._networks[version] | {network}
        if len(networks) > self._most_networks:
            raise MessageError(
                f"asked to train {len(networks)} different networks for version {version}; {_WHY}"
            )
        if len(self._turns) >= self._most:
            raise MessageError(f"asked to train {self._most + 1} times in one run; {_WHY}")
        self._write({"version": version, "turn": turn, "network": network})

    def _check_candidates(self, candidates: str) -> None:
        if candidates in self._candidates:
            return
        if len(self._candidates) >= 2:
            raise MessageError(f"asked to judge candidates for the third time; {_WHY}")
        self._write({"candidates": candidates})

    def _write(self, record: dict[str, int | str]) -> None:
        self._file.append([record])
        self._note(**record)  # type: ignore[arg-type]

    def _note(
        self, version: int = 0, turn: int = 0, network: str = "", candidates: str = ""
    ) -> None:
        if candidates:
            self._candidates.add(candidates)
        else:
            self._turns.append((version, turn, network))
            self._networks[version].add(network)


def _digest(*networks: np.ndarray) -> str:
    hasher = hashlib.sha256()
    for network in networks:
        hasher.update(np.ascontiguousarray(network).data)
    return hasher.hexdigest()
