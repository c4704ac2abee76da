"""What the report of a comparison puts in front, of many methods and three readouts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rayfed_hn.evaluation.subject import HYPERNETWORK, Record, seen_from, subject
from rayfed_hn.reporting.run_files import READOUTS, Run
from rayfed_hn.reporting.theme import Look, look

MAX_METHODS = 6  # in a picture that draws every method in the same place
_REFERENCES = (HYPERNETWORK, "local", "fedavg", "pooled")


def readouts(run: Run) -> list[str]:
    """Return the readouts of the table, ``evaluation.readout`` first if it is one of them."""
    asked = run.knob("evaluation", "readout")
    present = dict.fromkeys(row["readout"] for row in run.summary["table"])
    known = [readout for readout in READOUTS if readout in present]
    return sorted({**dict.fromkeys(known), **present}, key=lambda readout: readout != asked)


def chosen_readout(run: Run) -> str:
    """Return ``evaluation.readout`` if the table has it, or else the table's first."""
    return next(iter(readouts(run)), run.knob("evaluation", "readout"))


def under(records: Iterable[Record], readout: str) -> list[Record]:
    """Return the records of a readout."""
    return [record for record in records if record["readout"] == readout]


def ranked(run: Run) -> list[Record]:
    """Return the table's rows under the chosen readout, highest mean first, undefined last."""
    rows = under(run.summary["table"], chosen_readout(run))
    return sorted(rows, key=_depth)


def comparisons(run: Run) -> list[Record]:
    """Return the differences of the method that the report is about, strongest rival first.

    They are those under the chosen readout, without undefined ones.
    """
    rows, readout = ranked(run), chosen_readout(run)
    if not rows:
        return []
    place = {row["method"]: i for i, row in enumerate(rows)}
    seen = seen_from(subject(rows, readout), under(run.summary["differences"], readout))
    defined = [difference for difference in seen if difference["difference"] is not None]
    return sorted(defined, key=lambda difference: place[difference["against"]])


def prominent(run: Run) -> dict[str, Look]:
    """Return the methods of a picture that cannot hold all, highest mean first, and their looks.

    They are the hypernetwork, what everybody compares with, and the best of the others.
    """
    return {m: look_of(run, m) for m in foremost([row["method"] for row in ranked(run)])}


def foremost(methods: Sequence[str]) -> list[str]:
    """Return as many methods as a picture holds, references and then the first, in their order."""
    by_importance = sorted(methods, key=lambda method: method not in _REFERENCES)
    kept = set(by_importance[:MAX_METHODS])
    return [method for method in methods if method in kept]


def look_of(run: Run, method: str) -> Look:
    """Return how a method is drawn in every picture of the report."""
    methods = list(run.summary["methods"])
    return look(method, methods.index(method) if method in methods else 0)


def left_out(run: Run) -> str:
    """Say in a caption that a picture does not hold all methods; empty if it does."""
    num_methods = len(ranked(run))
    if num_methods <= MAX_METHODS:
        return ""
    return f" {MAX_METHODS} of {num_methods} methods: usual references, and the best of the others."


def _depth(row: Record) -> float:
    return float("inf") if row["mean_site"] is None else -row["mean_site"]
