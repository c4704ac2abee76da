"""What carries frames between the server and its sites, as the server sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rayfed_hn.transport.frames import Frame


@dataclass(frozen=True)
class Opened:
    """A site has a stream, by its certificate."""

    site: str


@dataclass(frozen=True)
class Received:
    """A frame came on it."""

    site: str
    frame: Frame


@dataclass(frozen=True)
class Closed:
    """It is gone.

    Attributes:
        site: Whose it was.
        fault: What the site sent that makes no sense; None where it only went away.
    """

    site: str
    fault: str | None = None


Arrival = Opened | Received | Closed


class Transport(Protocol):
    """Streams of sites, at most one each: a newer one takes the place of an older.

    Arrivals of a site are in order: opened, what was received, closed; then opened again. Nothing
    comes of a stream after it was closed. What is sent goes to the stream that ``next`` has told
    of, and to no newer one: nobody has been greeted there. Whose a stream is says the certificate,
    and no byte.
    """

    def next(self, timeout: float | None) -> Arrival | None:
        """Wait for whatever happens next; None once so many seconds are over."""
        ...

    def send(self, site: str, frame: Frame) -> None:
        """Send a frame, without waiting; nothing happens where there is no stream."""
        ...

    def close(self, site: str) -> None:
        """Close a site's stream after what was sent; ``Closed`` follows."""
        ...

    def admit(self, site: str) -> None:
        """Let a site's stream send more than greetings."""
        ...

    def allow(self, num_bytes: int) -> None:
        """Say how long a frame of a site that was admitted may be from now on."""
        ...
