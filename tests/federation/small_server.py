"""A server of up to four sites that are moved by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rayfed_hn.config import RoundsConfig
from rayfed_hn.federation.messages import SiteLost, TrainRequest, Update
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.rules.base import Rule
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.server import Server

SITES: tuple[str, ...] = ("a", "b", "c", "d")
SIZES: dict[str, int] = dict(zip(SITES, (5, 9, 2, 14), strict=True))
SYNCHRONOUS = RoundsConfig(num_versions=3)


def new_server(
    config: RoundsConfig, rule: Rule | None = None, sites: Sequence[str] = SITES
) -> Server:
    sizes = {site: SIZES[site] for site in sites}
    rule = rule or FedAvg(torch.zeros(2))
    return Server(rule, Schedule(config, sizes, seed=1), config.num_versions)


def answer(request: TrainRequest, value: float = 1.0) -> Update:
    u = np.full(request.parameters.size, value, np.float32)
    return Update(request.site, request.version, request.turn, u, 0.5, 0.5, 0.75, 1, 0.1)


def lost(request: TrainRequest, *, returns: bool = False) -> SiteLost:
    return SiteLost(request.site, request.version, "cable", request.turn, returns)
