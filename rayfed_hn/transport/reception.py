"""Admits sites to a run: what they say of themselves must fit what is known of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rayfed_hn.errors import DataError, FederationError, MessageError
from rayfed_hn.federation.cards import SiteCard
from rayfed_hn.federation.wire import Message
from rayfed_hn.files import write_atomically
from rayfed_hn.saving import saving
from rayfed_hn.transport.frames import Ending, Frame, Kind, end, read_end
from rayfed_hn.transport.greetings import Hello, Welcome, program
from rayfed_hn.transport.links import Arrival, Closed, Opened, Received, Transport

TELL_SECONDS = 30.0  # between two lines about who is missing
ENDING_WORDS = {
    Ending.FINISHED: "has ended by itself",
    Ending.FAILED: "has failed",
    Ending.OTHER_SETTINGS: "does not agree to the settings of this run (its console says which)",
    Ending.OTHER_RUN: "holds another run in its run.dir",
}


@dataclass(frozen=True)
class Here:
    """A site was admitted; ``life`` tells one process of it from the next."""

    site: str
    life: int


@dataclass(frozen=True)
class Gone:
    """A site that was admitted has no stream any more."""

    site: str
    fault: str | None = None


@dataclass(frozen=True)
class Answered:
    """A site's answer to the request of this number."""

    site: str
    number: int
    message: Message


News = Here | Gone | Answered


