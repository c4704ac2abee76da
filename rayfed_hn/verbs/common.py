"""What all verbs share: words in; files, a few lines and an exit code out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayfed_hn.config import FORMAL, RELEASE_NOTHING, Config
from rayfed_hn.errors import BudgetSpent, ConfigError, DataError, Interrupted
from rayfed_hn.loading import load, require
from rayfed_hn.reporting.incidents import incidents
from rayfed_hn.run_directory import check_free, claim
from rayfed_hn.storage.keeping import bring, bring_run
from rayfed_hn.storage.remote import is_remote, named, origin_of, remote_of

COPY = "runtime_resources"  # Ray's folder in which a job's copy of the working directory lies


def configuration(
    words: Sequence[str], *, goes_on: bool = False, only_plan: bool = False
) -> Config:
    """The configuration of a command, with what it names in object storage brought here.

    Args:
        words: A file, and section.key=value.
        goes_on: The command goes on with a run that is there, even if it is not told to.
        only_plan: Nothing is written.

    Raises:
        ConfigError: It cannot be used.
        StorageError: What it names cannot be brought.
    """
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(f"'{files[1]}' is not of the form section.key=value")
    config = load(files[0] if files else None, [word for word in words if "=" in word])
    # Actors of a joined cluster work in other folders.
    data = replace(config.data, splits=_absolute(config.data.splits), bags=_bags(config))
    encoder = config.embed.encoder
    for prefix in ("module:", "timm:local-dir:"):
        if encoder.startswith(prefix):
            encoder = f"{prefix}{_absolute(encoder.removeprefix(prefix))}"
    weights = _absolute(config.embed.weights)
    simulation = config.simulation
    directory = _directory(config, goes_on=goes_on, only_plan=only_plan)
    return replace(
        config,
        data=data,
        run=replace(config.run, dir=directory),
        embed=replace(config.embed, encoder=encoder, weights=weights),
        rounds=replace(config.rounds, replay=_absolute(config.rounds.replay)),
        simulation=replace(
            simulation,
            durations=_absolute(simulation.durations),
            absences=_absolute(simulation.absences),
        ),
    )


def _directory(config: Config, *, goes_on: bool, only_plan: bool) -> str | None:
    """Where the run is to be; it is this command's from now on, if that is in object storage."""
    place = config.run.dir
    if not place:
        return place
    goes_on = goes_on or config.run.resume
    return bring(place) if only_plan else bring_run(place, goes_on=goes_on)


def _bags(config: Config) -> str | None:
    """Where the bags are; those of nodes' own are brought there."""
    bags = config.data.bags
    if bags and config.resources.bags_on_nodes and is_remote(bags):
        return str(remote_of(bags).copy)
    return bags and bring(bags)


def _absolute(path: str | None) -> str | None:
    return path and str(Path(path).resolve())


def existing(value: str | None, key: str, remedy: str) -> Path:
    path = Path(require(value, key, remedy))
    if not path.exists():
        raise ConfigError(f"{key}: {path} does not exist; {in_a_job(path) or remedy}")
    return path


def in_a_job(path: Path) -> str:
    """Why a file is not found that is there for whoever submitted; empty where that is not why."""
    if COPY not in path.resolve().parts and COPY not in Path.cwd().parts:
        return ""
    return (
        "a job has a copy of the working directory with code and settings alone; give an absolute "
        f"path on a disk that all nodes share, such as /shared/{path.name}"
    )


def check_ledgers(config: Config, root: Path, *, apart: bool = False) -> None:
    """Refuse formal guarantees for bags that have no disk of their own.

    Args:
        config: Of the run.
        root: The bag store.
        apart: Whether sites are elsewhere: what they release is charged, whatever is simulated.

    Raises:
        ConfigError: A machine could be lost with what its sites have charged, or two of them could
            charge a site without knowing of each other.
    """
    remote, formal = origin_of(root), config.privacy.mechanism in FORMAL
    releases = formal and config.method.name not in RELEASE_NOTHING
    if remote is not None and releases and (apart or not config.simulation.enabled):
        remedy = "" if apart else ", or set simulation.enabled=true"
        raise ConfigError(
            f"data.bags: {remote.uri} is in object storage, and a site's ledger, which lies beside "
            "its bags, has to be on a disk before an update leaves; keep bags on the disks of "
            f"their sites{remedy}"
        )


