"""What is kept of a trial: one JSON file each, and one line each of ``trials.jsonl``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rayfed_hn.config import Config
from rayfed_hn.federation.cell import fingerprint
from rayfed_hn.federation.record import write_record
from rayfed_hn.files import write_text
from rayfed_hn.saving import saving
from rayfed_hn.tuning.trials import Trial, divisions, trial_config

FOLDER = "trials"


def mark(config: Config, trial: Trial, store_digest: str) -> str:
    """What the result of a trial depends on: a record with another one is not taken up again."""
    own = trial_config(config, trial.settings)
    parts = [fingerprint(own, store_digest), asdict(own.method), divisions(config), own.data.folds]
    return hashlib.sha256(repr([*parts, sorted(trial.settings.items())]).encode()).hexdigest()


def keep(folder: Path, trial: Trial, record: Mapping[str, Any], mark: str) -> None:
    """Write the record of a trial that has ended.

    Raises:
        DataError: It cannot be written.
    """
    write_record(_file(folder, trial.name), {"mark": mark, **record})


def kept(folder: Path, trial: Trial, mark: str) -> dict[str, Any] | None:
    """The record of a trial; None if it has to be made."""
    found = _read(_file(folder, trial.name))
    return found if found is not None and found.pop("mark", None) == mark else None


def all_kept(folder: Path) -> list[dict[str, Any]]:
    """Every record there is, of trials whose settings followed from results, by number."""
    found = [_read(path) for path in sorted((folder / FOLDER).glob("trial-*.json"))]
    return [record for record in found if record is not None]


def write_lines(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write ``trials.jsonl``."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    with saving(folder):
        write_text(folder / "trials.jsonl", text)


def record_of(
    trial: Trial,
    config: Config,
    *,
    status: str,
    curve: list[float | None],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """What is known of a trial.

    Args:
        trial: Which.
        config: Of the search.
        status: finished, stopped (by the scheduler) or failed.
        curve: Validation metric of versions 0, 1, ...
        about: ``by_division``, ``epsilon``, ``seconds`` and ``reason``, as far as they are known.
    """
    own = trial_config(config, trial.settings)
    paper = own.privacy.mechanism == "paper"
    return {
        "trial": trial.number,
        "settings": dict(trial.settings),
        "status": status,
        "version": len(curve) - 1,
        "validation_metric": curve[-1] if curve and status != "failed" else None,
        "by_division": [
            {"seed": seed, "fold": fold, "validation_metric": value}
            for (seed, fold), value in zip(
                divisions(config), about.get("by_division", ()), strict=False
            )
        ],
        "curve": curve,
        "epsilon": about.get("epsilon"),
        "noise_scale": own.privacy.noise_scale if paper else None,
        "seconds": about.get("seconds"),
        "reason": about.get("reason"),
    }


def _file(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
