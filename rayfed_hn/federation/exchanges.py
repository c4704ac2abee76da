"""What the server sent a site and what came back: all that an honest but curious server sees.

Kept, it is what an audit attacks. It is as confidential as the updates themselves are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.loop import Around, Executor
from rayfed_hn.federation.messages import Event, Refused, Request, SiteLost, TrainRequest, Update
from rayfed_hn.files import write_atomically
from rayfed_hn.saving import saving

MOST_BYTES = 64 * 2**30  # in one run directory
FOLDER = "messages"  # within it


@dataclass(frozen=True, eq=False)
class Exchange:
    """A request for training and the update that answered it.

    Attributes:
        site: Who was asked.
        version, turn: Of the request.
        received: The network that was sent, float32 (P,).
        update: u = received - released, as it came, float32 (P,).
        num_steps: Local gradient steps, as the site says.
    """

    site: str
    version: int
    turn: int
    received: np.ndarray
    update: np.ndarray
    num_steps: int

    @property
    def released(self) -> np.ndarray:
        """The site's network as the server knows it, float32 (P,)."""
        return self.received - self.update


class Overheard(Around):
    """Wraps an executor, and tells of every exchange; what is sent and received stays as it is.

    Args:
        inner: Moves the messages.
        tell: Called with every exchange, whose vectors are copies.
    """

    def __init__(self, inner: Executor, tell: Callable[[Exchange], object]) -> None:
        super().__init__(inner)
        self._tell = tell
        self._asked: dict[tuple[str, int], np.ndarray] = {}

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if isinstance(request, TrainRequest):
                self._asked[request.site, request.turn] = request.parameters
        super().submit(requests)

    def next_event(self) -> Event:
        event = super().next_event()
        if isinstance(event, Update | Refused | SiteLost):
            received = self._asked.pop((event.site, event.turn), None)
            if received is not None and isinstance(event, Update):
                vectors = np.array(received), np.array(event.update)
                about = event.site, event.version, event.turn
                self._tell(Exchange(*about, *vectors, event.num_steps))
        return event


class ExchangeFiles:
    """Exchanges as safetensors files: ``<site>/turn-<turn>-<content>.safetensors``.

    Args:
        folder: Where; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, exchange: Exchange) -> None:
        """Keep an exchange.

        One that is made again, in a run that goes on, is another one if its noise is: the server
        has then seen both, and both are kept.
        """
        with saving(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tensors = {"received": exchange.received, "update": exchange.update}
        about = {name: str(getattr(exchange, name)) for name in ("version", "num_steps")}
        content = hashlib.sha256(exchange.received.tobytes() + exchange.update.tobytes())
        name = f"turn-{exchange.turn:06}-{content.hexdigest()[:16]}.safetensors"
        path = self._folder / exchange.site / name
        with saving(path):
            write_atomically(path, lambda made: save_file(tensors, made, metadata=about))

    def of(self, site: str) -> list[Path]:
        """What is kept of a site, by turn."""
        return sorted((self._folder / site).glob("turn-*.safetensors"))

    def read(self, path: Path) -> Exchange:
        """One of what ``of`` has found.

        Raises:
            DataError: The file is damaged.
        """
        try:
            turn = int(path.stem.split("-")[1])
            with safe_open(path, framework="np") as file:
                about = {name: int(text) for name, text in file.metadata().items()}
                vectors = file.get_tensor("received"), file.get_tensor("update")
            return Exchange(path.parent.name, about["version"], turn, *vectors, about["num_steps"])
        except (
            SafetensorError,
            OSError,
            KeyError,
            ValueError,
            IndexError,
            AttributeError,
        ) as error:
            raise DataError(
                f"{path} cannot be read as a kept message ({error}); delete the folder "
                f"{self._folder.name}, and audit will make the run again"
            ) from None

    def sites(self) -> list[str]:
        """Of whom something is kept."""
        return sorted(path.name for path in self._folder.glob("*") if path.is_dir())


def kept_bytes(num_parameters: int, num_exchanges: int) -> int:
    """What ``run.keep_messages`` takes on disk."""
    return 2 * 4 * num_parameters * num_exchanges


def check_kept(num_parameters: int, num_exchanges: int) -> None:
    """Refuse to fill a disk.

    Raises:
        ConfigError: Messages would take more than ``MOST_BYTES``.
    """
    needed = kept_bytes(num_parameters, num_exchanges)
    if needed > MOST_BYTES:
        raise ConfigError(
            f"run.keep_messages: {num_exchanges:,} networks and updates of {num_parameters:,} "
            f"parameters would take {needed / 2**30:.0f} GiB, at most {MOST_BYTES / 2**30:.0f} GiB "
            "are kept; audit a run with fewer versions or sites"
        )
