"""A site of a run whose server is elsewhere: stays in touch with it until the run has ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rayfed_hn.errors import ConfigError, FederationError, MessageError, RayfedError
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.run_directory import known_run
from rayfed_hn.transport.credentials import Credentials
from rayfed_hn.transport.dial import Refused, StreamLost, check_trust, stream
from rayfed_hn.transport.site_agent import SiteAgent

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries


class _Dialling:
    """How long a site goes on without the server, and how soon it tries again.

    Args:
        address: Of the server.
        patience: Seconds without it after which the site gives up.
        tell: Called with what the operator should know, in a line.
    """

    def __init__(self, address: str, patience: float, tell: Callable[[str], object]) -> None:
        self._address, self._patience, self._tell = address, patience, tell
        self._alone_since = time.monotonic()
        self.heard()

    def heard(self) -> None:
        """The server said something on this stream."""
        self._heard, self._pause, self._told = True, FIRST_PAUSE, ""

    def lost(self, why: str) -> None:
        """There is no stream, or none any more. However long one was open, it counts from here.

        Raises:
            FederationError: That was it.
        """
        if self._heard:
            self._heard, self._alone_since = False, time.monotonic()
        elif time.monotonic() - self._alone_since > self._patience:
            raise FederationError(
                f"the server at {self._address} could not be reached for {self._patience:g} s "
                f"(resources.node_limit; {why}); the same command with run.resume=true goes on"
            )
        if why != self._told:
            self._tell(f"no stream to {self._address} ({why}); trying again")
            self._told = why

    def wait(self) -> None:
        """Pass the time until the next try."""
        time.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def stay(
    agent: SiteAgent,
    address: str,
    credentials: Credentials,
    patience: float,
    tell: Callable[[str], object] = print,
) -> None:
    """Answer the server until the run has ended.

    Args:
        agent: The site.
        address: ``host:port`` of the server.
        credentials: Of the site.
        patience: Seconds without the server after which the site gives up.
        tell: Called with what the operator should know, in a line.

    Raises:
        ConfigError: The certificates do not fit, or the server's settings are not the site's.
        FederationError: The server is gone, or wants no more of this site.
    """
    dialling = _Dialling(address, patience, tell)
    while True:
        try:
            _talk(agent, address, credentials, dialling.heard)
            return
        except StreamLost as lost:
            dialling.lost(str(lost))
            _check_trust(address, credentials)
        except MessageError as error:
            dialling.lost(str(error))
        except Refused as refused:
            raise ConfigError(f"--server {address}: {refused}") from None
        dialling.wait()


def _talk(
    agent: SiteAgent, address: str, credentials: Credentials, heard: Callable[[], object]
) -> None:
    """Hold one stream, until one of the two sides has said that this was all."""
    with stream(address, credentials, agent.limit) as line:
        line.send(agent.hello())
        while True:
            frame = line.receive()
            heard()
            reply = agent.take(frame)
            if reply.frame is not None:
                line.send(reply.frame)
            if reply.ended:
                line.finish()
                if reply.error is not None:
                    raise reply.error
                return


def _check_trust(address: str, credentials: Credentials) -> None:
    try:
        check_trust(address, credentials)
    except Refused as refused:
        raise ConfigError(f"--server {address}: {refused}") from None


def join(
    agent: SiteAgent,
    address: str,
    credentials: Credentials,
    patience: float,
    folder: Path,
    tell: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Take part in a run to its end, and return what the site writes down of it.

    Raises:
        ConfigError, FederationError: As ``stay`` says.
    """
    begun = time.monotonic()
    summary: dict[str, Any] = {"verb": "join", "site": agent.site, "versions": package_versions()}
    try:
        stay(agent, address, credentials, patience, tell)
        summary |= {"status": "complete", "exit_code": 0, **agent.summary()}
    except RayfedError as error:
        code = 2 if isinstance(error, ConfigError) else 1
        summary |= {"status": "failed", "exit_code": code, "reason": str(error)}
        raise
    finally:
        summary["answers"], summary["seconds"] = agent.num_answers, time.monotonic() - begun
        summary["run"] = known_run(folder)
        if "status" in summary:
            write_summary(folder, summary)
    return summary
