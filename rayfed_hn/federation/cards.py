"""What a site says of its bags before a run is planned: numbers, and the names of classes.

A plan is made of the cards of all sites, whether one process has opened all bags or every site has
sent its own. Nothing on a card is of a single slide or case.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rayfed_hn.bags.store import BagEntry, SiteBags
from rayfed_hn.config import Config, TaskConfig
from rayfed_hn.federation.data import Folds, num_bags
from rayfed_hn.federation.labels import EventTimes
from rayfed_hn.models.tasks import Task


@dataclass(frozen=True)
class SiteCard:
    """One site's bags, counted.

    Attributes:
        site: Whose.
        recipe: SHA-256 of how bags were made (hex).
        digest: SHA-256 of what decides the division of its cases (hex).
        feature_dim: D.
        labels: Bags of every class, grade or label that counts; under survival empty.
        strange: Bags of labels that do not count.
        num_known: Bags that have what the task predicts.
        num_unknown: Bags that have not, and are left out.
        num_unusable: Bags that cannot be read.
        num_bags: Training, validation and test bags.
        num_cases: Training cases.
        num_unnamed: Bags that the tables of ``data.splits`` put into no part of this fold.
        times: Of the events of its training and validation cases; None unless time is to be cut at
            them.
    """

    site: str
    recipe: str
    digest: str
    feature_dim: int
    labels: Mapping[str, int]
    strange: Mapping[str, int]
    num_known: int
    num_unknown: int
    num_unusable: int
    num_bags: tuple[int, int, int]
    num_cases: int
    num_unnamed: int
    times: EventTimes | None = None


def counts(task: TaskConfig, entry: BagEntry) -> bool:
    """Whether a bag has what the task predicts, as far as its site can say that by itself."""
    if task.kind == "survival":
        return entry.time is not None
    return bool(entry.label) and (not task.classes or entry.label in task.classes)


def card_of(config: Config, bags: SiteBags, folds: Folds, task: Task, recipe: str) -> SiteCard:
    """The card of a site, whose other bags are left out from here on.

    Args:
        config: Of the run.
        bags: The site's.
        folds: How cases are divided.
        task: With any names; its unit decides what a bag is.
        recipe: SHA-256 of the store's.
    """
    bags.keep(lambda entry: counts(config.task, entry))
    own, parts = bags.entries, folds.split(bags.entries)
    each = tuple(num_bags(own, part, task) for part in (parts.train, parts.validation, parts.test))
    named = len(parts.train) + len(parts.validation) + len(parts.test)
    timed = config.task.kind == "survival"
    return SiteCard(
        bags.site,
        recipe,
        _digest(own),
        bags.feature_dim,
        {} if timed else Counter(entry.label for entry in own),
        Counter(entry.label for entry in bags.unlabelled if entry.label and not timed),
        len(own),
        len(bags.unlabelled),
        len(bags.unusable),
        (each[0], each[1], each[2]),
        len({own[index].case_id for index in parts.train}),
        len(own) - named,
        _times(config.task, folds.training(own)) if timed and not config.task.cuts else None,
    )


def _digest(entries: Sequence[BagEntry]) -> str:
    """Cheap, from metadata: what a continued run must find unchanged."""
    hasher = hashlib.sha256()
    for e in entries:
        stated = (e.slide_id, e.case_id, e.label, e.time, e.event, e.num_tiles)
        hasher.update(repr(stated).encode())
    return hasher.hexdigest()


def _times(task: TaskConfig, training: Sequence[BagEntry]) -> EventTimes:
    """Number and quantiles of the times of events, a case each."""
    cases = {entry.case_id: (entry.time, entry.event) for entry in training}
    times = [time for time, event in cases.values() if event]
    shares = np.arange(1, task.num_bins) / task.num_bins
    return EventTimes(len(times), np.quantile(np.array(times, float), shares) if times else shares)
