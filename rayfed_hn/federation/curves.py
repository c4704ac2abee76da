"""The figures of a run by version: as records of ``metrics.jsonl``, and as TensorBoard's events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.saving import saving

_CURVES = (
    *("train_loss", "validation_metric", "validation_loss", "update_norm"),
    *("signal_to_noise", "epsilon"),
)


class Curves:
    """Writes TensorBoard's files.

    Args:
        folder: Where.
        first_version: Events from there on, of versions that were never committed, are void.
    """

    def __init__(self, folder: Path, first_version: int) -> None:
        self._folder, self._first_version = folder, first_version
        self._writer: Any = None

    def add(self, records: Sequence[dict[str, Any]], mean_value: float | None) -> None:
        """Draw the records of one version."""
        with saving(self._folder):
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter  # slow to import

                self._writer = SummaryWriter(str(self._folder), purge_step=self._first_version)
            for record in records:
                for name in _CURVES:
                    if record[name] is not None:
                        tag = f"{name}/{record['site']}"
                        self._writer.add_scalar(tag, record[name], record["version"])
            made = records[0]["made"]
            if mean_value is not None:
                self._writer.add_scalar("validation_metric/mean", mean_value, made - 1)
            late = np.array([record["staleness"] for record in records])
            self._writer.add_histogram("staleness", late, made)
            self._writer.flush()  # a committed version is never made again

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def metric_records(report: VersionReport) -> list[dict[str, Any]]:
    """One record an update.

    ``version`` is that of the network received, which the validation figures are of; ``made`` the
    version that the update went into, and ``time`` the moment at which that was made.
    """
    return [
        {
            "version": update.version,
            "made": report.version,
            "site": update.site,
            "turn": update.turn,
            "staleness": late,
            "time": round(report.time, 6),
            "train_loss": finite(update.train_loss),
            "validation_metric": update.validation_metric,
            "validation_loss": finite(update.validation_loss),
            "update_norm": float(np.linalg.norm(update.update)),
            "num_steps": update.num_steps,
            "signal_to_noise": finite(update.signal_to_noise),
            "clipped": update.clipped,
            "releases": update.releases,
            "epsilon": finite(update.epsilon),
            "seconds": update.seconds,
        }
        for update, late in zip(report.updates, report.staleness, strict=True)
    ]


def finite(value: float | None) -> float | None:
    """A number that JSON has, or None."""
    return value if value is not None and np.isfinite(value) else None
