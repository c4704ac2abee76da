"""A training run's directory: everything that happened, in files that anybody can read.

config.yaml, metrics.jsonl (a line per update), events.jsonl (what the server was told, in order),
tensorboard/, checkpoints/last and best (safetensors), sites/<name>/scores.parquet,
site_map.json (written by ``site_map``), summary.json and privacy.json (by ``privacy_record``).
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rayfed_hn.errors import DataError
from rayfed_hn.federation.event_trace import RESUMED
from rayfed_hn.federation.json_lines import JsonLines
from rayfed_hn.federation.messages import Scores, SiteLost
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.versions import VersionReport
from rayfed_hn.files import write_atomically, write_text

LAST, BEST = "last", "best"
_CURVES = (
    *("train_loss", "validation_metric", "validation_loss", "update_norm"),
    *("signal_to_noise", "epsilon"),
)


class RunRecord:
    """Writes the directory of a training run and reads its checkpoint back.

    Attributes:
        seconds: Moment of the last commit by the executor's clock.
    """

    def __init__(self, folder: Path, data_digest: str) -> None:
        self.folder = folder
        self._data_digest = data_digest
        self._metrics = JsonLines(folder / "metrics.jsonl")
        self._events = JsonLines(folder / "events.jsonl")
        self._best_metric = -1.0
        self._first_version = 0
        self.seconds = 0.0
        self._tensorboard: Any = None

    def resume(self, server: Server) -> bool:
        """Put the server where the last commit left it. Returns whether there was one.

        Metrics of versions that were never committed are dropped; they will be made again.

        Raises:
            DataError: The checkpoint is damaged or of another federation, or the bag store has
                changed: other bags would be dealt to other folds, and test cases have been trained
                on.
        """
        path = self._checkpoint(LAST)
        if not path.exists():
            return False
        tensors, about = _read_checkpoint(path)
        if about["data"] != self._data_digest:
            raise DataError(
                f"data.bags: the bag store is not what it was when the run in {self.folder} began; "
                "start again with another run.dir"
            )
        lost = [SiteLost(**loss) for loss in json.loads(about["lost"])]
        server.resume(tensors, int(about["version"]), lost)
        self._first_version = server.version
        self._best_metric = float(about["best_metric"])
        self.seconds = float(about["seconds"])
        self._metrics.keep_until(server.version)
        self._events.keep_until(server.version)
        self._events.append([RESUMED | {"made": server.version, "time": self.seconds}])
        return True

    def begin(self, server: Server, first_event: Mapping[str, Any]) -> None:
        """Commit version 0."""
        self._events.append([{**first_event, "made": 0}])
        self._commit(server)

    def commit(
        self, server: Server, report: VersionReport, events: Sequence[Mapping[str, Any]]
    ) -> None:
        """Record a version: metrics first, the checkpoint that vouches for them last."""
        records = metric_records(report)
        self._metrics.append(records)
        self._events.append([{**event, "made": report.version} for event in events])
        self._to_tensorboard(records, report.mean_validation_metric)
        # These metrics belong to the version before, whose commit is still the last one on disk.
        # Some sites, or older networks, say nothing about it.
        if len(report.updates) == report.num_alive and not any(report.staleness):
            self._keep_if_best(report.mean_validation_metric)
        self.seconds = report.time
        self._commit(server)

    def finish(self, scores: Sequence[Scores]) -> None:
        """Take the metrics of the final version; without any ever, the last version is the best."""
        defined = [s.validation_metric for s in scores if s.validation_metric is not None]
        self._keep_if_best(sum(defined) / len(defined) if defined else None)
        if not self._checkpoint(BEST).exists():
            self._save(BEST, *_read_checkpoint(self._checkpoint(LAST)))
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _keep_if_best(self, mean_value: float | None) -> None:
        if mean_value is not None and mean_value >= self._best_metric:
            self._best_metric = mean_value
            self._save(BEST, *_read_checkpoint(self._checkpoint(LAST)))

    def _commit(self, server: Server) -> None:
        about = {
            "version": str(server.version),
            "best_metric": repr(self._best_metric),
            "seconds": repr(self.seconds),
            "data": self._data_digest,
            "lost": json.dumps([asdict(loss) for loss in (*server.lost_before, *server.lost)]),
        }
        self._save(LAST, server.state(), about)

    def scores(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write ``sites/<name>/scores.parquet`` for every hospital that has test scores."""
        by_site: dict[str, list[Mapping[str, Any]]] = {}
        for record in records:
            by_site.setdefault(record["site"], []).append(record)
        for site, rows in by_site.items():
            write_table(self.folder / "sites" / site / "scores.parquet", rows, drop=("site",))

    def _checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def _save(self, name: str, tensors: Mapping[str, Tensor], about: dict[str, str]) -> None:
        contiguous = {k: v.contiguous() for k, v in tensors.items()}
        write_atomically(
            self._checkpoint(name),
            lambda temporary: save_file(contiguous, temporary, metadata={"format": "pt", **about}),
        )

    def _to_tensorboard(self, records: list[dict[str, Any]], mean_value: float | None) -> None:
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._tensorboard = SummaryWriter(
                str(self.folder / "tensorboard"),
                purge_step=self._first_version,  # events of versions that were never committed
            )
        for record in records:
            for name in _CURVES:
                if record[name] is not None:
                    tag = f"{name}/{record['site']}"
                    self._tensorboard.add_scalar(tag, record[name], record["version"])
        if mean_value is not None:
            self._tensorboard.add_scalar(
                "validation_metric/mean", mean_value, records[0]["made"] - 1
            )
        self._tensorboard.flush()  # a committed version is never made again


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
            "train_loss": _number(update.train_loss),
            "validation_metric": update.validation_metric,
            "validation_loss": _number(update.validation_loss),
            "update_norm": float(np.linalg.norm(update.update)),
            "num_steps": update.num_steps,
            "signal_to_noise": _number(update.signal_to_noise),
            "clipped": update.clipped,
            "releases": update.releases,
            "epsilon": _number(update.epsilon),
            "seconds": update.seconds,
        }
        for update, late in zip(report.updates, report.staleness, strict=True)
    ]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], drop: tuple[str, ...] = ()) -> None:
    """Write records as Parquet, whole or not at all."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    table = table.drop_columns([name for name in drop if name in table.column_names])
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``."""
    write_record(folder / "summary.json", summary)


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all; a value that it does not have (NaN) becomes null."""
    write_text(path, json.dumps(_clean(record), indent=2) + "\n")


def package_versions() -> dict[str, str]:
    """What a reader needs to repeat a run."""
    names = ("rayfed_hn", "ray", "torch", "numpy", "pyarrow", "openslide-python", "scikit-image")
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118
    except (SafetensorError, OSError, KeyError) as error:
        raise DataError(
            f"checkpoint {path.name} cannot be read ({error}); start again in another run.dir"
        ) from None


def _number(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return _number(value) if isinstance(value, float) else value
