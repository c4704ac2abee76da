"""A run directory belongs to one configuration."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import asdict
from pathlib import Path

import yaml

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.files import write_text
from rayfed_hn.loading import to_yaml
from rayfed_hn.locks import hold
from rayfed_hn.saving import saving
from rayfed_hn.trees import flatten

VERB = "verb"  # the file that names what made the run

# What may change between a run and its continuation: where it runs, not what it computes.
_MAY_CHANGE = ("run.dir", "run.resume", "run.track", "evaluation.attention_maps")
_WHERE = ("resources.", "data.bags")  # whether the bags are the same is asked of the bags


def run_id(folder: Path) -> str:
    """What tells a run from every other, in the ledgers of its sites; made with its directory."""
    found = known_run(folder)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        found = uuid.uuid4().hex
        write_text(folder / "run_id", found)
    return found


def known_run(folder: Path) -> str | None:
    """The run that a directory is of; None if that is not written down yet.

    Raises:
        DataError: What is written there is damaged.
    """
    path = folder / "run_id"
    if not path.exists():
        return None
    found = path.read_text(encoding="utf-8").strip()
    if not re.fullmatch("[0-9a-f]{32}", found):
        raise DataError(
            f"{path} is damaged, and the ledgers of the sites know the run by it; restore it from "
            "a backup (a site's ledger has it as 'run')"
        )
    return found


def claim(folder: Path, config: Config, verb: str, *, resume: bool, measured: bool = False) -> None:
    """Make a run directory, write its resolved configuration, and keep others out of it.

    It is this process's until this process ends.

    Args:
        folder: The run directory.
        config: Of the run.
        verb: What makes the run.
        resume: Go on with a run that is there.
        measured: Time is what the run finds out, so that it must go on where it began.

    Raises:
        ConfigError: It holds a run already and ``resume`` is false, or a run of another
            configuration; or another process is at work there.
    """
    _keep_out(folder)
    check_free(folder, config, resume=resume, measured=measured)
    path = folder / "config.yaml"
    with saving(folder):
        for name in ("summary.json", "privacy.json"):  # they would speak for the run before
            (folder / name).unlink(missing_ok=True)
        write_text(folder / VERB, f"{verb}\n")
        write_text(path, to_yaml(config))


def check_free(folder: Path, config: Config, *, resume: bool, measured: bool = False) -> None:
    """Refuse a folder that ``claim`` would refuse for what is in it; nothing is written.

    Raises:
        ConfigError: As ``claim`` says.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return
    if not resume:
        raise ConfigError(
            f"run.dir: {folder} holds a run already; give run.resume=true to go on with it, or "
            "another folder"
        )
    _check_same(path, config, _MAY_CHANGE if measured else (*_MAY_CHANGE, *_WHERE))


def _keep_out(folder: Path) -> None:
    holder = hold(folder / "lock")
    if holder is not None:
        raise ConfigError(
            f"run.dir: {folder} is in use by {holder}; wait until that has ended, or end it ("
            f"{holder.ended_by}) and give the same command again, or give another "
            "run.dir"
        )


def verb_of(folder: Path) -> str | None:
    """The verb that a run was made by; None if nobody has written that down."""
    path = folder / VERB
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


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
