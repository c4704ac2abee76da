"""``compare``: methods x seeds x folds, one Ray task a cell."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rayfed_hn.audit.attacked_cell import attacked_cell
from rayfed_hn.bags import store
from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, FederationError
from rayfed_hn.evaluation.comparison import ByCase, compare_methods, markdown_table
from rayfed_hn.evaluation.costs import costs_of
from rayfed_hn.evaluation.csv_table import csv_table
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.evaluation.latex_table import latex_table
from rayfed_hn.evaluation.trade_off import compare_amounts, membership
from rayfed_hn.federation.cell import Cell, cells, fingerprint, promises
from rayfed_hn.federation.record import package_versions, write_summary, write_table
from rayfed_hn.files import write_text
from rayfed_hn.orchestration.waiting import wait_for_a_place

_run_cell: Any = ray.remote(num_cpus=1, max_retries=1)(attacked_cell)


def compare(
    config: Config, root: Path, folder: Path, on_cell: Callable[[int, int], object]
) -> dict[str, Any]:
    """Run the cells that are not done yet, then write tables and summary.

    Args:
        config: Checked configuration.
        root: The bag store.
        folder: The run directory; finished cells of the same configuration in it are kept.
        on_cell: Called with (done, total) at the start and after each cell.

    Raises:
        DataError: The bag store does not fit the configuration.
        FederationError: No cell could be finished.
        NoRoom: The first found no room on the cluster in time.
    """
    begun = time.monotonic()
    promised = promises(config, root)
    todo = cells(config)
    mark = fingerprint(config, store.digest(root))
    done = {cell: found for cell in todo if (found := _read(folder, cell, mark)) is not None}
    on_cell(len(done), len(todo))
    failed: list[dict[str, Any]] = []
    if len(done) < len(todo):
        wait_for_a_place(config, "cell")
    waiting = {_run_cell.remote(cell, config, root): cell for cell in todo if cell not in done}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        cell = waiting.pop(ready[0])
        try:
            done[cell] = ray.get(ready[0])
            write_text(_file(folder, cell), json.dumps({"fingerprint": mark, **done[cell]}))
        except RayError as error:
            failed.append({**cell.key, "reason": reason(error)})
        on_cell(len(done), len(todo))
    if not done:
        raise FederationError(f"no cell could be finished; the first: {failed[0]['reason']}")
    finished = [done[cell] for cell in todo if cell in done]
    return _conclude(config, folder, finished, failed, promised, time.monotonic() - begun)


def _conclude(
    config: Config,
    folder: Path,
    finished: list[dict[str, Any]],
    failed: list[dict[str, Any]],
    promised: list[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    first = {"noise": None} if config.compare.noise else {}  # of what releases nothing

    def gather(name: str) -> list[dict[str, Any]]:
        return [{**first, **record} for cell in finished for record in cell[name]]

    scores, rows, classes = gather("scores"), gather("rows"), finished[0]["classes"]
    write_table(folder / "scores.parquet", scores)
    write_text(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in gather("metrics")))
    comparison = _compared(config, rows, scores, Judge(config.task.kind, len(classes)))
    comparison["costs"] = costs_of({**cell, "cell": first | cell["cell"]} for cell in finished)
    _write_tables(folder, comparison, config.evaluation.readout)
    degraded = bool(failed or gather("lost") or gather("refused") or gather("set_aside"))
    summary = {
        "verb": "compare",
        "status": "degraded" if degraded else "complete",
        "exit_code": 3 if degraded else 0,
        **{name: getattr(config.compare, name) for name in ("methods", "seeds", "folds")},
        "classes": classes,
        "rows": rows,
        **comparison,
        "membership": _membership(finished),
        "promises": promised,
        "failed_cells": failed,
        "lost_sites": gather("lost"),
        "refused": gather("refused"),
        "set_aside": gather("set_aside"),
        "seconds": round(seconds, 2),
        "versions": package_versions(),
    }
    write_summary(folder, summary)
    return summary


def _write_tables(folder: Path, comparison: dict[str, Any], readout: str) -> None:
    write_text(folder / "table.md", markdown_table(comparison, readout))
    write_text(folder / "table.csv", csv_table(comparison))
    write_text(folder / "table.tex", latex_table(comparison, readout))


def _compared(
    config: Config, rows: list[dict[str, Any]], scores: list[dict[str, Any]], judge: Judge
) -> dict[str, Any]:
    """Methods, or amounts of noise under each of them, side by side."""
    noise, least = config.compare.noise, config.privacy.least_noise
    by_case = ByCase(config.compare.resamples, config.run.seed)
    how: dict[str, Any] = {"judge": judge, "unit": config.task.unit, "by_case": by_case}
    if not noise:
        return compare_methods(rows, scores, **how)
    found = compare_amounts(rows, scores, noise, least=least, **how)
    return found | {"noise": noise, "noise_of": config.privacy.amount}


def _membership(finished: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the cells that were attacked, how well members were told from others."""
    name = "membership_auc"
    return membership(
        {**cell["cell"], name: cell[name]} for cell in finished if cell.get(name) is not None
    )


def _file(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.json"


def _read(folder: Path, cell: Cell, mark: str) -> dict[str, Any] | None:
    try:
        found = json.loads(_file(folder, cell).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if found.pop("fingerprint", None) == mark else None


def reason(error: RayError) -> str:
    """Why a cell failed, in words that name no slide."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(cause, ConfigError | FederationError):
        return str(cause)
    if cause is not None:  # any other text may name a slide
        return (
            f"{type(cause).__name__}; 'rayfed-hn train' with this method, seed and fold says more"
        )
    return f"its worker died ({type(error).__name__})"
