"""Joining or starting a Ray cluster, and dividing it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from rayfed_hn.config import Config

START_SECONDS = 300.0  # an actor that has not started by then never will


@contextmanager
def connect(config: Config) -> Iterator[None]:
    """Use the cluster of ``RAY_ADDRESS`` (as in a submitted job), or start one on this machine.

    A cluster that was already joined by this process is used and left alone.
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
    # Ray puts its own handler in place, which would end the process with another exit code.
    on_terminate = signal.getsignal(signal.SIGTERM)
    address = os.environ.get("RAY_ADDRESS")
    ray.init(
        address=address or "local",
        num_cpus=None if address else config.resources.cpus,
        include_dashboard=None if address else False,
        # Sites keep their own logs; what a worker prints must not reach the driver's console.
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


def num_cpus(config: Config) -> int:
    """Cores that a run may use."""
    return config.resources.cpus or max(1, int(ray.cluster_resources().get("CPU", 1)))
