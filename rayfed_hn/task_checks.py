"""Settings of tasks and of training that cannot go together."""

from __future__ import annotations

import math
from itertools import pairwise

from rayfed_hn.config import Config
from rayfed_hn.config.task import MAX_CLASSES
from rayfed_hn.errors import ConfigError


def check_task(config: Config) -> None:
    """Raise ``ConfigError`` at the first combination that is impossible, or plainly idle."""
    for bad, words in (*_classes(config), *_survival(config)):
        if bad:
            raise ConfigError(words)


def _classes(config: Config) -> list[tuple[bool, str]]:
    names, kind, positive = config.task.classes, config.task.kind, config.data.positive_label
    return [
        (
            positive is not None and kind != "binary",
            f"data.positive_label={positive}: is of task.kind=binary; with task.kind={kind} give "
            "task.classes",
        ),
        (len(set(names)) < len(names), f"task.classes: {names} names a class twice"),
        (
            bool(names) and kind == "survival",
            f"task.classes: got {names}; survival has none, leave it unset",
        ),
        (
            kind == "binary" and len(names) not in (0, 2),
            f"task.classes: got {names}; task.kind=binary has two, class 1 last. For more set "
            "task.kind=multiclass or ordinal",
        ),
        (len(names) == 1, f"task.classes: got {names}; a task has at least two"),
        (
            len(names) > MAX_CLASSES,
            f"task.classes: got {len(names)}, at most {MAX_CLASSES} can be told apart; join some",
        ),
    ]


def _survival(config: Config) -> list[tuple[bool, str]]:
    cuts, smoothing = config.task.cuts, config.training.label_smoothing
    survival = config.task.kind == "survival"
    return [
        (
            bool(cuts) and not survival,
            f"task.cuts={cuts}: has no effect without task.kind=survival",
        ),
        (
            not all(a < b for a, b in pairwise([0.0, *cuts, math.inf])),  # nor is NaN
            f"task.cuts: got {cuts}; give times above 0 in ascending order",
        ),
        (
            len(cuts) >= MAX_CLASSES,
            f"task.cuts: got {len(cuts)}, at most {MAX_CLASSES - 1} are allowed; leave some out",
        ),
        (
            smoothing > 0 and survival,
            f"training.label_smoothing={smoothing}: smooths classes; survival has none, set it to "
            "0",
        ),
    ]
