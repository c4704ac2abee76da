"""Which task the labels of a bag store make, and which bags have a label of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rayfed_hn.bags.store import BagEntry
from rayfed_hn.config import Config
from rayfed_hn.config.task import MAX_CLASSES
from rayfed_hn.errors import DataError
from rayfed_hn.models.tasks import Binary, Multiclass, Ordinal, Survival, Task

RARE = 2  # bags of a class that looks like a slip
MIN_EVENTS = 5  # of a site that has a say in where time is cut


@dataclass(frozen=True)
class EventTimes:
    """When the events of a site's training and validation cases were.

    Attributes:
        num: How many there were.
        quantiles: At ``task.num_bins`` equal shares, float64 (bins - 1,).
    """

    num: int
    quantiles: np.ndarray


def find_task(
    config: Config, labels: Collection[str], times: Sequence[EventTimes | None] = ()
) -> Task:
    """What is predicted, with names and cuts that all sites share.

    Args:
        config: ``task`` and ``data.positive_label``.
        labels: All labels that any bag has.
        times: Of the events of every site that has bags with times.

    Raises:
        DataError: The labels do not make the task; says which there are and what to do.
    """
    kind = config.task.kind
    if kind == "survival":
        return _survival(config, times)
    names = tuple(config.task.classes) or _in_order(set(labels))
    if kind == "binary":
        names = _two(names, config.data.positive_label)
    _check_names(config, names, set(labels))
    return task_of(config, names)


def task_of_config(config: Config) -> Task:
    """The task of a configuration that names its classes, or the times to cut at.

    Raises:
        DataError: The names do not make the task.
    """
    knobs = config.task
    if knobs.kind == "survival":
        return _survival(config, [None])
    return find_task(config, knobs.classes)


def _check_names(config: Config, names: tuple[str, ...], labels: set[str]) -> None:
    missing = [name for name in names if name not in labels]
    if missing:
        raise DataError(
            f"task.classes: no bag has the label {', '.join(map(repr, missing))}; the bags have "
            f"{', '.join(sorted(labels))}"
        )
    if len(names) < 2:
        raise DataError(
            f"these bags have {len(names)} labels ({', '.join(names)}); at least two are needed. "
            "Correct the label column of the manifest and embed again"
        )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"these bags have {len(names)} labels; at most {MAX_CLASSES} can be told apart. Name "
            "those that count in task.classes"
        )
    unordered = config.task.kind == "ordinal" and not config.task.classes
    if unordered and not all(map(_is_number, names)):
        raise DataError(
            f"task.classes: missing; grades that are no numbers ({', '.join(names)}) have no order "
            "of their own, so name them from low to high"
        )


def task_of(config: Config, names: tuple[str, ...], cuts: tuple[float, ...] = ()) -> Task:
    """The task with these names of classes, grades or intervals, and these cuts of time."""
    knobs = config.task
    if knobs.kind == "survival":
        return Survival(names, knobs.unit, cuts, knobs.uncensored_weight)
    makers = {"binary": Binary, "multiclass": Multiclass, "ordinal": Ordinal}
    return makers[knobs.kind](names, knobs.unit)


def knows(task: Task, entry: BagEntry) -> bool:
    """Whether a bag has a label of this task."""
    return entry.time is not None if isinstance(task, Survival) else entry.label in task.names


def label_of(task: Task, entry: BagEntry) -> int:
    """Index of a bag's class, grade or interval."""
    if isinstance(task, Survival):
        assert entry.time is not None
        return task.interval(entry.time)
    return task.names.index(entry.label)


def notes(task: Task, labels: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """What a user should know of the labels before hours are spent on them.

    Args:
        task: What is predicted.
        labels: Bags of every label that counts, by site.
    """
    if isinstance(task, Survival):
        return ()
    found = []
    for name in task.names:
        count = sum(own.get(name, 0) for own in labels.values())
        if count <= RARE:
            found.append(
                f"class '{name}' has {count} bag(s); if it is a misspelling, correct the manifest "
                "and embed again, or name the classes that count in task.classes"
            )
    for site, own in sorted(labels.items()):
        lacking = [name for name in task.names if not own.get(name)]
        if lacking:
            found.append(
                f"{site} has no bag of {', '.join(lacking)}: its {task.judge.name} is of the "
                "others, or undefined"
            )
    return tuple(found)


def check_cases(task: Task, entries: Mapping[str, Sequence[BagEntry]]) -> None:
    """Refuse to join slides of a case that have labels of different classes.

    Raises:
        DataError: Says how many cases, and which is the first.
    """
    if task.unit != "case" or isinstance(task, Survival):
        return
    labels: dict[str, set[int]] = {}
    for bags in entries.values():
        for entry in bags:
            labels.setdefault(entry.case_id, set()).add(label_of(task, entry))
    mixed = sorted(case for case, found in labels.items() if task.case_label(found) is None)
    if mixed:
        raise DataError(
            f"task.unit=case: {len(mixed)} case(s) have slides of different classes (first: "
            f"{mixed[0]!r}); set task.unit=slide, or give the slides of a case one label"
        )


def _two(names: tuple[str, ...], positive: str | None) -> tuple[str, str]:
    if positive is not None and positive not in names:
        raise DataError(
            f"data.positive_label: '{positive}' is no label of these bags; "
            f"they have {', '.join(names)}"
        )
    if not names:
        raise DataError(
            "these bags have no labels; if they have times and events, set task.kind=survival, "
            "else add the label column to the manifest and embed again"
        )
    if len(names) != 2:
        raise DataError(
            f"these bags have {len(names)} labels ({', '.join(names)}); two are needed. Correct "
            "the label column of the manifest and embed again; or set task.kind=multiclass or "
            "ordinal, or name the two that count in task.classes"
        )
    positive = positive or names[1]
    return next(name for name in names if name != positive), positive


def _survival(config: Config, times: Sequence[EventTimes | None]) -> Task:
    knobs = config.task
    if not times:
        raise DataError(
            "task.kind=survival: no bag has a time; the manifest needs the columns time and event "
            "(1 or 0), then embed again"
        )
    known = [own for own in times if own is not None]
    cuts = tuple(knobs.cuts) or _quantiles(known, knobs.num_bins)
    edges = ("0", *(f"{cut:g}" for cut in cuts), "")
    names = tuple(f"{a} to {b}" if b else f"from {a}" for a, b in pairwise(edges))
    return task_of(config, names, cuts)


def _quantiles(times: Sequence[EventTimes], num_bins: int) -> tuple[float, ...]:
    """Mean over sites of the quantiles of event times, weighted by their numbers of events.

    Of few events the quantiles are the times themselves: sites with fewer than ``MIN_EVENTS`` tell
    nothing, unless all have so few.
    """
    telling = [own for own in times if own.num >= MIN_EVENTS] or [own for own in times if own.num]
    if not telling:
        raise DataError(
            "task.kind=survival: no training case has an event; the manifest needs the columns "
            "time and event (1 or 0), then embed again"
        )
    quantiles, weights = [own.quantiles for own in telling], [own.num for own in telling]
    cuts = tuple(float(cut) for cut in np.average(quantiles, axis=0, weights=weights))
    if len(set(cuts)) < len(cuts):
        raise DataError(
            f"task.num_bins: got {num_bins}, but event times have too few values for so many "
            "intervals; give fewer, or task.cuts"
        )
    return cuts


def _in_order(labels: set[str]) -> tuple[str, ...]:
    if all(map(_is_number, labels)):
        return tuple(sorted(labels, key=lambda label: (float(label), label)))
    return tuple(sorted(labels))


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
