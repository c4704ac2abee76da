"""Commands as the documentation prints them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/*.md", "cluster/README.md", "cluster/*/README.md")


@dataclass(frozen=True)
class Fence:
    """A block of code.

    Attributes:
        page, line: Where it begins.
        info: What stands behind the backticks: ``bash``, ``bash needs=aws``, ``csv``, nothing.
        text: Between them.
    """

    page: str
    line: int
    info: str
    text: str

    @property
    def is_shell(self) -> bool:
        return self.info.split(" ")[0] == "bash"

    @property
    def needs(self) -> str | None:
        """What a test does not have: an account, machines, a cluster of Kubernetes."""
        found = re.search(r"\bneeds=(\S+)", self.info)
        return None if found is None else found[1]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def fences() -> Iterator[Fence]:
    """All of them, page by page."""
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            yield from _of(path)


def _of(path: Path) -> Iterator[Fence]:
    begun: tuple[int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if begun is None and line.startswith("```"):
            begun, lines = (number, line.removeprefix("```").strip()), []
        elif begun is not None and line.startswith("```"):
            page = path.relative_to(ROOT).as_posix()
            yield Fence(page, *begun, "\n".join(lines))
            begun = None
        else:
            lines.append(line)
    assert begun is None, f"{path}: a block of code does not end"


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a block: continued lines are joined, comments left out.

    Of pipes and lists every part is a command. Bodies of here-documents are none.
    """
    text = re.sub(r"<<'?(\w+)'?.*?\n\1$", "", text, flags=re.S | re.M).replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        part: list[str] = []
        for word in words:
            if word in ("&&", "||", "|", "&", ";"):
                yield from ([part] if part else [])
                part = []
            else:
                part.append(word)
        yield from ([part] if part else [])
