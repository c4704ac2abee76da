"""Search spaces as they are written: ``loguniform(0.01, 1)``, or the same as a mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rayfed_hn.errors import ConfigError

LISTED = ("grid", "choice")  # kinds that name their values
RANGES = ("uniform", "loguniform")  # kinds that name their ends
KINDS = (*LISTED, *RANGES)
FORMS = "grid(a, b), choice(a, b), uniform(low, high) or loguniform(low, high)"

_WRITTEN = re.compile(r"\s*(\w+)\s*\(([^()]*)\)\s*")


@dataclass(frozen=True)
class Space:
    """Values that one key may take.

    Attributes:
        kind: One of ``KINDS``.
        items: The values, or both ends, as they were written.
    """

    kind: str
    items: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(self.items)})"


def read_space(written: Any) -> Space:
    """Read a space from text, or from a mapping such as ``{grid: [1, 2]}``.

    Raises:
        ValueError: It is neither; the text says what is wrong.
    """
    if isinstance(written, str) and written.lstrip().startswith("{"):
        written = _mapping(written)
    if isinstance(written, Mapping):
        if len(written) != 1:
            raise ValueError("it has not exactly one kind")
        kind, values = next(iter(written.items()))
        if not isinstance(values, list | tuple):
            raise ValueError(f"what belongs to '{kind}' is no list")
        items = [_text(value) for value in values]
    elif isinstance(written, str) and (found := _WRITTEN.fullmatch(written)):
        kind = found[1]
        items = [item.strip() for item in found[2].split(",")] if found[2].strip() else []
    else:
        raise ValueError("it is no search space")
    return _checked(str(kind), items)


def written(key: str, value: Any, where: str) -> str:
    """The one way to write a space, of any that it can be given in.

    Raises:
        ConfigError: Names the key, the value and the forms.
    """
    try:
        space = str(read_space(value))
    except ValueError as error:
        raise ConfigError(f"{key}: got {value!r} {where}: {error}; allowed: {FORMS}") from None
    if "${" in space:
        raise ConfigError(f"{key}: '${{' is not allowed {where}; write the value itself")
    return space


def _checked(kind: str, items: list[str]) -> Space:
    if kind not in KINDS:
        raise ValueError(f"there is no '{kind}'")
    if not all(items) or any(set("(),") & set(item) for item in items):
        raise ValueError("a value is empty, or holds a comma or a bracket")
    if kind in RANGES and len(items) != 2:
        raise ValueError(f"{kind} has two ends, and {len(items)} are given")
    if not items:
        raise ValueError("it names no value")
    return Space(kind, tuple(items))


def _mapping(text: str) -> Any:
    try:
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        raise ValueError("it is no search space") from None


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).strip()
