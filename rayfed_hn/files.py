"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

FINGERPRINT_BYTES = 65_536  # of either end; an archive of thousands of slides is asked at every run


def fingerprint(path: Path) -> str:
    """SHA-256 (hex) of a file's size and both of its ends; "" if it cannot be read.

    It tells a file that was replaced or changed from one that was only moved or copied.
    """
    try:
        if not path.is_file():  # to open a pipe would wait for ever
            return ""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            total = hashlib.sha256(str(size).encode())
            for start in (0, max(0, size - FINGERPRINT_BYTES)):
                file.seek(start)
                total.update(file.read(FINGERPRINT_BYTES))
    except OSError:
        return ""
    return total.hexdigest()


def clear_partial(folder: Path, pattern: str) -> None:
    """Delete what interrupted ``write_atomically`` calls left; nobody may be writing there."""
    for path in folder.glob(f"{pattern}.*.partial"):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk before anything else happens."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place for good.

    The data is on disk before the name points to it; a crash leaves the old file or the new one.
    Only its owner can read it, or enter a folder that is made for it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
