"""What went wrong in a run, in one line each, from the lists of its summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rayfed_hn.errors import BudgetSpent

_Record = Mapping[str, Any]
NO_REASON = "no reason given"


def troubles(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """List cells that failed, sites that were lost, updates refused, and what was set aside.

    What befell the same site for the same reason in many cells of a comparison is one line.
    """
    return (
        *_failed_cells(summary.get("failed_cells", [])),
        *_lost_sites(summary.get("lost_sites", [])),
        *_refused(summary.get("refused", [])),
        *_set_aside(summary.get("set_aside", [])),
    )


def _failed_cells(records: Iterable[_Record]) -> list[str]:
    lines = []
    for (method, reason), alike in _alike(records, "method", "reason").items():
        cells = _cells(alike)
        what = cells[0] if len(cells) == 1 else f"{method}: {len(cells)} cells"
        lines.append(f"{what} failed: {reason or NO_REASON}")
    return lines


def _lost_sites(records: Iterable[_Record]) -> list[str]:
    lines = []
    for (site, reason), alike in _alike(records, "site", "reason").items():
        versions = {record.get("version") for record in alike}
        when = f" at version {versions.pop()}" if len(versions) == 1 else ""
        what = "stopped" if BudgetSpent.is_told_by(reason) else "was lost"
        lines.append(f"{site} {what}{when}{_where(alike)}: {reason or NO_REASON}")
    return lines


def _refused(records: Iterable[_Record]) -> list[str]:
    """A line for every site: its updates that were judged and not taken."""
    lines = []
    for (site,), alike in _alike(records, "site").items():
        last = alike[-1]
        what = "1 update was" if len(alike) == 1 else f"{len(alike)} updates were"
        lines.append(
            f"{site}: {what} refused{_where(alike)}, the last one at version "
            f"{last.get('version')}: {last.get('reason') or NO_REASON}"
        )
    return lines


def _set_aside(records: Iterable[_Record]) -> list[str]:
    names = ("site", "slide_id", "reason", "remedy")
    return [
        f"{slide or site} was set aside{_where(alike)}: {reason or NO_REASON}"
        + (f" ({remedy})" if remedy else "")
        for (site, slide, reason, remedy), alike in _alike(records, *names).items()
    ]


def _alike(records: Iterable[_Record], *names: str) -> dict[tuple[str, ...], list[_Record]]:
    """Put records together that say the same under ``names``."""
    groups: dict[tuple[str, ...], list[_Record]] = {}
    for record in records:
        key = tuple(str(record.get(name) or "") for name in names)
        groups.setdefault(key, []).append(record)
    return groups


def _cells(records: Iterable[_Record]) -> list[str]:
    """Name the cells of a comparison in which the records were made; none of a training run."""
    names = (
        f"{r['method']}, seed {r.get('seed')}, fold {r.get('fold')}"
        + (f", noise {r['noise']:g}" if r.get("noise") is not None else "")
        for r in records
        if "method" in r
    )
    return list(dict.fromkeys(names))


def _where(records: Iterable[_Record]) -> str:
    cells = _cells(records)
    if not cells:
        return ""
    return f" in {len(cells)} cells" if len(cells) > 1 else f" in {cells[0]}"
