"""Differences by case in the report of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from rayfed_hn.evaluation.bootstrap import MEAN, POOLED
from rayfed_hn.evaluation.markdown import amount, amount_name, interval, number
from rayfed_hn.evaluation.quantities import p_value
from rayfed_hn.evaluation.subject import Record, seen_from
from rayfed_hn.reporting import page
from rayfed_hn.reporting.choices import chosen_readout, under
from rayfed_hn.reporting.run_files import Run

LEVEL = 0.05
WHICH = (
    "Two kinds of interval answer two questions. By split (above): what other divisions of the "
    "cases and other training runs would give; optimistic, as splits re-divide the same cases. By "
    "case (below): what other patients of the same sites would give, with these networks as they "
    "are: cases are drawn anew within every site and out-of-fold scores of all seeds with them "
    "(bootstrap, percentiles), or the scatter of their ranks is measured (DeLong). They know "
    "nothing of training. A claim about new patients and new runs needs both."
)
_EVERY = "Paired differences by case; p corrected (Holm) over the pairs of the same test."


def by_case(run: Run, method: str) -> str:
    """Return the tests of a method against all others, and all tests folded; "" of older runs.

    Args:
        run: A comparison.
        method: What the report is about.
    """
    tests = under(run.summary.get("tests", []), chosen_readout(run))
    if not tests:
        return ""
    metric = run.judge.name
    own = [t for t in seen_from(method, tests) if t["metric"] == metric]
    caption = (
        f"{metric} of {method} minus that of each other method, by case, readout "
        f"'{chosen_readout(run)}'. Bold: p below .05 when corrected (Holm) for all pairs of "
        "methods of the same test."
    )
    folded = [
        page.details(f"Every pair of methods by case, {name}", _table(run, _EVERY, found))
        for name in dict.fromkeys(test["metric"] for test in tests)
        if (found := _whole([t for t in tests if t["metric"] == name]))
    ]
    by_site = [test for test in tests if test["site"] is not None]
    if by_site:
        words = "AUC at every site (DeLong by case), corrected (Holm) for all of them together."
        folded.append(page.details("Every site by case", _table(run, words, by_site)))
    shown = _whole(own)
    told = _table(run, caption, shown) if shown else ""
    return page.paragraph(WHICH, "quiet") + told + "".join(folded)


def _whole(tests: Sequence[Record]) -> list[Record]:
    """Those of all sites."""
    return [test for test in tests if test["scope"] in (MEAN, POOLED)]


def _table(run: Run, caption: str, tests: Sequence[Record]) -> str:
    noise = amount_name(run.summary)
    return page.table(
        caption,
        [
            *("method", "against", *([noise] if noise else []), "of", "test"),
            *("difference", "95 % interval", "p", "p (Holm)", "cases"),
        ],
        [
            [
                *(t["method"], t["against"], *([amount(t.get("noise"))] if noise else [])),
                *(t["site"] or t["scope"], t["kind"]),
                number(t["difference"], signed=True),
                interval(t["low"], t["high"], signed=True),
                *(p_value(t["p"]), p_value(t["p_holm"]), t["num_cases"]),
            ]
            for t in tests
        ],
        chosen=[i for i, t in enumerate(tests) if t["p_holm"] is not None and t["p_holm"] < LEVEL],
        text_columns=4 + bool(noise),
    )
