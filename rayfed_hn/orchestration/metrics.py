"""Figures of a run for Prometheus, through the exporter that Ray has on every node.

Names begin with ``ray_rayfed_hn_``; every series is labelled with the name of the run
directory, or of the bag store. None says anything of a site, a slide or a patient.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

from rayfed_hn.federation.centre import Progress
from rayfed_hn.slides.outcome import SlideOutcome

TRAIN = {
    "version": "Versions that the server has made.",
    "versions_planned": "Versions after which the run ends.",
    "version_seconds": "Time since the version before.",
    "sites_there": "Sites that can be asked.",
    "validation_metric": "Validation metric of the version before, mean over sites.",
    "signal_to_noise": "Norm of what was learned over that of the noise, mean over updates.",
    "site_restarts": "How often actors of sites were started anew.",
    "centre_restarts": "How often the central actor was started anew.",
}
EMBED = {
    "slides": "Slides that are done, by what became of them.",
    "tiles": "Tiles that were embedded.",
}


class TrainMetrics:
    """Tells of a training run, from where it was started.

    Args:
        run: Name of the run directory.
        method: Of the run.
        planned: Versions.
    """

    def __init__(self, run: str, method: str, planned: int) -> None:
        tags = {"run": run, "method": method}
        self._gauges = {name: _series(Gauge, name, about, tags) for name, about in TRAIN.items()}
        self._gauges["versions_planned"].set(planned)
        self._last = time.monotonic()

    def tell(self, news: Progress) -> None:
        """After a version."""
        now = time.monotonic()
        values = {
            "version": news.version,
            "version_seconds": now - self._last,
            "sites_there": news.num_alive,
            "validation_metric": news.validation_metric,
            "signal_to_noise": news.signal_to_noise,
            "site_restarts": sum(news.restarts.values()),
            "centre_restarts": news.centre_restarts,
        }
        self._last = now
        for name, value in values.items():
            if value is not None:
                self._gauges[name].set(value)


class EmbedMetrics:
    """Tells of slides as they are done.

    Args:
        run: Name of the bag store.
    """

    def __init__(self, run: str) -> None:
        tags = {"run": run}
        self._slides = _series(Counter, "slides", EMBED["slides"], tags, "status")
        self._tiles = _series(Counter, "tiles", EMBED["tiles"], tags)

    def tell(self, outcome: SlideOutcome) -> None:
        """Of a slide that is done."""
        self._slides.inc(1, {"status": outcome.status})
        if outcome.status == "embedded" and outcome.num_tiles:
            self._tiles.inc(outcome.num_tiles)


def _series(kind: Any, name: str, about: str, tags: Mapping[str, str], *more: str) -> Any:
    made = kind(f"rayfed_hn_{name}", description=about, tag_keys=(*tags, *more))
    made.set_default_tags(dict(tags))
    return made
