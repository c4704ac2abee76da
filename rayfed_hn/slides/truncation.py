"""Tells a TIFF that was cut short from a file that is no slide.

OpenSlide calls both "unsupported", and a user needs to know which of the two to do something about.
Only offsets are read; no picture is opened.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}
_TILE_OFFSETS, _TILE_BYTES, _NDPI = 324, 325, 65420
_MAX_DIRECTORIES = 10_000


class _Cut(Exception):
    """The file points behind its own end."""


@dataclass
class _Tiff:
    file: BinaryIO
    size: int
    order: Literal["<", ">"]
    big: bool

    @property
    def word(self) -> int:
        """Bytes of an offset in this flavour of TIFF."""
        return 8 if self.big else 4

    def read(self, offset: int, count: int) -> bytes:
        if offset + count > self.size:
            raise _Cut
        self.file.seek(offset)
        return self.file.read(count)

    def unpack(self, kind: str, offset: int) -> int:
        return struct.unpack(self.order + kind, self.read(offset, struct.calcsize(kind)))[0]


def is_cut_short(path: Path) -> bool:
    """Return whether ``path`` is a TIFF whose directories or tiles lie behind its end.

    False for every other file, also for a TIFF that is wrong in another way.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(4)
        if head[:2] not in (b"II", b"MM"):
            return False
        order = "<" if head[:2] == b"II" else ">"
        version = struct.unpack(order + "H", head[2:4])[0] if len(head) == 4 else 0
        if version not in (42, 43):
            return False
        tiff = _Tiff(file, path.stat().st_size, order, version == 43)
        try:
            _walk(tiff)
        except _Cut:
            return True
        except (struct.error, KeyError, ValueError, MemoryError):
            return False
    return False


def _walk(tiff: _Tiff) -> None:
    offset = tiff.unpack("Q", 8) if tiff.big else tiff.unpack("I", 4)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        count = tiff.unpack("Q", offset) if tiff.big else tiff.unpack("H", offset)
        first, width = (offset + 8, 20) if tiff.big else (offset + 2, 12)
        tags = [tiff.read(first + i * width, width) for i in range(min(count, 4096))]
        numbers = {struct.unpack(tiff.order + "H", tag[:2])[0]: tag for tag in tags}
        if _NDPI in numbers:  # keeps the high halves of its offsets elsewhere
            return
        if _TILE_OFFSETS in numbers and _TILE_BYTES in numbers:
            starts = _values(tiff, numbers[_TILE_OFFSETS])
            lengths = _values(tiff, numbers[_TILE_BYTES])
            if starts.size == lengths.size and starts.size and (starts + lengths).max() > tiff.size:
                raise _Cut
        offset = tiff.unpack("Q" if tiff.big else "I", first + count * width)


def _values(tiff: _Tiff, tag: bytes) -> np.ndarray:
    kind, count = struct.unpack(tiff.order + ("HQ" if tiff.big else "HI"), tag[2 : -tiff.word])
    word = tag[-tiff.word :]
    size = _SIZES[kind] * count
    if size > len(word):
        at = struct.unpack(tiff.order + ("Q" if tiff.big else "I"), word)[0]
        word = tiff.read(at, size)
    dtype = {2: "u2", 4: "u4", 8: "u8"}[_SIZES[kind]]
    return np.frombuffer(word[:size], np.dtype(dtype).newbyteorder(tiff.order)).astype(np.float64)
