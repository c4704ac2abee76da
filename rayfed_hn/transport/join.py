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
    seen, pause, told = time.monotonic(), FIRST_PAUSE, ""
    while True:
        try:
            with stream(address, credentials, agent.limit) as line:
                line.send(agent.hello())
                while True:
                    frame = line.receive()
                    seen, pause, told = time.monotonic(), FIRST_PAUSE, ""
                    reply = agent.take(frame)
                    if reply.frame is not None:
                        line.send(reply.frame)
                    if reply.ended:
                        line.finish()
                        if reply.error is not None:
                            raise reply.error
                        return
        except StreamLost as lost:
            why = str(lost)
            _check_trust(address, credentials)
        except MessageError as error:
            why = str(error)
        except Refused as refused:
            raise ConfigError(f"--server {address}: {refused}") from None
        if time.monotonic() - seen > patience:
            raise FederationError(
                f"the server at {address} could not be reached for {patience:g} s "
                f"(resources.node_limit; {why}); the same command with run.resume=true goes on"
            )
        if why != told:
            tell(f"no stream to {address} ({why}); trying again")
            told = why
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)


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
