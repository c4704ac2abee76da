"""Commands as the documentation prints them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/*.md", "docs/guides/*.md", "cluster/README.md", "cluster/*/README.md")
_HERE = re.compile(r"(?:>\s*(\S+)\s*)?<<'?(\w+)'?[^\n]*\n(.*?)\n\2$", re.S | re.M)
_PUNCTUATION = "();<>|&\n"
_INLINE = re.compile(r"(?<!`)`((?:rayfed-hn|make|python benchmarks/|ray job)\b[^`]*)`(?!`)")


@dataclass(frozen=True)
class Fence:
    """A block of code, or what stands between two backticks in a line.

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

    @property
    def written(self) -> dict[str, str]:
        """Files that here-documents of the block make, by name."""
        return {name: body for name, _, body in _HERE.findall(self.text) if name}


def pages() -> list[Path]:
    """All pages of the documentation."""
    return [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def fences() -> Iterator[Fence]:
    """All blocks, page by page."""
    for path in pages():
        yield from _of(path)


def inline() -> Iterator[Fence]:
    """Commands that are named in a sentence."""
    for path in pages():
        page, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        prose = re.sub(
            r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.S | re.M
        )
        for found in _INLINE.finditer(prose):
            line = prose.count("\n", 0, found.start()) + 1
            yield Fence(page, line, "", found[1].replace("\n", " "))


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


def tokens(text: str) -> list[str]:
    """The words of a script, with ``;``, ``&&``, line ends and their kin between commands.

    Continued lines are joined; comments and bodies of here-documents are left out.
    """
    text = _HERE.sub("", text).replace("\\\n", " ")
    text = re.sub(r"(^|\s)#", r"\n#", text, flags=re.M)  # a comment takes its line's end away
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_PUNCTUATION)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, "#"
    return list(lexer)


def is_punctuation(token: str) -> bool:
    return bool(token) and not token.strip(_PUNCTUATION)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a script, without where its output goes."""
    part: list[str] = []
    redirected = False
    for token in [*tokens(text), "\n"]:
        if is_punctuation(token) and not set(token) & set("<>"):
            yield from ([part] if part else [])
            part = []
        elif is_punctuation(token):
            redirected = True
            continue
        elif not redirected:
            part.append(token)
        redirected = False


def lines(text: str) -> list[str]:
    """The lines of a script as a reader types them: joined where they go on, no comments."""
    joined = text.replace("\\\n", " ")
    cut = (re.sub(r"\s+#.*$", "", line) for line in joined.splitlines())
    return [re.sub(r"  +", " ", line).strip() for line in cut if line.strip() and line[0] != "#"]
