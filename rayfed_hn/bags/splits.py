"""Divides the cases of every site into folds: by case, never by slide.

Two slides of one case share far more than a diagnosis; a split by slide measures memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rayfed_hn.bags.clam_tables import ClamSplit
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.seeds import derive


class Entry(Protocol):
    """What a split needs to know of a bag (``rayfed_hn.bags.store.BagEntry`` has it)."""

    @property
    def case_id(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def label(self) -> str | int: ...


class NamedEntry(Entry, Protocol):
    """What a split by name needs to know of a bag."""

    @property
    def slide_id(self) -> str: ...


@dataclass(frozen=True)
class Split:
    """Indices into the entries of one site; disjoint, and no case is in two of them.

    ``split`` puts every entry into a part; ``given_split`` leaves out those that it does not name.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def assign_folds(entries: Sequence[Entry], num_folds: int, seed: int) -> list[int]:
    """Return the fold of every entry of one site.

    Cases stay whole. The biggest case goes first, each into the fold where it disturbs the
    balance of labels least, then that of slides. Equal choices and the order of equally big
    cases are drawn from ``seed`` and the site, so the order of ``entries`` has no influence.
    A site with fewer cases than folds leaves some folds empty; the seed says which.

    Args:
        entries: All bags of one site.
        num_folds: Parts to make, at least 3 (test, validation, train).
        seed: The run's seed.

    Raises:
        ConfigError: ``num_folds`` is below 3.
        ValueError: The entries are of several sites.
    """
    if num_folds < 3:
        raise ConfigError(
            f"data.folds or compare.folds is {num_folds}; test, validation and train need 3 or more"
        )
    sites = {entry.site for entry in entries}
    if len(sites) > 1:
        raise ValueError(f"assign_folds takes the entries of one site, not of {len(sites)}")
    if not entries:
        return []
    fold_of = _assign_cases(_labels_by_case(entries), num_folds, derive(seed, "folds", *sites))
    return [fold_of[entry.case_id] for entry in entries]


def split(entries: Sequence[Entry], num_folds: int, fold: int, seed: int) -> Split:
    """Return the split of one site in which ``fold`` is test and the next fold validation.

    Where a site has so few cases that nothing would be left to train on, its validation cases
    train instead and ``validation`` is empty. A site whose only case is under test has no
    training bag: ``train`` is empty then, and the caller decides what that means.

    Raises:
        ConfigError: ``fold`` is not one of ``num_folds``, or that is below 3.
    """
    if not 0 <= fold < num_folds:
        raise ConfigError(f"data.fold is {fold}; with {num_folds} folds it is 0 to {num_folds - 1}")
    folds = assign_folds(entries, num_folds, seed)
    validation_fold = (fold + 1) % num_folds
    test = tuple(i for i, f in enumerate(folds) if f == fold)
    validation = tuple(i for i, f in enumerate(folds) if f == validation_fold)
    train = tuple(i for i, f in enumerate(folds) if f not in (fold, validation_fold))
    if not train:
        train, validation = validation, ()
    return Split(train, validation, test)


def given_split(entries: Sequence[NamedEntry], given: ClamSplit) -> Split:
    """Return the split of one site that a table states; slides in no part are in none here.

    Raises:
        DataError: Slides of one case are in two parts.
    """
    index = {entry.slide_id: i for i, entry in enumerate(entries)}

    def find(names: Sequence[str]) -> tuple[int, ...]:
        return tuple(sorted(index[name] for name in names if name in index))

    parts = Split(find(given.train), find(given.validation), find(given.test))
    leaking = sorted(shared_cases(entries, parts))
    if leaking:
        raise DataError(
            f"{given.source}: slides of {len(leaking)} case(s) are in two parts (first: "
            f"{leaking[0]!r} at {entries[0].site}), so a case that trains is tested on; put all "
            "slides of a case into one part, or correct case_id in the manifest and embed again"
        )
    return parts


