"""Documents with one key misspelt, in every place where there is a key."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Where = tuple[str | int, ...]


def keys(value: Any, where: Where = ()) -> Iterator[Where]:
    """The path of every key of every mapping."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        if isinstance(value, dict):
            yield (*where, key)
        if isinstance(part, (dict, list)):
            yield from keys(part, (*where, key))


def misspelt(document: dict[str, Any], where: Where) -> dict[str, Any]:
    """A copy in which the key at a path has another letter at its end."""
    broken = copy.deepcopy(document)
    parent, key = inside(broken, where[:-1]), where[-1]
    parent[f"{key}x"] = parent.pop(key)
    return broken


def inside(document: Any, where: Where) -> Any:
    for key in where:
        document = document[key]
    return document


def uncaught(document: dict[str, Any], problems: Any) -> list[Where]:
    """The keys that can be misspelt without anybody noticing.

    Args:
        document: It has no problems itself.
        problems: Of a document; anything that is true.
    """
    assert not problems(document)
    places = list(keys(document))
    assert places
    return [where for where in places if not problems(misspelt(document, where))]