class CardFolder:
    """The cards of a run's sites, kept so that it can go on before all are back.

    Args:
        folder: ``cards`` in the run directory.
        classes: Names of the task.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder, self._classes = folder, classes

    def write(self, site: str, hello: Hello) -> None:
        path, message = self._folder / f"{site}.card", hello.to_bytes(self._classes)
        with saving(path):
            write_atomically(path, lambda temporary: temporary.write_bytes(message))

    def read(self, sites: Sequence[str]) -> dict[str, SiteCard]:
        """Those that are kept of some sites.

        Raises:
            DataError: One is damaged.
        """
        found: dict[str, SiteCard] = {}
        for site in sites:
            path = self._folder / f"{site}.card"
            if path.exists():
                try:
                    found[site] = Hello.from_bytes(path.read_bytes(), site, self._classes).card
                except (OSError, MessageError) as error:
                    raise DataError(
                        f"{path} is damaged ({error}); delete it, and the run waits for {site}"
                    ) from error
        return found


class Reception:
    """Between the streams and whoever asks the sites.

    Args:
        transport: The streams.
        sites: Who may take part.
        welcome: What sites are told.
        classes: Names of the task.
        cards: Where the cards are kept.
        tell: Called with what the operator should know, in a line.

    Attributes:
        cards: Of the sites that were ever admitted; one that is not kept yet may be replaced.
        present: Who is here now, and the life of its process.
    """

    def __init__(
        self,
        transport: Transport,
        sites: Sequence[str],
        welcome: Welcome,
        classes: Sequence[str],
        kept: CardFolder,
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._transport, self._sites, self._welcome = transport, tuple(sites), welcome
        self._classes, self._kept, self._tell = tuple(classes), kept, tell
        self.cards = kept.read(self._sites)
        self._not_kept: dict[str, Hello] = {}  # greetings that brought a card
        self.present: dict[str, int] = {}
        self._waiting: dict[str, Hello] = {}  # welcomed, and not ready yet
        self._begun: set[str] = set()
        self._dismissed: dict[str, Ending] = {}
        self._connected: set[str] = set()
        self._unaware: set[str] = set()  # without a stream when all was over

    def gather(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Wait until every site has given its card.

        Raises:
            FederationError: Some have not within so many seconds.
        """
        begun = told = clock()
        while missing := [site for site in self._sites if site not in self.cards]:
            now = clock()
            if now - begun >= seconds:
                raise FederationError(
                    f"{', '.join(missing)} did not join within {seconds:g} s "
                    "(resources.node_limit); is 'rayfed-hn join' running there?"
                )
            if now - told >= TELL_SECONDS:
                told = now
                self._tell(f"waiting for {', '.join(missing)} to join")
            self.next(min(begun + seconds, told + TELL_SECONDS) - now)

    def keep(self) -> None:
        """A run was made of these cards, and goes on with no others."""
        for site, hello in self._not_kept.items():
            self._kept.write(site, hello)
        self._not_kept.clear()

    def begin(self, sites: Sequence[str]) -> None:
        """From here on these sites know something that a new process of theirs must know too."""
        self._begun |= set(sites)

    def next(self, timeout: float | None) -> News | None:
        """What happens next to a site that is admitted, if anything does."""
        arrival = self._transport.next(timeout)
        return None if arrival is None else self._look_at(arrival)

    def send(self, site: str, frame: Frame) -> None:
        """Send a frame to a site that is here."""
        if site in self.present:
            self._transport.send(site, frame)

    def drop(self, site: str) -> None:
        """Close a site's stream; it may open another."""
        self._transport.close(site)

    def dismiss(self, site: str, why: Ending) -> None:
        """Tell a site, now or whenever it comes, that no more is asked of it."""
        self._dismissed[site] = why
        self._turn_away(site, why)

    def close(self, why: Ending) -> None:
        """Tell all sites that this was it, now or when they come."""
        self._unaware = set(self._sites) - self._connected
        for site in self._sites:
            self._dismissed.setdefault(site, why)
            self._transport.send(site, end(self._dismissed[site]))
            self._transport.close(site)

    def linger(
        self, sites: Iterable[str], seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Wait for those of some sites that had no stream when all was over, to tell them so."""
        sites, until = set(sites), clock() + seconds
        if missing := sorted(sites & self._unaware):
            self._tell(f"waiting {seconds:g} s for {', '.join(missing)}, to say that this was it")
        while sites & self._unaware and (left := until - clock()) > 0:
            arrival = self._transport.next(left)
            if arrival is None:
                return
            self._look_at(arrival)

    def _look_at(self, arrival: Arrival) -> News | None:
        site = arrival.site
        if isinstance(arrival, Opened):
            self._connected.add(site)
            return None  # it has to say who it is first
        if isinstance(arrival, Closed):
            self._waiting.pop(site, None)
            self._connected.discard(site)
            if arrival.fault is not None:
                self._tell(f"{site} sent what makes no sense: {arrival.fault}")
            here = self.present.pop(site, None) is not None
            if here:
                self._tell(f"{site} is gone")
            return Gone(site, arrival.fault) if here else None
        return self._hear(site, arrival)

    def _hear(self, site: str, arrival: Received) -> News | None:
        frame = arrival.frame
        try:
            if frame.kind is Kind.END:
                self._tell(f"{site} {ENDING_WORDS.get(read_end(frame), 'left')}")
                self._transport.close(site)
                return None
            if site in self.present:
                return self._heard(site, frame)
            if frame.kind is Kind.HELLO:
                return self._greet(site, Hello.from_bytes(frame.payload, site, self._classes))
            if frame.kind is Kind.READY and site in self._waiting:
                return self._admit(site, self._waiting.pop(site))
            raise MessageError(f"a frame of kind {frame.kind.name} before it was admitted")
        except MessageError as error:
            self._tell(f"{site} was turned away: {error}")
            self._turn_away(site, Ending.NOT_UNDERSTOOD)
            return None

    def _heard(self, site: str, frame: Frame) -> News:
        if frame.kind is not Kind.ANSWER:
            raise MessageError(f"a frame of kind {frame.kind.name} in place of an answer")
        return Answered(site, frame.number, frame.payload)

    def _greet(self, site: str, hello: Hello) -> None:
        why = self._dismissed.get(site, self._misfit(site, hello))
        if why is not None:
            self._tell(f"{site} was turned away: {why.name.lower().replace('_', ' ')}")
            self._turn_away(site, why)
            return
        self._waiting[site] = hello
        self._transport.send(site, Frame(Kind.WELCOME, self._welcome.to_bytes()))

    def _misfit(self, site: str, hello: Hello) -> Ending | None:
        if hello.run not in ("", self._welcome.run):
            return Ending.OTHER_RUN
        if site in self._begun and not hello.run:
            return Ending.FORGOTTEN
        known = None if site in self._not_kept else self.cards.get(site)
        return Ending.OTHER_BAGS if known is not None and known != hello.card else None

    def _admit(self, site: str, hello: Hello) -> Here:
        if self.cards.get(site) != hello.card:
            self.cards[site], self._not_kept[site] = hello.card, hello
        if hello.code != program():
            self._tell(f"note: {site} runs another version of the program; bits may differ")
        self._transport.admit(site)
        self.present[site] = hello.life
        self._tell(f"{site} is here")
        return Here(site, hello.life)

    def _turn_away(self, site: str, why: Ending) -> None:
        self._unaware.discard(site)
        self._transport.send(site, end(why))
        self._transport.close(site)
