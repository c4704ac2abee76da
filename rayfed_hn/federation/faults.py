"""What went wrong and was made good in a run, over all drivers that worked on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rayfed_hn.federation.json_lines import JsonLines

CENTRE = ""  # in place of a site's name


class Faults:
    """``restarts.jsonl`` in the run directory: one line whenever a process was started anew.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder / "restarts.jsonl")
        self._counts: Counter[str] = Counter()
        for line in self._lines.read():
            self._counts[line["site"] or CENTRE] += line["times"]
        self._noted: Counter[str] = Counter()  # of the present driver

    @property
    def restarts(self) -> dict[str, int]:
        """How often the process of a site was started anew, where it was."""
        return {site: n for site, n in sorted(self._counts.items()) if site != CENTRE}

    @property
    def centre_restarts(self) -> int:
        return self._counts[CENTRE]

    def note(self, restarts: Mapping[str, int], centre_restarts: int = 0) -> None:
        """Write down what is new.

        Args:
            restarts: Of every site, under the present driver.
            centre_restarts: Of the central process.
        """
        found = Counter(restarts) + Counter({CENTRE: centre_restarts})
        news = found - self._noted
        if news:
            self._lines.append([{"site": s or None, "times": n} for s, n in sorted(news.items())])
        self._counts += news
        self._noted = found
