"""A run directory belongs to one configuration."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict
from pathlib import Path

import yaml

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.files import write_text
from rayfed_hn.loading import to_yaml
from rayfed_hn.trees import flatten

# What may change between a run and its continuation: where it runs, not what it computes.
_MAY_CHANGE = ("run.dir", "run.resume")
_WHERE = ("resources.", "data.bags")  # whether the bags are the same is asked of the bags


def run_id(folder: Path) -> str:
    """What tells a run from every other, in the ledgers of its sites; made with its directory."""
    path = folder / "run_id"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8")


def claim(folder: Path, config: Config, *, resume: bool, measured: bool = False) -> None:
    """Make a run directory and write its resolved configuration.

    Args:
        folder: The run directory.
        config: Of the run.
        resume: Go on with a run that is there.
        measured: Time is what the run finds out, so that it must go on where it began.

    Raises:
        ConfigError: It holds a run already and ``resume`` is false, or a run of another
            configuration.
    """
    path = folder / "config.yaml"
    if path.exists():
        if not resume:
            raise ConfigError(
                f"run.dir: {folder} holds a run already; give run.resume=true to go on with it, or "
                "another folder"
            )
        _check_same(path, config, _MAY_CHANGE if measured else (*_MAY_CHANGE, *_WHERE))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("summary.json", "privacy.json"):  # they would speak for the run before
        (folder / name).unlink(missing_ok=True)
    write_text(path, to_yaml(config))


def config_digest(config: Config) -> str:
    """SHA-256 of what may not change between a run and its continuation."""
    found = sorted(flatten(asdict(config)))
    kept = [(key, repr(value)) for key, value in found if not key.startswith(_MAY_CHANGE + _WHERE)]
    return hashlib.sha256(repr(kept).encode()).hexdigest()


def _check_same(path: Path, config: Config, may_change: tuple[str, ...]) -> None:
    found = dict(flatten(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
    asked = dict(flatten(asdict(config)))
    for key in sorted(found.keys() | asked.keys()):
        if not key.startswith(may_change) and found.get(key) != asked.get(key):
            raise ConfigError(
                f"{key}: got {asked.get(key)!r}, but the run in {path.parent} has "
                f"{found.get(key)!r}; continue with the same value or give another run.dir"
            )
