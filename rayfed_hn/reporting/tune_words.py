"""What a search has found, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.evaluation.markdown import interval, number
from rayfed_hn.evaluation.subject import Record, seen_from
from rayfed_hn.reporting.verdict import kind_of
from rayfed_hn.reporting.words import listed, percent

Summary = Mapping[str, Any]
_BY_CHANCE = 0.05  # a key whose share chance reaches more often is not said to have mattered
_ENDS = {"finished": "finished", "stopped": "stopped at version {version}", "failed": "failed"}


def setting(value: object) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings(record: Record) -> str:
    """Return the settings of a trial in a line."""
    return " ".join(f"{key}={setting(value)}" for key, value in record["settings"].items())


def status_of(record: Record) -> str:
    """Return how a trial has ended."""
    return _ENDS[record["status"]].format(version=record["version"])


def amounts(summary: Summary) -> list[str]:
    """Return the objectives beside the metric that are not among the settings already."""
    keys = {key.rsplit(".", 1)[-1] for key in summary["space"]}
    return [name for name in summary["objectives"][1:] if name not in keys]


def by_rank(summary: Summary) -> list[Record]:
    """Return finished trials, best first, then stopped ones and failed ones."""
    order = list(_ENDS)

    def rank(record: Record) -> tuple[int, float, int]:
        metric = record["validation_metric"]
        return order.index(record["status"]), -metric if metric is not None else 1, record["trial"]

    return sorted(summary["trials"], key=rank)


def best_of(summary: Summary) -> Record:
    """Return the trial with the best setting."""
    return next(r for r in summary["trials"] if r["trial"] == summary["best"])


def verdict(summary: Summary) -> str:
    """Say which setting is best, and whether that holds on cases of other divisions."""
    found = best_of(summary)
    tried = len(summary["trials"])
    whole = sum(record["status"] == "finished" for record in summary["trials"])
    some = f", of which {whole} made all versions" if whole < tried else ""
    told = (
        f"Of {tried} settings{some}, {settings(found)} has the highest validation "
        f"{summary['metric']}, {number(found['validation_metric'])}"
    )
    return f"{told}. {_tested(summary)}"


def _tested(summary: Summary) -> str:
    final, failed = summary["final"], {cell["method"] for cell in summary["failed_cells"]}
    if not final and not failed:
        return "It was not tested (tune.final_seeds=0)."
    table = final["table"] if final else []
    rows = {r["method"]: r for r in table if r["readout"] == final["readout"]}
    own = rows.get("tuned")
    if own is None and "tuned" in failed:
        return "It could not be tested: every training for that failed."
    if own is None or own["mean_site"] is None:
        return f"On test cases no {summary['metric']} is defined."
    told = f"On test cases of divisions that no trial saw it reaches {number(own['mean_site'])}"
    if "configured" not in rows and "configured" in failed:
        return f"{told}; what is configured could not be tested: every training of it failed."
    if "configured" not in rows:
        return f"{told}; but for privacy, what is configured is the same setting."
    difference = paired(summary)
    if difference is None or difference["difference"] is None:
        return f"{told}."
    found = number(difference["difference"], signed=True)
    if difference["low"] is None:
        return f"{told}, {found} against what is configured: of one division there is no interval."
    if difference["low"] == difference["high"] == 0:
        return f"{told}, as does what is configured, at every site in every division."
    bounds = interval(difference["low"], difference["high"], signed=True)
    return (
        f"{told}, {kind_of(difference)} what is configured (test {final['metric']} {found}, 95 % "
        f"interval {bounds})."
    )


def paired(summary: Summary) -> Record | None:
    """Return the difference between the best setting and the configured one, on test cases."""
    final = summary["final"] or {"differences": [], "readout": None}
    own = [d for d in final["differences"] if d["readout"] == final["readout"]]
    return next((d for d in seen_from("tuned", own) if d["against"] == "configured"), None)


def mattered(summary: Summary) -> list[str]:
    """Say which keys made a difference between trials, and which could not."""
    told = []
    rows = summary["importance"]
    if rows:
        clear = [row for row in rows if row["chance"] <= _BY_CHANCE]
        shares = [f"{row['key']} ({percent(row['share'])} of the variance)" for row in clear]
        rest = [row["key"] for row in rows if row["chance"] > _BY_CHANCE]
        none = "No key alone can be told from chance."
        told.append(f"What mattered: {listed(shares)}." if shares else none)
        if shares and rest:
            told.append(f"Not told from chance: {listed(rest)}.")
    told += [f"{row['key']} changed nothing: {row['because']}." for row in summary["idle"]]
    alike = summary["alike"]
    if alike:
        told.append(
            f"{alike['key']} cannot matter from {alike['from']} on, the number of sites: fixed "
            "embeddings are then orthonormal, and all lengths make the same model, but for "
            "rounding. That is so in "
            f"{_trials(alike['trials'])}"
            f"{'; where they differ, it is by something else' * (len(alike['trials']) > 1)}."
        )
    return told


def _trials(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    return f"trials {listed([str(n) for n in numbers])}"


def choice_words(summary: Summary) -> str:
    """Say what a search cannot decide by itself, if it has two objectives."""
    if len(summary["objectives"]) < 2:
        return ""
    other = summary["objectives"][1]
    return (
        f"best.yaml is the end of the front with the highest {summary['metric']}, whatever its "
        f"{other}. How much of the one is worth how much of the other is not for a search to say: "
        "front/ holds a configuration of every setting that is not beaten in both."
    )


def limits(summary: Summary) -> str:
    """Say what a reader must not take the numbers for."""
    told = (
        "Validation metrics of the best of many trials are too high, since luck was chosen too: "
        "only the test counts."
    )
    final = summary["final"]
    if final and not final["unseen"]:
        told += (
            " Other divisions re-divide the same cases: a test case was a training or validation "
            "case of some trial, so the settings, though not the networks, have seen it. The test "
            "of one setting is a little too high for that; a search of many settings on few cases "
            "needs cases that were set aside before."
        )
    return f"{told} Trials are simulations: nothing of them is in any ledger of a site."