def check_given(
    by_site: Mapping[str, Sequence[NamedEntry]], given: ClamSplit, without: Collection[str] = ()
) -> None:
    """Refuse a stated split that names slides nobody has, or divides a case.

    Args:
        by_site: All bags of every site.
        given: The split.
        without: slide_ids that may be named although there is no bag: those set aside.

    Raises:
        DataError: Says how many slides are unknown, or that a case is in two parts.
    """
    known = {entry.slide_id for entries in by_site.values() for entry in entries} | set(without)
    named = (*given.train, *given.validation, *given.test)
    unknown = [name for name in named if name not in known]
    if unknown:
        raise DataError(
            f"{given.source}: {len(unknown)} of its {len(named)} slides have no bag (first: "
            f"{unknown[0]!r}); embed them, or take them out of the table. Names must be equal to "
            "slide_id to the letter: 7.0 is not 7"
        )
    for entries in by_site.values():
        given_split(entries, given)


def shared_cases(entries: Sequence[Entry], parts: Split) -> set[str]:
    """Return the cases that occur in more than one part of a split; empty when it is sound."""
    names = [{entries[i].case_id for i in p} for p in (parts.train, parts.validation, parts.test)]
    train, validation, test = names
    return (train & validation) | (train & test) | (validation & test)


def check_leakage(by_site: Mapping[str, Sequence[Entry]]) -> None:
    """Refuse a federation in which a case is at two sites: folds are made site by site.

    Raises:
        DataError: Says how many cases and which sites; names no case but the first.
    """
    sites_of: dict[str, set[str]] = defaultdict(set)
    for site, entries in by_site.items():
        for entry in entries:
            sites_of[entry.case_id].add(site)
    shared = sorted(case for case, sites in sites_of.items() if len(sites) > 1)
    if not shared:
        return
    sites = sorted(set().union(*(sites_of[case] for case in shared)))
    raise DataError(
        f"{len(shared)} case_id(s) occur at more than one site (first: {shared[0]!r}; sites: "
        f"{', '.join(sites)}), so the same case could be in train and in test. If they are the "
        "same case, move its slides to one site; if not, make case_id unique (for example "
        "<site>-<case>) in the manifest and run embed again."
    )


def _labels_by_case(entries: Sequence[Entry]) -> dict[str, Counter[str | int]]:
    """Return for every case how many slides of each label it has."""
    cases: dict[str, Counter[str | int]] = defaultdict(Counter)
    for entry in entries:
        cases[entry.case_id][entry.label] += 1
    return cases


def _assign_cases(
    cases: Mapping[str, Counter[str | int]], num_folds: int, seed: int
) -> dict[str, int]:
    """Return the fold of every case, greedily and independent of the order of ``cases``."""
    rng = np.random.default_rng(seed)
    names = sorted(cases)
    rank = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
    preference = rng.permutation(num_folds).tolist()
    num_slides: Counter[str | int] = sum(cases.values(), Counter())
    held: list[Counter[str | int]] = [Counter() for _ in range(num_folds)]
    fold_of: dict[str, int] = {}
    for name in sorted(names, key=lambda n: (-cases[n].total(), rank[n])):
        fold_of[name] = min(
            range(num_folds),
            key=lambda f: (*_imbalance(held[f], cases[name], num_slides), preference[f]),
        )
        held[fold_of[name]] += cases[name]
    return fold_of


def _imbalance(
    held: Counter[str | int], case: Counter[str | int], num_slides: Counter[str | int]
) -> tuple[float, float]:
    """Return how much a case adds to the squared shares of a fold: by label, then in all.

    The sum of squared shares over folds is least when they are even; dividing by the number of
    slides of a label keeps a rare label from being outvoted by a frequent one.
    """
    labels = sorted(case, key=lambda label: (str(type(label)), label))
    by_label = sum((2 * held[k] + case[k]) * case[k] / num_slides[k] ** 2 for k in labels)
    return by_label, (2 * held.total() + case.total()) * case.total()
