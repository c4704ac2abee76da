"""What is between the server and one site, and for how long it has waited for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rayfed_hn.federation.messages import Request, SiteLost
from rayfed_hn.federation.recalled import Recalled


@dataclass(eq=False)
class Line:
    """What is between the server and one site.

    Attributes:
        site: Which.
        life: Of the process that was admitted last; 0: none yet.
        here: Whether it has a stream.
        since: When it had one last, by the clock of the executor; earlier by ``missed``.
        missed: Seconds without a stream before the present one, since its last answer.
        asked: What was sent and not answered, by number.
        waiting: What is sent once it is here.
        heard: When it said something last or was asked while idle; only waiting counts. Earlier by
            ``quiet``.
        quiet: Seconds that it owed an answer on streams before, since its last answer.
        troubles: In a row, since its last answer.
        away: What was told of it while it is expected back; None as long as it is not away.
        gone: Why it is lost for good.
        memory: What a new process of it is told again.
    """

    site: str
    life: int = 0
    here: bool = False
    since: float = 0.0
    missed: float = 0.0
    asked: dict[int, Request] = field(default_factory=dict)
    waiting: list[Request] = field(default_factory=list)
    heard: float = 0.0
    quiet: float = 0.0
    troubles: int = 0
    away: list[SiteLost] | None = None
    gone: str | None = None
    memory: Recalled = field(default_factory=Recalled)

    @property
    def under_way(self) -> bool:
        """Whether anything of it is still to come."""
        return bool(self.asked or self.waiting or self.away)

    def broke(self, now: float, waited: float) -> None:
        """Its stream is gone. Else a line that breaks again and again would never run out of time.

        Args:
            now: By the clock of the executor.
            waited: Seconds that the executor has waited.
        """
        self.here, self.since = False, now - self.missed
        if self.asked:
            self.quiet = waited - self.heard

    def arrived(self, life: int, now: float, waited: float) -> bool:
        """It has a stream again; returns whether its process is another than before."""
        anew = self.life not in (0, life)
        self.here, self.life = True, life
        self.missed = now - self.since if self.under_way else 0.0
        self.heard = waited - self.quiet
        return anew

    def spoke(self, waited: float) -> None:
        """It has answered."""
        self.heard, self.missed, self.quiet, self.troubles = waited, 0.0, 0.0, 0

    def unanswered(self) -> list[Request]:
        """Everything that it was asked in vain, in order; forgotten from here on."""
        asked = [r for r in self.asked.values() if not self.memory.echoes(r)]
        found = [*asked, *self.waiting]
        self.asked.clear()
        self.waiting.clear()
        return found
