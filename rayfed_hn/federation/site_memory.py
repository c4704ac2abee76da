"""What a site remembers from one turn to the next, on its own ground.

Most methods leave nothing behind; a private classifier, an optimiser that goes on, and the averages
of the mixture readout do. Kept per turn, so that a run that goes on from an older version finds
what the site knew then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rayfed_hn.errors import DataError
from rayfed_hn.files import write_atomically
from rayfed_hn.saving import saving


class SiteMemory:
    """Named tensors after each turn.

    Args:
        folder: Where to keep them; None keeps them in memory only.
        kept_turns: Turns that are kept: more than a site can have since the oldest commit that
            the server may go back to.
    """

    def __init__(self, folder: Path | None, kept_turns: int = 3) -> None:
        self._folder = folder
        self._kept_turns = kept_turns
        self._recent: dict[int, dict[str, Tensor]] = {}  # the last two turns

    def before(self, turn: int) -> Mapping[str, Tensor]:
        """What was known before a turn; empty at the first.

        Raises:
            DataError: The file of that time is damaged or gone.
        """
        known = [other for other in self._recent if other < turn]
        if known:
            return self._recent[max(known)]
        return self._load(turn)

    def after(self, turn: int, tensors: Mapping[str, Tensor]) -> None:
        """Remember what is known after a turn."""
        before = [other for other in self._recent if other < turn]
        last = {other: self._recent[other] for other in before[-1:]}
        self._recent = {**last, turn: dict(tensors)}
        if self._folder is None or not tensors:
            return
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with saving(self._file(turn)):
            write_atomically(self._file(turn), lambda path: save_file(contiguous, path))
        turns = sorted(self._turns())
        # Turns after this one were of a run that stopped and goes on from here. Turns that were
        # lost on the way left nothing behind, and do not count.
        kept = [other for other in turns if other <= turn][-self._kept_turns :]
        for other in set(turns).difference(kept):
            self._file(other).unlink(missing_ok=True)

    def _load(self, turn: int) -> dict[str, Tensor]:
        turns = self._turns()
        earlier = [known for known in turns if known < turn]
        if turns and not earlier and turn > 0:
            raise DataError(f"what a site knew before its turn {turn} is not kept any more")
        if not earlier:
            return {}
        try:
            return load_file(self._file(max(earlier)))
        except (SafetensorError, OSError) as error:
            raise DataError(f"the memory of a site is damaged ({error})") from error

    def _turns(self) -> list[int]:
        if self._folder is None:
            return []
        found = []
        for path in self._folder.glob("memory-*.safetensors"):
            with contextlib.suppress(ValueError):
                found.append(int(path.stem.removeprefix("memory-")))
        return found

    def _file(self, turn: int) -> Path:
        assert self._folder is not None
        return self._folder / f"memory-{turn}.safetensors"
