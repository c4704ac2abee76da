"""The part of a training report for those who answer for the data: what is promised of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rayfed_hn.privacy.accounting import LARGEST_EPSILON
from rayfed_hn.privacy.words import ratio
from rayfed_hn.reporting import page
from rayfed_hn.reporting.audit_section import audit
from rayfed_hn.reporting.figures import Line, line_chart
from rayfed_hn.reporting.privacy_file import Privacy, Signal, SpentBySite, read_privacy
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.theme import SERIES
from rayfed_hn.reporting.words import percent

TITLE = "Privacy"
_MAX_ROWS = 12  # sites in sight; of more, the table is folded


def privacy(run: Run) -> str:
    """Return the section; nothing of a run without the file, as older ones are.

    Raises:
        DataError: A file is broken.
    """
    found = read_privacy(run.folder)
    if found is None:
        return ""
    first, *others = found.in_words
    table = _sites(found)
    return page.section(
        TITLE,
        page.paragraph(first, "answer"),
        page.paragraph(" ".join(others)),
        page.trouble("To be known", found.warnings),
        page.pairs(_facts(found)),
        table if len(found.sites) <= _MAX_ROWS else page.details("Releases of every site", table),
        page.figures([_curve(found.signal)] if found.signal else []),
        *_outside(found),
        *audit(run.folder, found.mechanism),
    )


def older_facts(run: Run) -> dict[str, str]:
    """Return the little that a run without the file says."""
    released = run.summary.get("released_without_noise")
    return {
        "noise on released networks": _noise(run.summary.get("privacy")),
        "leaves a site without noise": (
            "not recorded" if released is None else "; ".join(released) or "nothing"
        ),
    }


def _noise(told: Mapping[str, Any] | None) -> str:
    """Say what was done to networks before they left a site, and what that promises."""
    if not told:
        return "not recorded"
    guarantee = told.get("formal_guarantee", "none")
    promise = "no formal guarantee" if guarantee == "none" else f"formal guarantee: {guarantee}"
    if told["mechanism"] == "none":
        return f"no noise was applied; {promise}"
    if told["mechanism"] != "paper":
        return f"mechanism '{told['mechanism']}'; {promise}"
    words = [f"{told['noise_scale']:g} standard deviations of every weight tensor, none on biases"]
    if "noised" in told:
        words = [f"{told['noise_scale']:g} standard deviations on {told['noised']}"]
    if told.get("noise_source") == "seeded":
        words.append("drawn from run.seed (for simulations only)")
    return "; ".join([*words, promise])


def _facts(found: Privacy) -> dict[str, str]:
    facts = {
        "whose data are hidden (unit)": found.texts["unit"],
        "what cannot be told apart (neighbouring)": found.texts["neighbouring"],
        **found.adversary,
        "mechanism": found.texts["mechanism"],
    }
    if found.constants:
        facts["its constants"] = ", ".join(f"{k} {_plain(v)}" for k, v in found.constants.items())
    if found.amplification is not None:
        facts["amplification by sampling"] = found.amplification
    facts["noise"] = found.texts["noise"]
    if found.planned is not None:
        facts["planned"] = _planned(found.planned)
        facts["delta"] = _delta(found)
    if found.signal is not None:
        facts["signal to noise"] = _signal_words(found.signal)
    return facts


def _planned(planned: Mapping[str, Any]) -> str:
    budget = planned.get("budget")
    limit = "no budget over several runs" if budget is None else f"budget of all runs {budget:g}"
    return (
        f"epsilon {planned['epsilon']:.3g} at delta {planned['delta']:g} after "
        f"{planned['releases']} releases of a site; {limit}"
    )


def _delta(found: Privacy) -> str:
    """Say what delta has to be compared with."""
    words = f"{(found.planned or {})['delta']:g}"
    most = max((site.cases or 0 for site in found.sites), default=0)
    if not most:
        return words
    return (
        f"{words}; it is to be below one over the training cases of every site, of which the "
        f"smallest is {1 / most:.3g}"
    )


def _outside(found: Privacy) -> list[str]:
    leaves = [page.heading("Leaves a site without noise"), page.bullets(found.released)]
    return [
        *(leaves if found.released else []),
        page.heading("Not covered either"),
        page.bullets(found.outside),
    ]


def _signal_words(signal: Signal) -> str:
    words = f"{ratio(signal.mean)} on average, {ratio(signal.lowest)} at the lowest"
    return (
        words if signal.at_most is None else f"{words}; at best it can be {ratio(signal.at_most)}"
    )


def _sites(found: Privacy) -> str:
    """Return what every site has released."""
    caption = "Updates of every site that went into versions."
    header = ["site", "training cases", "updates"]
    if found.formal:
        caption = (
            "Counted at a site's last update that went into a version: releases that were charged, "
            "those of them that no version was made from (too late, or asked for again), and "
            "epsilon spent in this run. The ledger at the site has the last word."
        )
        header += ["releases", "not used", "epsilon", "scaled down"]
    stopped = any(site.stopped_at is not None for site in found.sites)
    header += ["signal to noise", *(["budget spent at version"] if stopped else [])]
    rows = [
        [
            site.site,
            "–" if site.cases is None else site.cases,
            site.updates,
            *(_charged(site) if found.formal else []),
            "–" if site.signal_to_noise is None else ratio(site.signal_to_noise),
            *(["–" if site.stopped_at is None else site.stopped_at] if stopped else []),
        ]
        for site in found.sites
    ]
    return page.table(caption, header, rows)


def _charged(site: SpentBySite) -> list[object]:
    if not site.releases:
        return ["–"] * 4
    beyond = f"beyond {LARGEST_EPSILON:,.0f}"
    epsilon = beyond if site.epsilon is None else f"{site.epsilon:.3g}"
    return [site.releases, site.not_used, epsilon, percent(site.clipped)]


def _curve(signal: Signal) -> str:
    version, mean, lowest = (
        np.array(column, float) for column in zip(*signal.by_version, strict=True)
    )
    lines = [
        Line("mean of sites", version, mean, colour=SERIES[1]),
        Line("lowest", version, lowest, colour=SERIES[0], dash="--"),
    ]
    values = np.concatenate([mean, lowest])
    log = bool((values > 0).all()) and bool(np.ptp(np.log10(values)) > 1)
    alt = (
        f"Two lines over versions: mean of sites, from {ratio(mean[0])} to {ratio(mean[-1])}, and "
        f"lowest, from {ratio(lowest[0])} to {ratio(lowest[-1])}."
    )
    svg = line_chart("signal-to-noise", lines, ylabel="signal / noise", log=log, alt=alt)
    caption = (
        "Norm of what was learned over that of the noise, of the updates that went into a version. "
        "Far below 1, noise is nearly all that the server receives."
    )
    return page.figure("Signal to noise", svg, caption)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
