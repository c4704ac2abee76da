"""The answer of a comparison in words."""

from __future__ import annotations

from collections.abc import Sequence

from rayfed_hn.evaluation.bootstrap import KIND, MEAN
from rayfed_hn.evaluation.markdown import interval, number
from rayfed_hn.evaluation.subject import HYPERNETWORK, Record, seen_from, subject
from rayfed_hn.reporting.choices import chosen_readout, comparisons, ranked, under
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.task_words import one_sided
from rayfed_hn.reporting.words import listed

_MAX_CLAIMS = 3  # comparisons that are told one by one; of more, groups and their strongest rivals
_KINDS = ("better than", "worse than", "not told apart from")


def verdict(run: Run) -> str:
    """Say what the paired differences under the run's readout allow to say."""
    metric = run.judge.name
    rows = [row for row in ranked(run) if row["mean_site"] is not None]
    if not rows:
        return f"No {metric} is defined: {one_sided(run.judge)}. Use fewer folds."
    method = subject(rows, chosen_readout(run))
    own = next(row for row in rows if row["method"] == method)
    differences = comparisons(run)
    sentence = (
        f"{_name(method)} reaches a mean site {metric} of {number(own['mean_site'])} over "
        f"{own.get('num_sites')} sites and {own.get('num_splits')} splits"
    )
    if not differences:
        return f"{sentence}."
    doubt = _by_case(run, differences)
    if len(differences) <= _MAX_CLAIMS:
        return f"{sentence}: {_claims(differences, metric, grouped=False)}.{doubt}"
    claims = _claims(differences, metric, grouped=True)
    return f"{sentence}. In {len(differences)} comparisons it is {claims}.{doubt}"


def claim(difference: Record, metric: str) -> str:
    """Say against whom, by how much, and between what bounds."""
    if difference["low"] == difference["high"] == 0:  # no width, no evidence: few bags a fold
        return f"{difference['against']} (the same {metric} at every site in every split)"
    found = number(difference["difference"], signed=True)
    bounds = interval(difference["low"], difference["high"], signed=True)
    return f"{difference['against']} ({found}, 95 % interval {bounds})"


def told_apart(difference: Record) -> bool:
    """Whether the interval leaves out zero."""
    return kind_of(difference) != _KINDS[2]


def _by_case(run: Run, differences: Sequence[Record]) -> str:
    """Say where the test by case does not say what the splits say."""
    tests = {
        t["against"]: t
        for t in seen_from(
            differences[0]["method"],
            [
                t
                for t in under(run.summary.get("tests", []), chosen_readout(run))
                if (t["kind"], t["scope"], t["metric"]) == (KIND, MEAN, run.judge.name)
            ],
        )
    }
    told = []
    for difference in differences:
        test = tests.get(difference["against"])
        if test is not None and kind_of(test) != kind_of(difference):
            found = number(test["difference"], signed=True)
            bounds = interval(test["low"], test["high"], signed=True)
            told.append(f"{kind_of(test)} {difference['against']} ({found}, {bounds})")
    if not told:
        return ""
    return f" That is by split; by case, with all folds judged together, it is {'; '.join(told)}."


def _claims(differences: Sequence[Record], metric: str, *, grouped: bool) -> str:
    groups = {kind: [d for d in differences if kind_of(d) == kind] for kind in _KINDS}
    rivals = _strongest if grouped else _each
    return "; ".join(f"{kind} {rivals(found, metric)}" for kind, found in groups.items() if found)


def _each(differences: Sequence[Record], metric: str) -> str:
    return listed([claim(difference, metric) for difference in differences])


def _strongest(differences: Sequence[Record], metric: str) -> str:
    rival = claim(min(differences, key=lambda d: d["difference"]), metric)
    if len(differences) == 1:
        return rival
    return f"{len(differences)} methods, the strongest of them {rival}"


def kind_of(difference: Record) -> str:
    """Return what the interval allows to say: better than, worse than, not told apart from."""
    if difference["low"] is not None and difference["low"] > 0:
        return _KINDS[0]
    if difference["high"] is not None and difference["high"] < 0:
        return _KINDS[1]
    return _KINDS[2]


def _name(method: str) -> str:
    return "The hypernetwork" if method == HYPERNETWORK else f"Best of all, {method}"
