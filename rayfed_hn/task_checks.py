"""Settings of tasks and of training that cannot go together."""

from __future__ import annotations

import math
from itertools import pairwise

from rayfed_hn.config import Config
from rayfed_hn.config.task import MAX_CLASSES
from rayfed_hn.errors import ConfigError


def check_task(config: Config) -> None:
    """Raise ``ConfigError`` at the first combination that is impossible, or plainly idle."""
    task, kind = config.task, config.task.kind
    survival, names = kind == "survival", task.classes
    positive, smoothing = config.data.positive_label, config.training.label_smoothing
    for bad, words in (
        (
            positive is not None and kind != "binary",
            f"data.positive_label={positive}: is of task.kind=binary; with task.kind={kind} give "
            "task.classes",
        ),
        (
            len(set(names)) < len(names),
            f"task.classes: {names} names a class twice",
        ),
        (
            bool(names) and survival,
            f"task.classes: got {names}; survival has none, leave it unset",
        ),
        (
            kind == "binary" and len(names) not in (0, 2),
            f"task.classes: got {names}; task.kind=binary has two, class 1 last. For more set "
            "task.kind=multiclass or ordinal",
        ),
        (
            len(names) == 1,
            f"task.classes: got {names}; a task has at least two",
        ),
        (
            bool(task.cuts) and not survival,
            f"task.cuts={task.cuts}: has no effect without task.kind=survival",
        ),
        (
            not all(a < b for a, b in pairwise([0.0, *task.cuts, math.inf])),  # nor is NaN
            f"task.cuts: got {task.cuts}; give times above 0 in ascending order",
        ),
        (
            len(names) > MAX_CLASSES or len(task.cuts) >= MAX_CLASSES,
            f"task.classes or task.cuts: more than {MAX_CLASSES} classes or intervals; join some",
        ),
        (
            smoothing > 0 and survival,
            f"training.label_smoothing={smoothing}: smooths classes; survival has none, set it to "
            "0",
        ),
    ):
        if bad:
            raise ConfigError(words)
