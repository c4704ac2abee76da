"""The directories of a TIFF: numbers and offsets only, no picture is opened.

Every read is held against the size of the file, so a header that lies costs neither memory nor
time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, SAMPLES, PLANAR = 266, 277, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
JPEG_TABLES, NDPI = 347, 65420

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SIZES |= {13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_MAX_DIRECTORIES = 10_000
_MAX_TAG_BYTES = 2**29  # the offsets of 64 million tiles


class BehindEnd(Exception):
    """The file points behind its own end."""


class Malformed(Exception):
    """It is no TIFF, or one that means nothing to us."""


@dataclass
class _Tiff:
    file: BinaryIO
    size: int
    order: Literal["<", ">"]
    big: bool

    def read(self, offset: int, count: int) -> bytes:
        if count > _MAX_TAG_BYTES:
            raise Malformed
        if offset + count > self.size:
            raise BehindEnd
        self.file.seek(offset)
        return self.file.read(count)

    def unpack(self, kind: str, offset: int) -> int:
        return struct.unpack(self.order + kind, self.read(offset, struct.calcsize(kind)))[0]


class Directory:
    """One picture of the file: its tags, whose values are read when they are asked for."""

    def __init__(self, tiff: _Tiff, entries: list[bytes]) -> None:
        self._tiff = tiff
        self._tags = {struct.unpack(tiff.order + "H", entry[:2])[0]: entry for entry in entries}

    def __contains__(self, tag: int) -> bool:
        return tag in self._tags

    def numbers(self, tag: int) -> NDArray[np.uint64]:
        """Return the whole numbers of a tag, uint64 (N,); none if it is absent.

        Raises:
            BehindEnd: They lie behind the end of the file.
            Malformed: They are not whole numbers, or too many.
        """
        if tag not in self._tags:
            return np.empty(0, np.uint64)
        kind, data = self._value(tag)
        if kind not in _UNSIGNED:
            raise Malformed
        return np.frombuffer(data, self._tiff.order + _UNSIGNED[kind]).astype(np.uint64)

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first number of a tag, or ``default`` if it is absent or empty."""
        values = self.numbers(tag)
        return int(values[0]) if len(values) else default

    def data(self, tag: int) -> bytes:
        """Return the bytes of a tag; empty if it is absent.

        Raises:
            BehindEnd: They lie behind the end of the file.
            Malformed: They are too many.
        """
        return self._value(tag)[1] if tag in self._tags else b""

    def count(self, tag: int) -> int:
        """Return how many values a tag claims to have."""
        return self._head(tag)[1] if tag in self._tags else 0

    def _head(self, tag: int) -> tuple[int, int]:
        word = 8 if self._tiff.big else 4
        form = self._tiff.order + ("HQ" if self._tiff.big else "HI")
        return struct.unpack(form, self._tags[tag][2:-word])

    def _value(self, tag: int) -> tuple[int, bytes]:
        kind, count = self._head(tag)
        word = self._tags[tag][-8 if self._tiff.big else -4 :]
        if kind not in _SIZES:
            raise Malformed
        size = _SIZES[kind] * count
        if size <= len(word):
            return kind, word[:size]
        at = struct.unpack(self._tiff.order + ("Q" if self._tiff.big else "I"), word)[0]
        return kind, self._tiff.read(at, size)


def directories(file: BinaryIO, size: int) -> Iterator[Directory]:
    """Yield the directories of an open TIFF in their order; those of sub-pictures are left out.

    Args:
        file: The file, open for reading in binary mode.
        size: Its size in bytes.

    Raises:
        BehindEnd: A directory lies behind the end of the file.
        Malformed: The file is no TIFF.
    """
    tiff = _header(file, size)
    offset = tiff.unpack("Q", 8) if tiff.big else tiff.unpack("I", 4)
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        count = tiff.unpack("Q", offset) if tiff.big else tiff.unpack("H", offset)
        first, width = (offset + 8, 20) if tiff.big else (offset + 2, 12)
        if count > 4096:
            raise Malformed
        table = tiff.read(first, count * width)
        yield Directory(tiff, [table[i * width : (i + 1) * width] for i in range(count)])
        offset = tiff.unpack("Q" if tiff.big else "I", first + count * width)


def _header(file: BinaryIO, size: int) -> _Tiff:
    head = file.read(4)
    if len(head) < 4 or head[:2] not in (b"II", b"MM"):
        raise Malformed
    order: Literal["<", ">"] = "<" if head[:2] == b"II" else ">"
    version = struct.unpack(order + "H", head[2:])[0]
    if version not in (42, 43):
        raise Malformed
    return _Tiff(file, size, order, version == 43)
