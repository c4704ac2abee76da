"""What a report reads of a run directory, checked: files in, one object out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rayfed_hn.errors import DataError
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.reporting.older import renamed

_COMMON = ("status", "classes", "seconds", "versions", "lost_sites", "set_aside")
_NEEDED = {
    "train": (*_COMMON, "method", "sites", "num_versions", "num_parameters"),
    "compare": (*_COMMON, "table", "per_site", "differences", "methods", "failed_cells"),
    "onboard": (*_COMMON, "site", "method", "curve", "recommended", "held_out", "values"),
    "scale": ("status", "rows", "steps", "where", "seconds", "versions"),
    "tune": (*_COMMON, "trials", "best", "front", "importance", "final", "space", "objectives"),
}
_WITHOUT_METRICS = ("onboard", "scale", "tune")
_MAY_FAIL = (*_NEEDED, "embed")  # verbs whose failure is reported; without results
_Parsed = TypeVar("_Parsed")
_SCORE_COLUMNS = ("case", "label", "readout", "score")
_TASK_COLUMNS = ("probabilities", "time", "event")  # depends on the task
_FAILED = "failed"
_METRICS = ("train_loss", "validation_metric", "validation_loss", "update_norm", "seconds")
READOUTS = {
    "mixture": "averages of the shared and of the site's own networks, weighted by validation",
    "best": "the version with the highest {metric} on the site's validation bags",
    "last": "the final version",
}


@dataclass(frozen=True)
class Run:
    """A run that finished or failed.

    Attributes:
        folder: The run directory.
        verb: ``train``, ``compare``, ``onboard``, ``scale`` or ``tune``; of a failed run also
            ``embed``.
        summary: ``summary.json``.
        config: ``config.yaml``.
        config_text: The same as text.
        metrics: ``metrics.jsonl``; undefined values are NaN, staleness is always there. Empty of a
            failed run and of verbs that write none.
    """

    folder: Path
    verb: str
    summary: Mapping[str, Any]
    config: Mapping[str, Any]
    config_text: str
    metrics: tuple[Mapping[str, Any], ...]

    @property
    def failed(self) -> bool:
        """Whether the run ended without results; then its summary holds little but reasons."""
        return self.summary["status"] == _FAILED

    @property
    def judge(self) -> Judge:
        """What judged the predictions; older runs were all binary."""
        return Judge(self.summary.get("task", "binary"), len(self.summary["classes"]))

    @property
    def unit(self) -> str:
        """Whether a bag is a slide or a case."""
        return self.summary.get("unit", "slide")

    def about(self, readout: str) -> str:
        """Return what a readout is."""
        about = READOUTS.get(readout, "as the run names it")
        return about.format(metric=self.judge.ranking_name)

    def knob(self, section: str, name: str) -> Any:
        """Return a value of the configuration, None where it is not there."""
        values = self.config.get(section)
        return values.get(name) if isinstance(values, Mapping) else None


def read_run(folder: Path) -> Run:
    """Read the run directory of a verb that is reported, or of one of them or embed that failed.

    Raises:
        DataError: A file is missing or broken, or the run is of another verb; says what to do.
    """
    summary = _read_summary(folder / "summary.json")
    path = folder / "config.yaml"
    text = _text(path, "it is written when a run starts; copy it back or run again")
    try:
        config = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise _broken(path, error) from error
    if not isinstance(config, Mapping):
        raise _broken(path, "it holds no sections")
    failed = summary["status"] == _FAILED
    without = failed or summary["verb"] in _WITHOUT_METRICS
    metrics = () if without else _read_metrics(folder / "metrics.jsonl")
    return Run(folder, summary["verb"], summary, config, text, metrics)


def read_scores(folder: Path, site: str, unit: str) -> dict[str, np.ndarray]:
    """Read the test scores of one site of a training run.

    Args:
        folder: The run directory.
        site: Its name.
        unit: slide or case; what is not marked as either is a slide.

    Returns:
        Columns case, label, readout and score, each of shape (B,); of grades and of several
        classes also probabilities (B, K), and of survival time and event (B,).

    Raises:
        DataError: The file is missing or broken, or the site's name is no file name.
    """
    if site in ("", ".", "..") or {"/", "\0"} & set(site):
        raise DataError(f"summary.json: {site!r} is no name of a site; run train again")
    path = folder / "sites" / site / "scores.parquet"
    if not path.is_file():
        raise DataError(f"{path} is missing; copy the whole run directory or run train again")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error
    if missing := [name for name in _SCORE_COLUMNS if name not in table.column_names]:
        raise _broken(path, f"column {missing[0]} is missing")
    names = [n for n in (*_SCORE_COLUMNS, *_TASK_COLUMNS) if n in table.column_names]
    try:
        columns = {name: np.array(table.column(name).to_pylist()) for name in names}
    except ValueError as error:  # rows of different lengths
        raise _broken(path, error) from error
    if len(columns["score"]) and not np.isfinite(columns["score"].astype(float)).all():
        raise _broken(path, "a score is not a finite number")
    units = ["slide"] * len(table)
    if "unit" in table.column_names:
        units = table.column("unit").to_pylist()
    wanted_B = np.array([found == unit for found in units], bool)
    return {name: column[wanted_B] for name, column in columns.items()}


def read_optional(path: Path, parse: Callable[[Any], _Parsed]) -> _Parsed | None:
    """Read a JSON file that older runs do not have.

    Args:
        path: Of the file.
        parse: Makes of its values what is needed; any ``ValueError``, ``KeyError``, ``TypeError``
            or ``AttributeError`` says that it cannot.

    Returns:
        What ``parse`` returns; None if there is no such file.

    Raises:
        DataError: The file is broken.
    """
    if not path.exists():
        return None
    try:
        return parse(json.loads(_text(path, "restore it or run again")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from error


def _read_summary(path: Path) -> dict[str, Any]:
    text = _text(path, "the run did not finish; go on with it (run.resume=true) and report then")
    try:
        summary = renamed(json.loads(text))
    except ValueError as error:
        raise _broken(path, error) from error
    verb = summary.get("verb") if isinstance(summary, dict) else None
    if verb in _MAY_FAIL and summary.get("status") == _FAILED:
        return summary
    if verb not in _NEEDED:
        raise DataError(
            f"{path} is of {verb!r}; a report is made of a run directory of train, compare, "
            "onboard, scale or tune (of a demo: its folder compare)"
        )
    if missing := [name for name in _NEEDED[verb] if name not in summary]:
        raise _broken(path, f"it has no {missing[0]!r}")
    return summary


def _read_metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    lines = _text(path, "copy the whole run directory or run again").splitlines()
    return tuple(_metric(path, n, line) for n, line in enumerate(lines, 1) if line.strip())


def _metric(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        record = renamed(json.loads(line))
        values: dict[str, Any] = {name: _or_nan(record.get(name)) for name in _METRICS}
        values |= {"version": int(record["version"]), "site": str(record["site"])}
        values["staleness"] = int(record.get("staleness") or 0)  # older runs had none
        return {**record, **values}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"line {number}: {type(error).__name__}") from error


def _or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)


def _text(path: Path, remedy: str) -> str:
    if not path.is_file():
        raise DataError(f"{path} is missing; {remedy}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, detail: object) -> DataError:
    line = " ".join(str(detail).split())
    return DataError(f"{path} cannot be used ({line}); restore it or run again in a new run.dir")
