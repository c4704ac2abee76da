"""``tune``: trials on Ray Tune, then the best setting once more on divisions nobody has seen."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from rayfed_hn.bags import store
from rayfed_hn.config import Config
from rayfed_hn.errors import FederationError
from rayfed_hn.federation.cell import Cell, fingerprint, run_cell
from rayfed_hn.federation.record import package_versions, write_record, write_summary
from rayfed_hn.files import write_text
from rayfed_hn.loading import to_yaml
from rayfed_hn.orchestration.compare import reason
from rayfed_hn.orchestration.tune_trials import News, run_trials
from rayfed_hn.saving import saving
from rayfed_hn.tuning.front import best
from rayfed_hn.tuning.records import all_kept, keep, kept, mark, write_lines
from rayfed_hn.tuning.search import Search, once, tested
from rayfed_hn.tuning.trials import Trial, final_divisions, tuned

_run_cell: Any = ray.remote(num_cpus=1, max_retries=1)(run_cell)

Record = dict[str, Any]


def try_all(
    search: Search, root: Path, folder: Path, on_trial: Callable[[int, News | None], object]
) -> list[Record]:
    """Run the trials that are not done yet; those that end well are kept as they end.

    Args:
        search: What is searched.
        root: The bag store.
        folder: The run directory; finished trials of the same configuration in it are kept.
        on_trial: Called with the number of trials that have ended, and what was heard.

    Returns:
        The records of all trials, by number.

    Raises:
        FederationError: No trial could be finished, or some have not ended.
    """
    config, digest = search.config, store.digest(root)
    found = _kept(search, folder, digest)
    on_trial(len(found), None)

    def hear(news: News) -> None:
        if news.record is not None:
            found[news.trial.number] = dict(news.record)
            if news.record["status"] != "failed":
                keep(folder, news.trial, news.record, mark(config, news.trial, digest))
            write_lines(folder, _by_number(found))
        on_trial(len(found), news)

    missing = [trial for trial in search.trials if trial.number not in found]
    if missing or (search.adaptive and len(found) < search.num_trials):
        run_trials(search, root, folder, missing, _by_number(found), hear)
    records = _by_number(found)
    write_lines(folder, records)
    if len(records) < search.num_trials:
        raise FederationError(
            f"{search.num_trials - len(records)} of {search.num_trials} trials have not ended; "
            f"run.dir={folder} run.resume=true goes on with them"
        )
    if best(records) is None:
        why = next((r["reason"] for r in records if r["reason"]), "no metric is defined")
        raise FederationError(f"no trial could be finished; the first: {why}")
    return records


def conclude(
    search: Search,
    records: list[Record],
    root: Path,
    folder: Path,
    on_cell: Callable[[int, int], object],
) -> dict[str, Any]:
    """Test the best setting on divisions that no trial has seen, and write all files.

    Args:
        search: What was searched.
        records: From ``try_all``.
        root: The bag store.
        folder: The run directory; finished cells of the same configuration in it are kept.
        on_cell: Called with (done, total) at the start and after each training.

    Returns:
        ``summary.json``.
    """
    begun = time.monotonic()
    chosen = best(records)
    assert chosen is not None
    concluded = search.concluded(records)
    _write_settings(search.config, folder, records, concluded)
    cells, failed = _final(search, chosen["settings"], root, folder, on_cell)
    final = tested(search, chosen["settings"], cells) if cells else None
    seconds = sum(r["seconds"] or 0.0 for r in records) + time.monotonic() - begun
    summary = _summary(search, records, concluded, final, failed, seconds)
    write_summary(folder, summary)
    return summary


def _kept(search: Search, folder: Path, digest: str) -> dict[int, Record]:
    trials = search.trials or [Trial(r["trial"], r["settings"]) for r in all_kept(folder)]
    found = {
        trial.number: kept(folder, trial, mark(search.config, trial, digest)) for trial in trials
    }
    return {number: record for number, record in found.items() if record is not None}


def _by_number(found: Mapping[int, Record]) -> list[Record]:
    return [found[number] for number in sorted(found)]


def _write_settings(
    config: Config, folder: Path, records: list[Record], concluded: Mapping[str, Any]
) -> None:
    """Configurations that train accepts: of the best setting, and of every one on the front."""
    settings = {record["trial"]: record["settings"] for record in records}
    files = {folder / "best.yaml": concluded["best"]}
    files |= {folder / "front" / f"trial-{n:04}.yaml": n for n in concluded["front"]}
    with saving(folder):
        for path, number in files.items():
            write_text(path, to_yaml(tuned(config, settings[number])))


def _final(
    search: Search,
    chosen: Mapping[str, Any],
    root: Path,
    folder: Path,
    on_cell: Callable[[int, int], object],
) -> tuple[dict[str, list[Record]], list[Record]]:
    """Train and test what is left, a Ray task a division; returns records by arm, and failures."""
    digest, done, failed = store.digest(root), {}, []
    todo: dict[tuple[str, int, int], tuple[Config, str]] = {}
    for arm, config in search.finals(chosen).items():
        own = f"{fingerprint(config, digest)} {config.method.name}"
        todo |= {(arm, *division): (config, own) for division in final_divisions(search.config)}
    for key, (_, own) in todo.items():
        if (record := _read(_file(folder, key), own)) is not None:
            done[key] = record
    on_cell(len(done), len(todo))
    left = iter([key for key in todo if key not in done])
    waiting: dict[Any, tuple[str, int, int]] = {}
    while True:
        room = (search.config.tune.max_concurrent or len(todo)) - len(waiting)
        for key in itertools.islice(left, room):
            config = todo[key][0]
            waiting[_run_cell.remote(Cell(config.method.name, *key[1:]), config, root)] = key
        if not waiting:
            break
        ready, _ = ray.wait(list(waiting), num_returns=1)
        key = waiting.pop(ready[0])
        try:
            done[key] = ray.get(ready[0])
            write_record(_file(folder, key), {"fingerprint": todo[key][1], **done[key]})
        except RayError as error:
            failed.append(dict(zip(("method", "seed", "fold"), key, strict=True)))
            failed[-1]["reason"] = reason(error)
        on_cell(len(done), len(todo))
    arms = dict.fromkeys(key[0] for key in todo if key in done)
    return {arm: [done[k] for k in todo if k in done and k[0] == arm] for arm in arms}, failed


def _file(folder: Path, key: tuple[str, int, int]) -> Path:
    return folder / "final" / f"{key[0]}-seed{key[1]}-fold{key[2]}.json"


def _read(path: Path, own: str) -> Record | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if found.pop("fingerprint", None) == own else None


def _summary(
    search: Search,
    records: list[Record],
    concluded: dict[str, Any],
    final: Record | None,
    failed: list[Record],
    seconds: float,
) -> dict[str, Any]:
    bad = [r for r in records if r["status"] == "failed"]
    names = ("trial", "settings", "reason")
    lost = final["lost_sites"] if final else []
    plan = search.plan
    aside = once([*search.set_aside, *(final["set_aside"] if final else [])])
    degraded = bool(bad or failed or lost or aside or (final and final["refused"]))
    return {
        "verb": "tune",
        "status": "degraded" if degraded else "complete",
        "exit_code": 3 if degraded else 0,
        "task": plan.task.kind,
        "classes": list(plan.task.names),
        "unit": plan.task.unit,
        **concluded,
        "final": final,
        "failed_trials": [{name: r[name] for name in names} for r in bad],
        "failed_cells": failed,
        "lost_sites": lost,
        "refused": final["refused"] if final else [],
        "set_aside": aside,
        "seconds": round(seconds, 2),
        "versions": package_versions(),
    }
