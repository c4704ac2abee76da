"""The record of an audit in words and tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rayfed_hn.audit.membership import ALIGNMENT, CONFIDENCE, SHADOWS
from rayfed_hn.audit.property import NETWORKS, UPDATES
from rayfed_hn.audit.verdict import BAGS, GAUSSIAN, SITES

Record = Mapping[str, Any]

ATTACKS = {
    ALIGNMENT: "direction of the updates",
    CONFIDENCE: "confidence of the last network",
    SHADOWS: "confidence against shadow trainings",
    UPDATES: "mean features read off the updates",
    NETWORKS: "confidence of the networks sent",
    BAGS: "made-up bags in runs of their own",
    SITES: "whole sites, by guesses",
    GAUSSIAN: "whole sites, as Gaussian noise",
}

# Relative errors: features are as good as known; what guessing zero gives is 1.
_RECOVERED, _LOST = 0.05, 0.9

LIMITS = (
    "An audit finds what these attacks find. That they fail is no proof: others may succeed, "
    "and a lower bound on epsilon is no estimate of it. Only a mechanism with a formal guarantee "
    "promises anything about attacks that nobody has thought of."
)


def markdown(found: Record) -> str:
    """The whole record; ``docs/audit.md`` explains it to a reader who is no engineer."""
    sections = [
        _heading(found),
        _membership(found),
        _inversion(found),
        _property(found),
        _canaries(found),
        [verdict(found), "", LIMITS],
    ]
    return "\n".join(line for lines in sections for line in [*lines, ""] if lines)


def verdict(found: Record) -> str:
    """One sentence on what was promised and what was found."""
    level = f"{100 * found['level']:g} %"
    if found["verdict"] == "not tested":
        return "No lower bound on epsilon was sought (audit.attacks has no canaries)."
    tests = found["canaries"].values()
    if found["verdict"] == "none promised":
        best = max(test["bound"]["epsilon"] for test in tests)
        return (
            "The run promises nothing: it has no formal guarantee, so that nothing can be broken. "
            f"Whatever epsilon it may have is above {best:.2f} ({level} confidence)."
        )
    worst = max(tests, key=lambda test: test["bound"]["epsilon"] - test["promised"])
    beside = (
        f"a lower bound of {worst['bound']['epsilon']:.2f} on epsilon beside the promised "
        f"{worst['promised']:.2f} (delta {found['delta']:g}, {level} confidence)"
    )
    if found["verdict"] == "broken":
        return f"The promise is broken: {beside}."
    able = any(test["bound"]["most"] > test["promised"] for test in tests)
    why = "" if able else "; with these numbers of canaries nothing above it could have been found"
    return f"The promise was not broken: {beside}{why}."


def _heading(found: Record) -> Iterator[str]:
    privacy, sent = found["privacy"], sum(found["sites"].values())
    named = f"Method `{found['method']}`, mechanism `{privacy['mechanism']}`"
    yield "# What the server could learn"
    yield ""
    yield f"{named}. Formal guarantee: {privacy['formal_guarantee']}."
    yield (
        f"Attacked: {sent} networks and updates of {len(found['sites'])} sites, "
        f"{found['messages']}."
    )


def _membership(found: Record) -> Iterator[str]:
    if "membership" not in found:
        return
    yield "## Was this slide trained on?"
    yield ""
    yield f"Members are {found['members']}; others are bags of the same sites that were not."
    yield ""
    yield from _table(_MEASURED, found["level"])
    for attack, measured in found["membership"].items():
        yield _measured(ATTACKS[attack], measured)


def _property(found: Record) -> Iterator[str]:
    if "property" not in found:
        return
    yield "## Which site is a slide from that nobody trained on?"
    yield ""
    columns = "slides put right", "{level} interval", "by chance", "dealt out at random: as well"
    yield from _table(("attack", "AUC of pairs", "{level} interval", *columns), found["level"])
    for attack, one in found["property"].items():
        if one is None:
            yield f"| {ATTACKS[attack]} | there is one site | | | | | |"
            continue
        pairs = one["pairs"]
        yield (
            f"| {ATTACKS[attack]} | {pairs['auc']:.3f} | {_interval(pairs)} "
            f"| {one['right']:.0%} | {one['right_low']:.0%} to {one['right_high']:.0%} "
            f"| {one['chance']:.0%} | {one['as_well']:.1%} |"
        )


def _inversion(found: Record) -> Iterator[str]:
    if "inversion" not in found:
        return
    one = found["inversion"]
    yield "## Can features of tiles be read off an update?"
    yield ""
    yield "Relative error of the best row of the first layer: 0 is a tile's very features, 1 none."
    yield ""
    yield "| setting | median error | |"
    yield "|---|---|---|"
    best = f"smallest {one['one_step_best']:.2g}"
    yield f"| one tile, one step of SGD, no dropout | {one['one_step']:.2g} | {best} |"
    yield f"| as it was trained, bags trained on | {_number(one['trained_on'])} | |"
    told = one["told_apart"]
    apart = "" if told is None else f"told apart with AUC {told['auc']:.3f} ({_interval(told)})"
    yield f"| as it was trained, bags never seen | {_number(one['never_seen'])} | {apart} |"
    yield ""
    yield f"In the easiest case, {_read_off(one['one_step'])}."
    yield f"As it was trained, {_told_apart(told)}."


def _read_off(error: float) -> str:
    """What a relative error means."""
    if error < _RECOVERED:
        return f"the features of a tile are read off to {100 * error:.2g} %"
    if error < _LOST:
        return f"the features of a tile are read off in part (error {100 * error:.0f} %)"
    return "this attack reads nothing off"


def _told_apart(told: Record | None) -> str:
    """Whether features of bags that were trained on are nearer to what was read off."""
    if told is None:
        return "nothing could be compared"
    if told["auc_low"] <= 0.5:
        return "what is read off is no nearer to bags that were trained on than to others"
    return "what is read off is nearer to bags that were trained on than to others"


def _canaries(found: Record) -> Iterator[str]:
    if "canaries" not in found:
        return
    yield "## Is the promise broken?"
    yield ""
    columns = "AUC", "guessed", "right", "epsilon is above", "could have found", "promised"
    yield from _table(("canaries", "number", *columns), found["level"])
    for by, test in found["canaries"].items():
        bound, told = test["bound"], test["guessing"]
        auc = "–" if told is None else f"{told['auc']:.3f}"
        promised = "nothing" if test["promised"] is None else f"{test['promised']:.2f}"
        yield (
            f"| {ATTACKS[by]} | {bound['num']} | {auc} | {bound['num_guesses']} "
            f"| {bound['num_correct']} | {bound['epsilon']:.2f} | {bound['most']:.2f} "
            f"| {promised} |"
        )


_MEASURED = (
    *("attack", "AUC", "{level} interval", "found at 1 % false alarms", "{level} interval"),
    *("members (cases)", "others (cases)"),
)


def _measured(attack: str, one: Record | None) -> str:
    if one is None:
        return f"| {attack} | too few bags | | | | | |"
    return (
        f"| {attack} | {one['auc']:.3f} | {_interval(one)} | {one['tpr']:.1%} "
        f"| {one['tpr_low']:.1%} to {one['tpr_high']:.1%} "
        f"| {one['num_members']} ({one['member_cases']}) "
        f"| {one['num_others']} ({one['other_cases']}) |"
    )


def _table(columns: tuple[str, ...], level: float) -> Iterator[str]:
    titles = [title.format(level=f"{100 * level:g} %") for title in columns]
    yield f"| {' | '.join(titles)} |"
    yield "|---" * len(titles) + "|"


def _interval(measured: Record) -> str:
    return f"{measured['auc_low']:.3f} to {measured['auc_high']:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
