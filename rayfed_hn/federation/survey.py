"""What a bag store holds for a configuration: who can take part, and in what task."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rayfed_hn.bags import set_aside as unmade
from rayfed_hn.bags.splits import Split, check_leakage
from rayfed_hn.bags.store import BagEntry, SiteBags, list_sites, read_recipe, recipe_digest
from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError, SetAside
from rayfed_hn.federation.data import Folds, num_bags, open_sites
from rayfed_hn.federation.labels import check_cases, find_task, knows, notes
from rayfed_hn.models.tasks import Survival, Task


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        hospitals: Sites with bags to train on, sorted.
        set_aside: Sites of which something, or everything, cannot be used, with the reason.
        task: What is predicted, with the names of classes that all sites share.
        feature_dim: D.
        num_bags: Training, validation and test bags of every hospital.
        num_unnamed: Bags that the tables of ``data.splits`` put into no part of this fold.
        digest: Of what decides the division of the cases: recipe, slides, cases, labels, tables.
        notes: What a user should know of the labels.
        num_cases: Training cases of every hospital; empty where bags are not of cases.
    """

    hospitals: tuple[str, ...]
    set_aside: tuple[tuple[str, SetAside], ...]
    task: Task
    feature_dim: int
    num_bags: Mapping[str, tuple[int, int, int]]
    num_unnamed: int
    digest: str
    notes: tuple[str, ...]
    num_cases: Mapping[str, int] = field(default_factory=dict, kw_only=True)


def survey(config: Config, root: Path) -> Survey:
    """Look at the metadata of all bags.

    Raises:
        DataError, ConfigError: As ``make_plan`` says.
    """
    folds = Folds.of(config)
    sites = open_sites(root, _taking_part(root, config), config.data)
    entries = {name: bags.entries for name, bags in sites.items()}
    check_leakage(entries)
    folds.check(entries, _without_bag(root, config, sites))
    task = find_task(config, entries, folds.training)
    for bags in sites.values():
        bags.keep(lambda entry: knows(task, entry))
    entries = {name: bags.entries for name, bags in sites.items() if bags.entries}
    check_cases(task, entries)
    parts = {name: folds.split(own) for name, own in entries.items()}
    counts = {name: _counts(entries[name], split, task) for name, split in parts.items()}
    hospitals = tuple(name for name, (num_train, _, _) in sorted(counts.items()) if num_train)
    if not hospitals:
        raise DataError("no site has a case to train on; lower the number of folds")
    named = sum(len(p.train) + len(p.validation) + len(p.test) for p in parts.values())
    return Survey(
        hospitals,
        (*_damaged(sites), *_unlabelled(sites, task), *_idle(counts)),
        task,
        _feature_dim(sites),
        counts,
        sum(len(own) for own in entries.values()) - named,
        _digest(config, root, sites, folds),
        (*_left_out(config), *notes(task, entries)),
        num_cases={name: _cases(entries[name], split) for name, split in parts.items()},
    )


def _left_out(config: Config) -> list[str]:
    out = config.data.leave_out
    return [f"{', '.join(out)} takes no part (data.leave_out)"] if out else []


def _without_bag(root: Path, config: Config, sites: Mapping[str, SiteBags]) -> list[str]:
    """Slides that tables of splits may name although they take no part."""
    emptied = [name for bags in sites.values() for name in bags.emptied]
    failed = [entry.slide_id for entry in unmade.list_all(root)]
    folders = [root / f"site={name}" for name in config.data.leave_out]
    out = [path.stem for folder in folders for path in folder.glob("*.arrow")]
    return [*emptied, *failed, *out]


def _feature_dim(sites: Mapping[str, SiteBags]) -> int:
    dims = {name: bags.feature_dim for name, bags in sites.items()}
    if len(set(dims.values())) != 1:
        raise DataError(f"sites have features of different lengths: {dims}; embed them alike")
    return next(iter(dims.values()))


def _taking_part(root: Path, config: Config) -> list[str]:
    names, out = list_sites(root), config.data.leave_out
    strangers = sorted(set(out) - set(names))
    if strangers:
        raise ConfigError(
            f"data.leave_out: {', '.join(strangers)} is no site of {root}; it has "
            f"{', '.join(names)}"
        )
    left = [name for name in names if name not in out]
    if out and not left:
        raise ConfigError(f"data.leave_out: names every site of {root}; leave at least one in")
    return left


def _idle(counts: Mapping[str, tuple[int, int, int]]) -> list[tuple[str, SetAside]]:
    return [(name, _NO_TRAINING) for name, count in sorted(counts.items()) if count[0] == 0]


def _unlabelled(sites: Mapping[str, SiteBags], task: Task) -> list[tuple[str, SetAside]]:
    timed = isinstance(task, Survival)
    what = "no time" if timed else f"none of the labels {', '.join(task.names)}"
    remedy = f"correct the manifest and embed again{'' if timed else ', or task.classes'}"
    return [
        (
            name,
            SetAside(
                f"{len(bags.unlabelled)} of its bags have {what}{_instead(bags, timed)}", remedy
            ),
        )
        for name, bags in sorted(sites.items())
        if bags.unlabelled
    ]


def _instead(bags: SiteBags, timed: bool) -> str:
    found = Counter(entry.label for entry in bags.unlabelled if entry.label)
    if timed or not found:
        return ""
    return f", but {', '.join(f'{label!r} ({count})' for label, count in sorted(found.items()))}"


_NO_TRAINING = SetAside(
    "the site has no case to train on in this fold",
    "give it more cases or lower the number of folds",
)


def _counts(entries: Sequence[BagEntry], split: Split, task: Task) -> tuple[int, int, int]:
    train, validation, test = (
        num_bags(entries, part, task) for part in (split.train, split.validation, split.test)
    )
    return train, validation, test


def _cases(entries: Sequence[BagEntry], split: Split) -> int:
    return len({entries[index].case_id for index in split.train})


def _digest(config: Config, root: Path, sites: Mapping[str, SiteBags], folds: Folds) -> str:
    """Cheap, from metadata: what a continued run must find unchanged."""
    hasher = hashlib.sha256(recipe_digest(read_recipe(root)).encode())
    hasher.update(repr(tile_filter(config.data)).encode())
    hasher.update(folds.digest.encode())
    for name, bags in sorted(sites.items()):
        for e in bags.entries:
            stated = (e.slide_id, e.case_id, e.label, e.time, e.event, e.num_tiles)
            hasher.update(repr((name, *stated)).encode())
    return hasher.hexdigest()


def _damaged(sites: Mapping[str, SiteBags]) -> list[tuple[str, SetAside]]:
    remedy = "run rayfed-hn embed again: it finds such bags and makes them anew"
    return [
        (name, SetAside(f"{len(bags.unusable)} of its bags cannot be read", remedy))
        for name, bags in sorted(sites.items())
        if bags.unusable
    ]
