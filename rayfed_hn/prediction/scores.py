"""What the networks of a run say of the bags of a store, one record a bag.

Shapes: S predictions.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rayfed_hn.bags.set_aside import SetAsideEntry, list_all
from rayfed_hn.bags.store import BagEntry, SiteBags, list_sites
from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.files import write_atomically
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.tasks import Task
from rayfed_hn.prediction.finished import FinishedRun
from rayfed_hn.prediction.networks import Network, network_for

REMEDY = "rayfed-hn embed makes damaged bags again"
REMEDY_SITE = "give a run whose method shares a network, or onboard the site"
SEPARATOR = ";"  # between the slides of a case; no slide_id holds one


@dataclass(frozen=True)
class Prediction:
    """What a network says of one bag.

    Attributes:
        site, slide_ids, case_id: Of the bag; several slides where a bag is a case.
        num_tiles: Tiles that were looked at.
        network: Whose it was.
        predicted_S: As ``Task.predict`` gives it, float32 (S,).
    """

    site: str
    slide_ids: tuple[str, ...]
    case_id: str
    num_tiles: int
    network: str
    predicted_S: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """All that could be said.

    Attributes:
        found: One record a bag.
        set_aside: What could not be scored, and why.
        notes: What a reader should know of the networks.
    """

    found: tuple[Prediction, ...]
    set_aside: tuple[SetAsideEntry, ...]
    notes: tuple[str, ...]


def predict(
    run: FinishedRun,
    root: Path,
    sites: Sequence[str] = (),
    on_bag: Callable[[int, int], object] = lambda done, total: None,
) -> Predictions:
    """Score the bags of a store, each site's with that site's network.

    Args:
        run: A finished run.
        root: A bag store of the run's recipe.
        sites: Only these; empty: all that the store has.
        on_bag: Called with bags done and bags in all.

    Raises:
        ConfigError: There is no such site in the store.
        DataError: A network's file is damaged, or no bag could be scored.
    """
    opened, aside = _open(run, root, _chosen(root, sites))
    aside += _never_bags(root, sites)
    todo = {site: groups(run.task, bags.entries) for site, bags in opened.items()}
    found: list[Prediction] = []
    notes: list[str] = []
    done, total = 0, sum(map(len, todo.values()))
    for site, bags in opened.items():
        try:
            network = network_for(run, site, lambda bags=bags: list(whole(bags)))
        except ConfigError as error:
            aside += [_aside(entry, str(error), REMEDY_SITE) for entry in bags.entries]
            total -= len(todo[site])
            continue
        notes += _notes(run, site, network)
        for group in todo[site]:
            try:
                found.append(_score(bags, group, network))
            except DataError as error:
                aside += [_aside(bags.entries[i], str(error), REMEDY) for i in group]
            done += 1
            on_bag(done, total)
    if not found:
        raise _nothing(root, aside)
    return Predictions(tuple(found), tuple(aside), tuple(notes))


def groups(task: Task, entries: Sequence[BagEntry]) -> list[list[int]]:
    """Indices of the slides of every bag: one each, or all of a case."""
    if task.unit != "case":
        return [[index] for index in range(len(entries))]
    by_case: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        by_case.setdefault(entry.case_id, []).append(index)
    return list(by_case.values())


def unlabelled(bags: SiteBags, group: Sequence[int]) -> LabelledBag:
    """The bag of some slides; what its label says is nothing that anybody asks."""
    first, *more = (bags.load(index).features_ND for index in group)
    return LabelledBag(first, 0, more=tuple(more))


def write_csv(path: Path, task: Task, found: Sequence[Prediction]) -> None:
    """Write one line a bag; numbers in the shortest form that reads back to the same float32."""
    head = ["site", "slide_id", "case_id", "num_tiles", "network", *columns(task)]
    rows = [
        [
            *(one.site, SEPARATOR.join(one.slide_ids), one.case_id, one.num_tiles, one.network),
            *(str(value) for value in values(task, one.predicted_S)),
            *map(plain, called(task, one.predicted_S)),
        ]
        for one in found
    ]
    _write(path, [head if task.kind == "survival" else [*head, "predicted"], *rows])


def write_set_aside(path: Path, aside: Sequence[SetAsideEntry]) -> None:
    """Write what was set aside, one line each."""
    rows = [[one.site, one.slide_id, plain(one.reason), plain(one.remedy)] for one in aside]
    _write(path, [["site", "slide_id", "reason", "remedy"], *rows])


def columns(task: Task) -> list[str]:
    """Names of what is predicted: a probability of every class or grade, or a risk."""
    if task.kind == "survival":
        return ["risk"]
    return [f"probability_{name}" for name in task.names]


def values(task: Task, predicted_S: np.ndarray) -> np.ndarray:
    """What stands in the ``columns``, float32."""
    if task.kind == "binary":
        return np.array([1 - predicted_S[0], predicted_S[0]], np.float32)
    return predicted_S


def called(task: Task, predicted_S: np.ndarray) -> list[str]:
    """Which class or grade a bag is called; nothing of survival.

    The likelier of two classes (the second at exactly one half), the likeliest of several, the mean
    grade, rounded.
    """
    if task.kind == "survival":
        return []
    if task.kind == "binary":
        return [task.names[int(predicted_S[0] >= 0.5)]]
    return [task.names[int(task.judge.decided(predicted_S[None])[0])]]


def plain(text: str) -> str:
    """A name as a cell that no spreadsheet takes for a formula: one that begins like one gets a '.

    Names are those of a run, which may be somebody else's; numbers and single signs stay.
    """
    begins = len(text) > 1 and text[0] in "=+-@\t\r"
    return f"'{text}" if begins and not re.fullmatch(r"[+-][0-9.]+", text) else text


def _write(path: Path, rows: Sequence[Sequence[object]]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    write_atomically(path, write)


def _chosen(root: Path, sites: Sequence[str]) -> list[str]:
    known = list_sites(root)
    missing = [site for site in sites if site not in known]
    if missing:
        raise ConfigError(
            f"--site: {root} has no bags of {missing[0]}; it has {', '.join(known) or 'none'}"
        )
    return list(dict.fromkeys(sites)) or known


def _never_bags(root: Path, sites: Sequence[str]) -> list[SetAsideEntry]:
    """Slides that embed could make no bag of: a table without them would look whole."""
    return [
        entry
        for entry in list_all(root)
        if entry.site in (sites or (entry.site,))
        and not (root / f"site={entry.site}" / f"{entry.slide_id}.arrow").exists()
    ]


def _open(
    run: FinishedRun, root: Path, sites: Sequence[str]
) -> tuple[dict[str, SiteBags], list[SetAsideEntry]]:
    """The sites with bags that can be used, without the tiles that training left out."""
    opened: dict[str, SiteBags] = {}
    aside: list[SetAsideEntry] = []
    for site in sites:
        try:
            opened[site] = bags = SiteBags(root, site, tile_filter(run.config.data))
        except DataError as error:
            aside.append(SetAsideEntry("", site, str(error), REMEDY, ""))
            continue
        aside += [SetAsideEntry(slide_of(why), site, why, REMEDY, "") for why in bags.unusable]
        aside += leave_out_unfit(run, bags)
    return opened, aside


def leave_out_unfit(run: FinishedRun, bags: SiteBags) -> list[SetAsideEntry]:
    """Leave out the bags that the networks of a run cannot take, and return why."""
    width = run.stated.feature_dim
    unfit = [entry for entry in bags.entries if entry.feature_dim != width]
    bags.keep(lambda entry: entry.feature_dim == width)
    return [_aside(e, f"{e.feature_dim} features a tile, not {width}", REMEDY) for e in unfit]


def slide_of(why: str) -> str:
    """Which slide the store complains of: its complaints begin with the file."""
    return Path(why.partition(".arrow: ")[0]).name


def _aside(entry: BagEntry, reason: str, remedy: str) -> SetAsideEntry:
    return SetAsideEntry(entry.slide_id, entry.site, reason, remedy, entry.source_sha256)


def _nothing(root: Path, aside: Sequence[SetAsideEntry]) -> DataError:
    why = f": {aside[0].site}/{aside[0].slide_id}: {aside[0].reason}" if aside else ""
    return DataError(f"no bag of {root} could be scored{why}")


def whole(bags: SiteBags) -> Iterator[LabelledBag]:
    """Those that a scale of features can be measured over, each slide a bag."""
    for index in range(len(bags)):
        with contextlib.suppress(DataError):
            bag = unlabelled(bags, [index])
            if np.isfinite(bag.features_ND).all():
                yield bag


def _score(bags: SiteBags, group: Sequence[int], network: Network) -> Prediction:
    bag, entries = unlabelled(bags, group), [bags.entries[index] for index in group]
    names = tuple(entry.slide_id for entry in entries)
    case, site = entries[0].case_id, entries[0].site
    return Prediction(site, names, case, len(bag), network.name, network.predict(bag))


def _notes(run: FinishedRun, site: str, network: Network) -> list[str]:
    if site in run.sites and network.kind != "shared":
        return []
    who = "left no network" if site in run.sites else "did not take part"
    what = f"{site} {who} in {run.folder}: scored with the network that all share"
    if network.kind == "pooled":
        what = f"{site} {who} in {run.folder}: scored with the pooled network"
    if run.config.model.standardise == "site" and network.kind == "shared":
        what += ", on a scale of features measured over these very bags"
    return [what]
