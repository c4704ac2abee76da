"""Joining or starting a Ray cluster, and dividing it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError

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


@dataclass(frozen=True)
class Share:
    """What one actor asks Ray for."""

    num_cpus: float
    num_gpus: float


def num_cpus(config: Config) -> int:
    """Cores that a run may use."""
    return config.resources.cpus or max(1, int(ray.cluster_resources().get("CPU", 1)))


def divide(config: Config, num_sites: int) -> tuple[int, Share, Share]:
    """Number of site hosts, and what a host and the central actor ask for.

    Actors keep what they ask for until they end, so all of them together must fit at once.

    Raises:
        ConfigError: The GPU fractions do not fit on the cluster.
    """
    resources = config.resources
    hosts = min(num_sites, resources.num_hosts or num_sites)
    cpus = num_cpus(config)
    each = 1.0 if cpus > hosts else int(1000 * cpus / (hosts + 1)) / 1000
    gpus = ray.cluster_resources().get("GPU", 0.0)
    per_gpu = int(1 / resources.gpus_per_site) if resources.gpus_per_site else 0
    if resources.gpus_per_site and int(gpus) * per_gpu < hosts:
        if gpus < 1:
            remedy = "resources.gpus_per_site=0 (CPU only)"
        else:
            fit = int(100 * int(gpus) / hosts) / 100
            remedy = f"resources.gpus_per_site={fit:g}, or fewer actors with resources.num_hosts"
        raise ConfigError(
            f"resources.gpus_per_site: {hosts} site actors with {resources.gpus_per_site:g} GPU "
            f"each do not fit on the cluster's {gpus:g} GPUs; try {remedy}"
        )
    return hosts, Share(each, resources.gpus_per_site), Share(each, 0.0)
