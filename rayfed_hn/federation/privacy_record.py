"""``privacy.json`` of a training run: what was promised, and what was spent, for those who decide.

It is made of what the run directory says already, so that it can say nothing else: of
``summary.json`` the promise, the sites and the losses, and of ``metrics.jsonl`` what every update
that went into a version said of itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.errors import BudgetSpent
from rayfed_hn.federation.json_lines import JsonLines
from rayfed_hn.files import write_text
from rayfed_hn.privacy import words
from rayfed_hn.saving import saving

FILE = "privacy.json"
_ROUNDING = 1e-6  # relative: what is calibrated to an epsilon meets it up to rounding
_CONSTANTS = (
    *("noise_scale", "clip_norm", "sensitivity", "noise_multiplier", "noise_deviation"),
    "sampling_rate",
)
_PLANNED = ("epsilon", "delta", "releases", "budget")
Record = Mapping[str, Any]


def write_privacy(folder: Path, summary: Record) -> None:
    """Write ``privacy.json`` into the directory of a run that has ended."""
    values = privacy_record(summary, JsonLines(folder / "metrics.jsonl").read())
    with saving(folder / FILE):
        write_text(folder / FILE, json.dumps(values, indent=2, allow_nan=False) + "\n")


def privacy_record(summary: Record, metrics: Sequence[Record]) -> dict[str, Any]:
    """All of it, JSON-ready; null is what is undefined or was withheld.

    Args:
        summary: ``summary.json`` of ``train``.
        metrics: Records of ``metrics.jsonl``.
    """
    told, method = summary["privacy"], summary["method"]
    by_site: dict[str, list[Record]] = {}
    for record in metrics:
        by_site.setdefault(record["site"], []).append(record)
    sites = [
        _site(site, by_site.get(site["site"], []), summary["lost_sites"])
        for site in summary["sites"]
    ]
    signal, planned = _signal(told, metrics), _planned(told)
    clipped = _mean(record.get("clipped") for record in metrics)
    return {
        "format": 1,
        "method": method,
        "formal_guarantee": _guarantee(told),
        "in_words": [
            *words.guarantee(told, method),
            *_spent_words(sites, planned),
            *_signal_words(told, signal),
            *_clipped_words(told, clipped),
        ],
        "warnings": [
            *_delta_warnings(told, sites, planned),
            *_spent_warnings(sites, planned),
            *_ledger_warnings(told, sites),
        ],
        **_promised(told, method),
        "planned": planned,
        "metrics": told.get("metrics"),
        "clipped": clipped,
        "signal_to_noise": signal,
        "sites": sites,
        "released_without_noise": list(summary["released_without_noise"]),
        "outside": words.outside(told, method),
    }


def _promised(told: Record, method: str) -> dict[str, Any]:
    """What follows from the promise alone."""
    unit, neighbours = words.hidden(told)
    return {
        "unit": told.get("unit"),
        "unit_in_words": unit,
        "neighbouring": told.get("neighbouring"),
        "neighbouring_in_words": neighbours,
        "adversary": words.adversary(told, method),
        "mechanism": told["mechanism"],
        "mechanism_in_words": words.mechanism(told),
        "amplification": told.get("amplification"),
        "constants": {name: told[name] for name in _CONSTANTS if name in told},
        "noise_source": told.get("noise_source"),
        "noise_in_words": words.noise(told),
    }


def _guarantee(told: Record) -> str:
    """As promised; none where the noise can be drawn again."""
    secret = told.get("noise_source") == "os"
    return told.get("formal_guarantee", "none") if secret else "none"


def _planned(told: Record) -> dict[str, Any] | None:
    """What the mechanism comes to at the end if its noise is secret; None without epsilon."""
    if not words.is_formal(told) or told.get("epsilon") is None:
        return None
    return {name: told.get(name) for name in _PLANNED}


def _site(site: Record, own: Sequence[Record], lost: Iterable[Record]) -> dict[str, Any]:
    """What a site charged by its last update that went into a version, and what its updates said.

    Releases that no version was made from (too late, or asked for again after the server went back)
    are charged too: the next update that was used tells of them.
    """
    name = site["site"]
    charged = max(own, key=lambda record: record.get("releases") or 0, default={})
    stopped = [
        loss["version"]
        for loss in lost
        if loss["site"] == name and BudgetSpent.is_told_by(loss["reason"])
    ]
    releases = charged.get("releases") or 0
    return {
        "site": name,
        "num_training_cases": site.get("num_training_cases"),
        "num_train": site.get("num_train"),
        "updates": len(own),
        "releases": releases,
        "not_used": max(0, releases - len(own)),
        "epsilon": _finite(charged.get("epsilon")),
        "clipped": _mean(record.get("clipped") for record in own),
        "signal_to_noise": _mean(record.get("signal_to_noise") for record in own),
        "stopped_at": stopped[0] if stopped else None,
    }


def _signal(told: Record, metrics: Iterable[Record]) -> dict[str, Any] | None:
    """Signal to noise of all updates, and by the version that they went into."""
    by_version: dict[int, list[float]] = {}
    for record in metrics:
        value = _finite(record.get("signal_to_noise"))
        if value is not None:
            by_version.setdefault(record["made"], []).append(value)
    if not by_version:
        return None
    every = [value for values in by_version.values() for value in values]
    return {
        "mean": float(np.mean(every)),
        "lowest": min(every),
        "at_most": told.get("signal_to_noise_at_most"),
        "by_version": [
            {"version": version, "mean": float(np.mean(values)), "lowest": min(values)}
            for version, values in sorted(by_version.items())
        ],
    }


def _spent_words(sites: Sequence[Record], planned: Record | None) -> list[str]:
    if planned is None:
        return []
    spent = {site["site"]: site["epsilon"] for site in sites if site["epsilon"] is not None}
    if not spent:
        return ["No update went into a version, so that it is not known what was spent."]
    least, most = min(spent, key=lambda s: spent[s]), max(spent, key=lambda s: spent[s])
    some = f"{spent[most]:.3g}"
    if spent[least] < spent[most]:
        some = f"{spent[least]:.3g} ({least}) to {some} ({most})"
    return [
        f"Spent by the end of this run: epsilon {some} at delta {planned['delta']:g}; planned were "
        f"{planned['epsilon']:.3g} after {planned['releases']} releases of a site."
    ]


def _signal_words(told: Record, signal: Record | None) -> list[str]:
    if told["mechanism"] == "none":
        return []
    if signal is None:
        return [f"Signal to noise: {_missing(told)}."]
    what = "steps" if told["mechanism"] == "slide_dpsgd" else "updates"
    return [
        f"Signal to noise of {what}: {words.ratio(signal['mean'])} on average, "
        f"{words.ratio(signal['lowest'])} at the lowest."
    ]


def _clipped_words(told: Record, clipped: float | None) -> list[str]:
    if not words.is_formal(told):
        return []
    what = "gradients" if told["mechanism"] == "slide_dpsgd" else "updates"
    if clipped is None:
        return [f"Share of {what} that were scaled down: {_missing(told)}."]
    return [f"{100 * clipped:.3g} % of the {what} were scaled down to the largest norm allowed."]


def _missing(told: Record) -> str:
    withheld = told.get("metrics") == "withheld"
    return "withheld by the sites (privacy.metrics)" if withheld else "not known"


def _delta_warnings(told: Record, sites: Sequence[Record], planned: Record | None) -> list[str]:
    """Where delta alone would allow to publish a case (or a slide, if that is the unit)."""
    if planned is None:
        return []
    slides = told["unit"] == "slide"
    count, unit = ("num_train", "slides") if slides else ("num_training_cases", "cases")
    delta, most = planned["delta"], {s["site"]: s[count] or 0 for s in sites}
    small = {site: cases for site, cases in most.items() if cases and delta > 1 / cases}
    if not small:
        return []
    named = ", ".join(f"{site} ({cases})" for site, cases in small.items())
    return [
        f"Delta is {delta:g}, more than one over the number of training {unit} of {named}: to "
        f"publish one of them at random would be within it. Keep privacy.target_delta below "
        f"{1 / max(small.values()):.3g}."
    ]


def _spent_warnings(sites: Sequence[Record], planned: Record | None) -> list[str]:
    found = [
        f"{site['site']} stopped at version {site['stopped_at']}: its privacy budget does not "
        "allow more."
        for site in sites
        if site["stopped_at"] is not None
    ]
    if planned is not None:
        limit = planned["epsilon"] * (1 + _ROUNDING)
        found += [
            f"{site['site']} has spent epsilon {site['epsilon']:.3g} in {site['releases']} "
            f"releases, more than the {planned['epsilon']:.3g} that were planned."
            for site in sites
            if site["epsilon"] is not None and site["epsilon"] > limit
        ]
    return found


def _ledger_warnings(told: Record, sites: Sequence[Record]) -> list[str]:
    """Of sites that promised nothing, and went on though nothing could be written down."""
    if told["mechanism"] != "none" or not told.get("in_ledger"):
        return []
    without = [site["site"] for site in sites if site["updates"] > site["releases"]]
    if not without:
        return []
    return [
        f"The ledger of {', '.join(without)} could not be written: what was released without noise "
        "does not all stand in it."
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in map(_finite, values) if value is not None]
    return float(np.mean(defined)) if defined else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
