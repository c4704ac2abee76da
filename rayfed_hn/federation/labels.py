"""Which task the labels of a bag store make, and which bags have a label of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from rayfed_hn.bags.store import BagEntry
from rayfed_hn.config import Config
from rayfed_hn.config.task import MAX_CLASSES
from rayfed_hn.errors import DataError
from rayfed_hn.models.tasks import Binary, Multiclass, Ordinal, Survival, Task

RARE = 2  # bags of a class that looks like a slip
MIN_EVENTS = 5  # of a site that has a say in where time is cut


def find_task(
    config: Config,
    entries: Mapping[str, Sequence[BagEntry]],
    training: Callable[[Sequence[BagEntry]], Sequence[BagEntry]],
) -> Task:
    """What is predicted, with names and cuts that all sites share.

    Args:
        config: ``task`` and ``data.positive_label``.
        entries: All bags of every site.
        training: From the bags of a site that have what the task predicts to those of them that
            are not under test: only their times decide where to cut.

    Raises:
        DataError: The labels do not make the task; says which there are and what to do.
    """
    kind = config.task.kind
    if kind == "survival":
        timed = {name: [e for e in own if e.time is not None] for name, own in entries.items()}
        return _survival(config, {name: training(own) for name, own in timed.items() if own})
    labels = {entry.label for bags in entries.values() for entry in bags if entry.label}
    names = tuple(config.task.classes) or _in_order(labels)
    if kind == "binary":
        names = _two(names, config.data.positive_label)
    _check_names(config, names, labels)
    return task_of(config, names)


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


def notes(task: Task, entries: Mapping[str, Sequence[BagEntry]]) -> tuple[str, ...]:
    """What a user should know of the labels before hours are spent on them."""
    if isinstance(task, Survival):
        return ()
    by_site = {site: {entry.label for entry in bags} for site, bags in entries.items()}
    found = []
    for name in task.names:
        count = sum(entry.label == name for bags in entries.values() for entry in bags)
        if count <= RARE:
            found.append(
                f"class '{name}' has {count} bag(s); if it is a misspelling, correct the manifest "
                "and embed again, or name the classes that count in task.classes"
            )
    for site, labels in sorted(by_site.items()):
        lacking = [name for name in task.names if name not in labels]
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


def _survival(config: Config, training: Mapping[str, Sequence[BagEntry]]) -> Task:
    knobs = config.task
    if not training:
        raise DataError(
            "task.kind=survival: no bag has a time; the manifest needs the columns time and event "
            "(1 or 0), then embed again"
        )
    cuts = tuple(knobs.cuts) or _quantiles(training, knobs.num_bins)
    edges = ("0", *(f"{cut:g}" for cut in cuts), "")
    names = tuple(f"{a} to {b}" if b else f"from {a}" for a, b in pairwise(edges))
    return task_of(config, names, cuts)


def _quantiles(training: Mapping[str, Sequence[BagEntry]], num_bins: int) -> tuple[float, ...]:
    """Mean over sites of the quantiles of event times, weighted by their numbers of events.

    Of few events the quantiles are the times themselves: sites with fewer than ``MIN_EVENTS`` tell
    nothing, unless all have so few.
    """
    times = [
        [time for time, event in {e.case_id: (e.time, e.event) for e in bags}.values() if event]
        for bags in training.values()
    ]
    shares = np.arange(1, num_bins) / num_bins
    telling = [own for own in times if len(own) >= MIN_EVENTS] or [own for own in times if own]
    if not telling:
        raise DataError(
            "task.kind=survival: no training case has an event; the manifest needs the columns "
            "time and event (1 or 0), then embed again"
        )
    quantiles = [np.quantile(np.array(own, float), shares) for own in telling]
    weights = [len(own) for own in telling]
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
