"""The part of a comparison's report for those who answer for the data."""

from __future__ import annotations

from typing import Any

from rayfed_hn.evaluation.markdown import amount, amount_name
from rayfed_hn.privacy import words
from rayfed_hn.reporting import page
from rayfed_hn.reporting.run_files import Run

_TRIED = (
    "A comparison is a simulation: its noise was drawn from run.seed, and sites charged nothing to "
    "their ledgers. What is stated here is what a run of train would promise with secret noise."
)
_CHOICE = (
    "To choose a method or an amount of noise by these results is to look at the data as well, "
    "which no guarantee covers."
)

_SHARING = "hypernetwork"  # the words are those of any method that shares


def privacy(run: Run) -> str:
    """Return the section; nothing of a comparison that is older, or in which nothing is shared."""
    tried = run.summary.get("promises") or []
    if not tried:
        return ""
    # Without noise there is no mechanism to tell of.
    noised = [one for one in tried if one["promise"]["mechanism"] != "none"]
    shown = (noised or tried)[0]
    told = shown["promise"]
    return page.section(
        "Privacy",
        page.paragraph(_TRIED, "answer"),
        page.paragraph(_CHOICE),
        _amounts(run, tried),
        page.pairs(
            {
                "mechanism": words.mechanism(told),
                "whose data are hidden (unit)": words.hidden(told)[0],
                "what cannot be told apart (neighbouring)": words.hidden(told)[1],
                **words.adversary(told, _SHARING),
            }
        ),
        page.heading("Leaves a site without noise"),
        page.bullets(shown["without_noise"]),
        page.heading("Not covered either"),
        page.bullets(words.outside(told, _SHARING)),
    )


def _amounts(run: Run, tried: list[dict[str, Any]]) -> str:
    """Return what is guaranteed with every amount of noise."""
    name = amount_name(run.summary)
    return page.table(
        "Of the methods in which networks leave a site.",
        [*([name] if name else []), "mechanism", "formal guarantee", "signal to noise at best"],
        [
            [
                *([amount(one["noise"])] if name else []),
                one["promise"]["mechanism"],
                one["promise"].get("formal_guarantee", "none"),
                _best(one["promise"]),
            ]
            for one in tried
        ],
        text_columns=3 if name else 2,
    )


def _best(told: dict[str, Any]) -> str:
    at_most = told.get("signal_to_noise_at_most")
    return "–" if at_most is None else words.ratio(at_most)
