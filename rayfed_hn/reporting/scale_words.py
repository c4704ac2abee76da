"""What an experiment with more and more sites says, and how its numbers are to be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rayfed_hn.reporting.scale_rows import (
    Record,
    by_method,
    digits,
    memory,
    ordered,
    seconds,
    share_of_copying,
)
from rayfed_hn.reporting.scale_scores import about, claim, tested
from rayfed_hn.reporting.words import listed

_MAX_CLAIMS = 3  # methods that are told one by one; of more, the two ends


def verdict(summary: Record) -> str:
    """Say what the most sites cost, against the fewest with as many updates in a version."""
    ladders = by_method(summary)
    top = max(row["sites"] for row in summary["rows"])
    most = max(row["total_pss_mib"] for row in summary["rows"] if row["sites"] == top)
    in_all = f"{'at most ' if len(ladders) > 1 else ''}{memory(most)} in all"
    ratios: dict[str, dict[str, float]] = {}
    for method, rows in ladders.items():
        if len(rows) > 1:
            base, last = _base(rows), rows[-1]
            ratio = last["seconds_per_version"] / base["seconds_per_version"]
            ratios.setdefault(_against(base, last), {})[method] = ratio
    if ratios:
        told = "; ".join(
            f"{_claims(of_method, lambda ratio: f'{digits(ratio)} times')} {against}"
            for against, of_method in ratios.items()
        )
    else:
        times = {method: rows[-1]["seconds_per_version"] for method, rows in ladders.items()}
        told = f"{_claims(times, seconds)} a version"
    costs = f"{_sites(top)}: {told} (medians of {_counted(summary)} versions); {in_all}."
    return f"{costs} {claim(summary)}".rstrip()


def troubles(summary: Record) -> tuple[str, ...]:
    """Say where sites were lost."""
    return tuple(
        f"{_sites(row['lost_sites'])} of {row['method']} at {_sites(row['sites'])} "
        f"{'was' if row['lost_sites'] == 1 else 'were'} lost"
        for row in ordered(summary)
        if row["lost_sites"]
    )


def notes(summary: Record) -> tuple[str, ...]:
    """Say how the tables are to be read: of time, of bytes, of memory, and of scores if any."""
    found = _about_time(summary), _about_bytes(summary), _about_memory(summary)
    return (*found, about(summary)) if tested(summary) else found


def _base(rows: Sequence[Record]) -> Record:
    """The step that the last one is measured by: one with versions as large, if there is any."""
    alike = [row for row in rows[:-1] if row["cohort_size"] == rows[-1]["cohort_size"]]
    return (alike or rows)[0]


def _against(base: Record, last: Record) -> str:
    words = f"the time per version at {_sites(base['sites'])}"
    if base["cohort_size"] == last["cohort_size"]:
        return words
    more = round(last["cohort_size"] / base["cohort_size"], 1)
    return f"{words}, with {more:,g} times the updates"


def _claims(values: Mapping[str, float], write: Callable[[float], str]) -> str:
    if len(alike := set(map(write, values.values()))) == 1:
        return alike.pop()
    told = [f"{write(value)} ({method})" for method, value in values.items()]
    if len(told) <= _MAX_CLAIMS:
        return listed(told)
    low, high = (f"{write(values[m])} ({m})" for m in _ends(values))
    return f"{low} to {high}"


def _ends(values: Mapping[str, float]) -> tuple[str, str]:
    return min(values, key=lambda name: values[name]), max(values, key=lambda name: values[name])


def _about_time(summary: Record) -> str:
    return (
        f"Medians over {_counted(summary)} versions; the first version, in which sites open their "
        "bags, is left out. Hosts are the processes with sites; training is the time of sites "
        "divided by them; transport is what else the server waited for. Medians of phases need "
        "not add up to the median of the whole."
    )


def _about_bytes(summary: Record) -> str:
    shares = {
        f"{row['method']}, {_sites(row['sites'])}": 100 * share_of_copying(row)
        for row in ordered(summary)
    }
    low, high = (f"{digits(shares[name])} % ({name})" for name in _ends(shares))
    between = low if low == high else f"{low} to {high}"
    nothing_sent = (
        " All ran in one process: bytes are what another one would have been sent and answered."
        if summary["where"] == "process"
        else ""
    )
    return (
        "MB are 10^6 bytes. Copying: to read and write once all bytes that a version moves would "
        f"take {between} of its time, at the {_bandwidths(summary)} GB/s read and "
        f"written that this machine was measured to copy before each step.{nothing_sent}"
    )


def _about_memory(summary: Record) -> str:
    resident = max(row["total_rss_mib"] for row in summary["rows"])
    return (
        "Memory is of this process and those that it started (on a cluster that was joined, of "
        "this process alone), looked at between versions: the most that was seen. It is PSS, in "
        "which pages that processes share count once; RSS, which counts them in every process, is "
        f"{memory(resident)} at most."
    )


def _counted(summary: Record) -> int:
    return max(row["num_versions"] for row in summary["rows"]) - 1


def _bandwidths(summary: Record) -> str:
    found = [row["copy_bytes_per_second"] / 1e9 for row in summary["rows"]]
    low, high = digits(min(found)), digits(max(found))
    return low if low == high else f"{low} to {high}"


def _sites(number: int) -> str:
    return f"{number:,} site{'' if number == 1 else 's'}"
