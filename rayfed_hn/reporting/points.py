"""The numbers of a finished run as points of curves, for tools that draw curves.

Nothing of a slide or a patient is among them: they are means over sites, or of one site.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One value of one curve.

    Attributes:
        line: Whose curve: a method, an arm, an attack. Curves of different lines are laid over
            one another.
        tag: What the value is, as ``group/name``.
        step: Where it lies: a version, a number of sites or of labelled bags.
        value: Finite.
    """

    line: str
    tag: str
    step: int
    value: float


def points(folder: Path, summary: Record) -> list[Point]:
    """What there is to draw of a run; nothing of verbs that have no curves.

    Args:
        folder: The run directory.
        summary: Its ``summary.json``, or ``audit.json``.
    """
    make = _VERBS.get(summary["verb"])
    return [] if make is None else list(make(folder, summary))


def _scale(folder: Path, summary: Record) -> Iterator[Point]:
    for row in summary["rows"]:
        tested = row.get("tested") or {}
        values = {
            "cost by number of sites/seconds per version": row["seconds_per_version"],
            "cost by number of sites/updates per second": row["updates_per_second"],
            "cost by number of sites/memory in MiB (PSS)": row["total_pss_mib"],
            "cost by number of sites/MB moved per version": (row["bytes_down"] + row["bytes_up"])
            / 1e6,
        }
        names = {
            "mean": "mean site",
            "lowest_tenth": "lowest tenth of sites",
            "worst": "worst site",
        }
        values |= {
            f"test {tested['metric']} by number of sites/{word}": tested[name]
            for name, word in names.items()
            if tested
        }
        yield from _of(row["method"], row["sites"], values)


def _compare(folder: Path, summary: Record) -> Iterator[Point]:
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    with (folder / "metrics.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            own = found.setdefault((_method(record), record["version"]), {})
            for name in ("validation_metric", "validation_loss", "train_loss"):
                if record.get(name) is not None:
                    own.setdefault(name, []).append(record[name])
    metric = summary["metric"]
    words = {
        "validation_metric": f"mean over sites, seeds and folds/validation {metric}",
        "validation_loss": "mean over sites, seeds and folds/validation loss",
        "train_loss": "mean over sites, seeds and folds/training loss",
    }
    for (method, version), values in found.items():
        means = {words[name]: sum(each) / len(each) for name, each in values.items()}
        yield from _of(method, version, means)
    for row in summary["table"]:
        ends = {
            f"test {metric}, readout {row['readout']}/mean site": row["mean_site"],
            f"test {metric}, readout {row['readout']}/worst site": row["worst_mean"],
        }
        yield from _of(_method(row), 0, ends)


def _onboard(folder: Path, summary: Record) -> Iterator[Point]:
    tag = f"test {summary['metric']} by labelled bags/{summary['site']}"
    for point in summary["curve"]:
        yield from _of(point["arm"], point["labelled"], {tag: point["mean"]})


def _audit(folder: Path, summary: Record) -> Iterator[Point]:
    for site, found in summary.get("membership", {}).items():
        if found is not None:
            yield from _of("attacks", 0, {f"membership AUC/{site}": found["auc"]})
    for by, found in summary.get("canaries", {}).items():
        values = {
            f"epsilon of canaries by {by}/promised": found["promised"],
            f"epsilon of canaries by {by}/lower bound": found["bound"].get("epsilon"),
        }
        yield from _of("attacks", 0, values)


def _of(line: str, step: int, values: Mapping[str, float | None]) -> Iterator[Point]:
    for tag, value in values.items():
        if value is not None:
            yield Point(line, tag, step, float(value))


def _method(record: Record) -> str:
    """A method, with its noise where several amounts were tried."""
    noise = record.get("noise")
    return record["method"] if noise is None else f"{record['method']}, noise {noise:g}"


_VERBS: dict[str, Callable[[Path, Record], Iterator[Point]]] = {
    "scale": _scale,
    "compare": _compare,
    "onboard": _onboard,
    "audit": _audit,
}
