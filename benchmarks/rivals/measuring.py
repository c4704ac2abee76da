"""What the systems' scripts share: their options, their line of figures, their memory."""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The size of a run.

    Attributes:
        sites: All of them take part in every round.
        steps: Bags that a site trains on in a round; 0 to time what is not training.
        rounds: At least 2, since the first is reported apart.
        processes: That train sites.
    """

    sites: int
    steps: int
    rounds: int
    processes: int


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes:
        seconds: Of every round, the first included.
        peak_rss_mib: Of all processes together, as ``peak_rss_mib`` counts.
        moved: As ``workload.moved`` has it.
    """

    seconds: list[float]
    peak_rss_mib: float
    moved: float


def read_options(description: str | None, processes: int) -> Options:
    """The command line's options, with the script's own number of processes by default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument(
        "--steps", type=int, default=0, help="bags a site and round; 0: no training"
    )
    parser.add_argument("--rounds", type=int, default=5, help="the first is reported apart")
    parser.add_argument("--processes", type=int, default=processes)
    options = Options(**vars(parser.parse_args()))
    if options.rounds < 2:
        parser.error("--rounds must be at least 2: the first is reported apart")
    if options.sites < 2 or options.sites % options.processes:
        parser.error("--sites must be at least 2 and a multiple of --processes: equal shares")
    return options


def line(system: str, version: str, options: Options, measured: Measured) -> str:
    """The one line of JSON that a script prints."""
    first, *later = measured.seconds
    record = {
        "system": system,
        **asdict(options),
        "seconds_per_round": statistics.median(later),
        "seconds": later,
        "first_round_s": first,
        "version": version,
        "peak_rss_mib": round(measured.peak_rss_mib, 1),
        "moved": measured.moved,
    }
    return json.dumps(record)


def peak_rss_mib(root: int) -> float:
    """Sum of the peaks of a process and of all that descend from it and still run.

    An upper bound of what they held at once: memory that they share counts in each of them, and
    their peaks need not coincide. 0 where there is no /proc.
    """
    parents: dict[int, int] = {}
    peaks: dict[int, float] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:  # it ended meanwhile
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        pid = int(status.parent.name)
        parents[pid] = int(fields["PPid"])
        peaks[pid] = int(fields.get("VmHWM", "0 kB").split()[0]) / 1024
    tree, newest = {root}, {root}
    while newest:
        newest = {pid for pid, parent in parents.items() if parent in newest} - tree
        tree |= newest
    return sum(peaks.get(pid, 0.0) for pid in tree)
