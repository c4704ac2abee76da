"""What reports say differently of each kind of task."""

from __future__ import annotations

from rayfed_hn.evaluation.judging import Judge, Kind
from rayfed_hn.reporting.run_files import Run

_MAX_NAMES = 6  # classes that are named one by one

# What a site, or else every fold, lacks where the metric is undefined.
_NEEDED: dict[Kind, str] = {
    "binary": "bags of both classes",
    "multiclass": "bags of several classes",
    "ordinal": "bags of several grades",
    "survival": "bags of which it is known whose event came first",
}
_ONE_SIDED: dict[Kind, str] = {
    "binary": "every test fold holds one class only",
    "multiclass": "every test fold holds one class only",
    "ordinal": "every test fold holds one grade only",
    "survival": "no test fold holds two bags of which it is known whose event came first",
}
_UNDEFINED: dict[Kind, str] = {
    "binary": "one class",
    "multiclass": "one class",
    "ordinal": "one grade",
    "survival": "no two bags of which it is known whose event came first",
}


def needed(judge: Judge) -> str:
    """What the metric needs to be defined."""
    return _NEEDED[judge.kind]


def one_sided(judge: Judge) -> str:
    """Why the metric is undefined in every fold."""
    return _ONE_SIDED[judge.kind]


def limits(judge: Judge) -> str:
    """What a reader must not take the numbers for."""
    article = "An" if judge.name.startswith("A") else "A"
    return (
        "A simulation in the manner of Lin et al. 2023, not a reproduction. Intervals over "
        "re-splits of the same cases are optimistic, and are not corrected for the number of "
        f"comparisons. {article} {judge.name} that is undefined ({_UNDEFINED[judge.kind]}) is left "
        "out and counted. Research use only."
    )


def loss(judge: Judge) -> str:
    """What training makes smaller."""
    return "negative log-likelihood" if judge.kind == "survival" else "cross-entropy"


def predicted(run: Run) -> str:
    """What is predicted, of what."""
    names = [str(name) for name in run.summary["classes"]]
    kind = run.judge.kind
    listed = f": {', '.join(names)}" if len(names) <= _MAX_NAMES else ""
    if kind == "binary":
        negative, positive = names
        found = f"{positive} against {negative}"
    elif kind == "multiclass":
        found = f"{len(names)} classes{listed}"
    elif kind == "ordinal":
        found = f"{len(names)} grades from {names[0]} to {names[-1]}"
    else:
        found = f"time until an event, in {len(names)} intervals"
    return f"{found} · a bag is a case" if run.unit == "case" else found
