"""Joining or starting a Ray cluster, and dividing it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from rayfed_hn.config import Config
from rayfed_hn.orchestration import doors

# Sites keep their own logs; what a worker prints must not reach the driver's console.
_NOISE = (
    b"Set ray log level from environment variable",
    b"Authentication token is missing or incorrect",  # twenty times; our own error says it once
)
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextmanager
def connect(config: Config) -> Iterator[None]:
    """Use the cluster of ``RAY_ADDRESS`` (as in a submitted job), or start one on this machine.

    A cluster that was already joined by this process is used and left alone.

    Raises:
        ConfigError: The cluster cannot be joined, or answers strangers.
    """
    if ray.is_initialized():
        yield
        return
    # Ray 2.60 would warn on every start about a default that it is going to change.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Otherwise Ray Data's own start of a worker prints a line that no user can act on.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Actors are what a run is for: they should not give way to whatever else is going on.
    os.environ.setdefault("RAY_worker_niceness", "0")
    doors.check_tls()
    doors.check_token()
    address = os.environ.get("RAY_ADDRESS")
    cluster = _joined(address, config) if address and address != "local" else _started(config)
    # Ray puts its own handler in place, which would end the process with another exit code.
    on_terminate = signal.getsignal(signal.SIGTERM)
    with cluster:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)
        yield


@contextmanager
def _joined(address: str, config: Config) -> Iterator[None]:
    try:
        with doors.explained(address), _without_greeting():
            ray.init(address=address, **_QUIET)
        found = ray.get_runtime_context().gcs_address
        doors.check_joined(found, accepted=config.resources.insecure_cluster)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _started(config: Config) -> Iterator[None]:
    doors.make_token()
    with doors.private_folder() as folder:
        try:
            with _without_greeting():
                ray.init(
                    address="local",
                    num_cpus=config.resources.cpus,
                    include_dashboard=False,
                    _temp_dir=str(folder),
                    **_QUIET,
                )
            doors.check_own()
            yield
        finally:
            ray.shutdown()


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Keep back the line in which Ray's core says which log level it has been given, and its like.

    It is written by C++ on the descriptor of stderr. What else is written there meanwhile follows.
    """
    with tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            for line in kept:
                if not any(known in line for known in _NOISE):
                    os.write(2, line)


def num_cpus(config: Config) -> int:
    """Cores that a run may use."""
    return config.resources.cpus or max(1, int(ray.cluster_resources().get("CPU", 1)))
