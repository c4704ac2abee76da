"""``audit.json`` of a training run: what attacks found, beside what the run promises.

The file is read leniently: whatever it does not say is left open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayfed_hn.evaluation.markdown import interval, number
from rayfed_hn.reporting import page
from rayfed_hn.reporting.privacy_file import finite
from rayfed_hn.reporting.run_files import read_optional

_LEVEL = 0.95  # of intervals, if the file does not say


@dataclass(frozen=True)
class Attack:
    """What an attack found; every number may be missing.

    Attributes:
        name: Which.
        auc, low, high: How well it tells what was there from what was not, with its interval.
        tpr: Share of true positives at 1 % false ones.
        epsilon: What it shows epsilon to be at least.
        promised: Epsilon that is promised of what it attacks.
        broken: Whether it contradicts the promise.
    """

    name: str
    auc: float | None
    low: float | None
    high: float | None
    tpr: float | None
    epsilon: float | None = None
    promised: float | None = None
    broken: bool = False


@dataclass(frozen=True)
class Audit:
    """An audit.

    Attributes:
        attacks: What they found.
        messages: Where what they attacked came from, in words; "" if that is not said.
        level: Of the intervals.
    """

    attacks: tuple[Attack, ...]
    messages: str
    level: float


def audit(folder: Path, mechanism: str) -> list[str]:
    """Return the part of the privacy section about attacks; nothing if none were tried.

    Args:
        folder: The run directory.
        mechanism: Of the run.

    Raises:
        DataError: The file is no JSON; says what to do.
    """
    found = read_optional(folder / "audit.json", _audit)
    if found is None:
        return []
    title = page.heading("Audit")
    if not found.attacks:
        nothing = "audit.json lies beside this page, but names no attack."
        return [title, page.paragraph(nothing, "quiet")]
    broken = [
        f"{a.name}: epsilon is at least {number(a.epsilon)}, but {number(a.promised)} is promised. "
        "The noise is not what it should be: release nothing of this run."
        for a in found.attacks
        if a.broken
    ]
    return [title, page.trouble("The promise is broken", broken), _table(found, mechanism)]


def _table(found: Audit, mechanism: str) -> str:
    source = f" Messages: {found.messages}." if found.messages else ""
    caption = (
        f"Attacks on this run, mechanism '{mechanism}'.{source} AUC: how well an attack tells what "
        "was trained on from what was not, 0.5 by guessing. An attack that finds nothing proves "
        "nothing, and a lower bound of epsilon is no estimate of it."
    )
    header = [
        *("attack", "AUC", f"{100 * found.level:g} % interval", "true positives at 1 % false ones"),
        *("epsilon at least", "epsilon promised"),
    ]
    rows = [
        [
            a.name,
            number(a.auc),
            interval(a.low, a.high),
            "–" if a.tpr is None else f"{100 * a.tpr:.1f} %",
            number(a.epsilon),
            "none" if a.promised is None and a.epsilon is not None else number(a.promised),
        ]
        for a in found.attacks
    ]
    broken = [i for i, attack in enumerate(found.attacks) if attack.broken]
    return page.table(caption, header, rows, chosen=broken)


def _audit(values: Any) -> Audit:
    attacks = tuple(_attacks(values)) if isinstance(values, Mapping) else ()
    if not attacks:
        return Audit((), "", _LEVEL)
    return Audit(attacks, str(values.get("messages") or ""), finite(values.get("level")) or _LEVEL)


def _attacks(values: Mapping[str, Any]) -> Iterator[Attack]:
    for name, measured in _named(values, "membership"):
        yield _attack(f"was a slide trained on? ({name})", measured)
    for name, found in _named(values, "property"):
        yield _attack(f"is a slide from this site? ({name})", found.get("pairs") or {})
    told = (values.get("inversion") or {}).get("told_apart")
    if told:
        yield _attack("are its tiles in the update? (inversion)", told)
    for name, found in _named(values, "canaries"):
        bound, promised = finite((found.get("bound") or {}).get("epsilon")), found.get("promised")
        promised = finite(promised)
        beyond = bound is not None and promised is not None and bound > promised
        yield _attack(
            f"canaries ({name})",
            found.get("guessing") or {},
            epsilon=bound,
            promised=promised,
            broken=bool(found.get("broken")) or beyond,
        )


def _named(values: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Attacks of a kind; of those that could not be tried, there is no record."""
    for name, found in (values.get(kind) or {}).items():
        if isinstance(found, Mapping):
            yield str(name), found


def _attack(name: str, measured: Mapping[str, Any], **about: Any) -> Attack:
    keys = {"auc": "auc", "low": "auc_low", "high": "auc_high", "tpr": "tpr"}
    return Attack(name, **{n: finite(measured.get(key)) for n, key in keys.items()}, **about)