def planned_dir(config: Config, verb: str, *, measured: bool = False) -> Path:
    """The run directory to be, which nobody has claimed yet.

    Raises:
        ConfigError: It cannot be that.
    """
    name = config.run.dir or f"runs/{verb}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = lasting(Path(name), "run.dir")
    check_free(folder, config, resume=config.run.resume, measured=measured)
    return folder


def run_dir(
    config: Config, verb: str, planned: Path | None = None, *, measured: bool = False
) -> Path:
    """Claim the run directory, which may have been planned before.

    Raises:
        ConfigError: It cannot be had.
    """
    folder = planned or planned_dir(config, verb, measured=measured)
    claim(folder, config, verb, resume=config.run.resume, measured=measured)
    print(f"Run directory: {named(folder)}")
    return folder


def lasting(path: Path, key: str) -> Path:
    """A path that actors can use too, and that is still there when the job has ended.

    Raises:
        ConfigError: It lies in the copy of the working directory that Ray made for a job.
    """
    found = path.resolve()
    if COPY in found.parts:
        raise ConfigError(
            f"{key}: {found} lies in the copy of the working directory that Ray made for this job, "
            f"and would be deleted with it; give {key} an absolute path on a disk that all nodes "
            f"share, such as {key}=/shared/{path.name}"
        )
    return found


def print_placement(lines: Iterable[str]) -> None:
    """Say what will run where, before it does."""
    for line in lines:
        print(line, flush=True)


@contextmanager
def before_anything_starts() -> Iterator[None]:
    """A manifest or bag store that does not fit is a matter of usage as long as nothing runs."""
    try:
        yield
    except DataError as error:
        raise ConfigError(str(error)) from error


@dataclass
class GoingOn:
    """How to go on after an interruption; None: there is nothing yet to go on with."""

    how: str | None = None


@contextmanager
def resumable(how: str | None = None) -> Iterator[GoingOn]:
    """Say how to go on when the block is interrupted."""
    going_on = GoingOn(how)
    try:
        yield going_on
    except KeyboardInterrupt:
        if going_on.how is None:
            raise
        raise Interrupted(f"interrupted; {going_on.how}") from None


def connected(config: Config) -> AbstractContextManager[None]:
    from rayfed_hn.orchestration.resources import connect

    return connect(config)


def print_troubles(summary: dict[str, Any]) -> None:
    for trouble in summary.get("set_aside", []):
        name = trouble.get("slide_id") or trouble["site"]
        print(f"set aside: {name}: {trouble['reason']} ({trouble['remedy']})")
    for loss in summary.get("lost_sites", []):
        what = "stopped" if BudgetSpent.is_told_by(loss["reason"]) else "lost"
        print(f"{what}: site {loss['site']} at version {loss['version']}: {loss['reason']}")
    last = {refused["site"]: refused for refused in summary.get("refused", [])}
    for site, refused in last.items():
        number = sum(other["site"] == site for other in summary["refused"])
        print(
            f"refused: {number} of the updates of site {site}, the last one at version "
            f"{refused['version']}: {refused['reason']}"
        )
    for incident in incidents(summary):
        print(f"note: {incident}")
    for cell in summary.get("failed_cells", []):
        noise = f" noise {cell['noise']:g}" if cell.get("noise") is not None else ""
        print(
            f"missing: {cell['method']} seed {cell['seed']} fold {cell['fold']}{noise}: "
            f"{cell['reason']}"
        )
