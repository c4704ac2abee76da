"""What is done about sites that are gone or silent."""

from __future__ import annotations

from dataclasses import dataclass

from rayfed_hn.config import Config


@dataclass(frozen=True)
class Care:
    """How long the others wait. All of it is counted in sum since a site's last answer.

    Attributes:
        restarts: Times in a row, without an answer in between, that a site may be started anew,
            fall silent or send what makes no sense.
        silence: Seconds that a site that was asked may say nothing; None: any time.
        wait: Seconds that a site may have no stream before it counts as away; None: it does not, as
            simulated time stands still meanwhile.
        limit: Seconds without a stream after which it is lost for good.
    """

    restarts: int = 3
    silence: float | None = None
    wait: float | None = None
    limit: float = 3600.0

    @classmethod
    def of(cls, config: Config) -> Care:
        """As a run is configured."""
        resources, rounds = config.resources, config.rounds
        all_wait = config.simulation.enabled or rounds.replay is not None
        return cls(
            resources.site_restarts,
            rounds.answer_timeout,
            None if all_wait else min(resources.node_wait, resources.node_limit),
            resources.node_limit,
        )
