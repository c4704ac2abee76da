"""Damage to files: by bytes, and by what a text of a certain kind is made of."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

Mutate = Callable[[bytes, np.random.Generator], bytes]
HUGE = b"\xff\xff\xff\xff\xff\xff\xff\x7f"
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 5000),
    *("../../../etc/passwd", "/etc/passwd", "a\0b", "${oc.env:HOME}", "null", "-0", "1e999"),
    *([], {}, [[]], {"a": {"b": []}}, [None], ["x"], {"": 0}),
)


def by_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four strokes of what disks, networks and people do to files."""
    for _ in range(int(rng.integers(1, 5))):
        data = _STROKES[rng.integers(len(_STROKES))](data, rng)
    return data


def _span(data: bytes, rng: np.random.Generator) -> slice:
    start = int(rng.integers(0, len(data) + 1))
    return slice(start, start + int(rng.integers(1, 65)))


def _truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(0, len(data) + 1))]


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    flipped = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        flipped[rng.integers(len(flipped))] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = _span(data, rng).start
    return data[:at] + rng.bytes(int(rng.integers(1, 65))) + data[at:]


def _duplicate(data: bytes, rng: np.random.Generator) -> bytes:
    span = _span(data, rng)
    return data[: span.stop] + data[span] * int(rng.integers(1, 20)) + data[span.stop :]


def _swap(data: bytes, rng: np.random.Generator) -> bytes:
    one, other = sorted((_span(data, rng).start, _span(data, rng).start))
    return data[:one] + data[other : other + 16] + data[one + 16 : other] + data[one : one + 16]


def _huge_length(data: bytes, rng: np.random.Generator) -> bytes:
    at, width = _span(data, rng).start, int(rng.choice([2, 4, 8]))
    return data[:at] + HUGE[-width:] + data[at + width :]


def _zeros(data: bytes, rng: np.random.Generator) -> bytes:
    span = _span(data, rng)
    return data[: span.start] + bytes(len(data[span])) + data[span.stop :]


_STROKES = (_truncate, _flip, _insert, _duplicate, _swap, _huge_length, _zeros)


def by_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Another value, key or depth somewhere in JSON."""
    if rng.random() < 0.1:
        return b"[" * 100_000
    return json.dumps(_changed(json.loads(data), rng)).encode()


def by_json_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """A line of JSON that is another, missing, or there twice."""
    lines = data.splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    changed = [by_json(lines[at], rng) + b"\n", b"", lines[at] * 2, b"\n"][rng.integers(4)]
    return b"".join([*lines[:at], changed, *lines[at + 1 :]])


def by_yaml(data: bytes, rng: np.random.Generator) -> bytes:
    """Another value, key, tag or alias somewhere in YAML."""
    if rng.random() < 0.3:
        return data + bytes(rng.choice(_YAML))
    return yaml.safe_dump(_changed(yaml.safe_load(data), rng)).encode()


_YAML = (
    b"\nx: !!python/object/apply:os.system ['true']\n",
    b"\na: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    b"\na: &a {b: *a}\n",
    b"\nrun: {seed: 1, seed: 2}\n",
    b"\n? [1, 2]\n: 3\n",
    b"\nrun:\n  seed: 0x10\n  dir: 2020-01-01\n",
    b"\n--- \nrun: {}\n",
    b"\nrun: " + b"{a: " * 2000,
    b"\n<<: 3\n",
    b"\nrun: {seed: .nan}\n",
    b"\nrun: {seed: !!binary x}\n",
    b"\nrun: {dir: 2001-99-99}\n",
)


def by_csv(data: bytes, rng: np.random.Generator) -> bytes:
    """A cell, line or column of a CSV that is another, missing, or there twice."""
    rows = [line.split(",") for line in data.decode().split("\n")]
    row = int(rng.integers(len(rows)))
    column = int(rng.integers(len(rows[row])))
    match int(rng.integers(5)):
        case 0:
            value = VALUES[rng.integers(len(VALUES) - 7)]
            rows[row][column] = str(value)
        case 1:
            rows.insert(row, rows[row])
        case 2:
            del rows[row][column]
        case 3:
            rows[row].insert(column, rows[row][column])
        case 4:
            rows[row][column] = str(rng.choice(['"', '"\n', "A" * 200_000, "\r", "é", "\ufeff"]))
    return "\n".join(",".join(cells) for cells in rows).encode()


def _changed(tree: Any, rng: np.random.Generator) -> Any:
    """The tree with one to three of its places changed."""
    tree = {"top": copy.deepcopy(tree)}
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        holder, key = places[rng.integers(len(places))]
        match int(rng.integers(4)):
            case 0:
                holder[key] = [holder[key]]
            case 1 if len(holder) > 1:
                del holder[key]
            case 2 if isinstance(holder, dict):
                holder[f"{key}x"] = holder[key]
            case _:
                holder[key] = VALUES[rng.integers(len(VALUES))]
    return tree.get("top")


def _places(tree: Any) -> Any:
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
