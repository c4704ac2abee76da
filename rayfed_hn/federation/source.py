"""Which code made a run."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import rayfed_hn


@cache
def source_digest() -> str:
    """The package's version, and SHA-256 of all its source files."""
    root, hasher = Path(rayfed_hn.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        hasher.update(f"{path.relative_to(root).as_posix()}\n".encode())
        hasher.update(path.read_bytes())
    return f"{rayfed_hn.__version__} {hasher.hexdigest()}"
