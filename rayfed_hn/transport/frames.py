"""What travels on a stream: frames, cut into pieces of a bounded size.

A frame is a head (what it is, which request it belongs to, how long it is) and a payload. gRPC
never holds more than a piece; whoever puts pieces together says how long a frame may be at most.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from rayfed_hn.errors import MessageError
from rayfed_hn.federation.wire import Message, expect, open_message, serialise

PIECE_BYTES = 2**20
GREETING_BYTES = 2**16  # of everything that is said before a site is admitted
_HEAD = struct.Struct("<4sB3xQQ")
_MAGIC = b"RFH1"


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1  # site: who I am, and my card
    WELCOME = 2  # server: which run this is, and its settings
    READY = 3  # site: these are my settings too
    END = 4  # either: I shall say no more, and why
    ANSWER = 5  # site: to the request of this number
    TRAIN = 16
    STATISTICS = 17
    PREPARE = 18
    CANDIDATES = 19
    EVALUATE = 20


class Ending(IntEnum):
    """Why one side says no more; the other side has its own words for it."""

    FINISHED = 0
    FAILED = 1
    REPLACED = 2
    NOT_UNDERSTOOD = 3
    OTHER_RUN = 4
    FORGOTTEN = 5
    OTHER_BAGS = 6
    OTHER_SETTINGS = 7
    GIVEN_UP = 8
    NO_PART = 9


@dataclass(frozen=True)
class Frame:
    """One of them.

    Attributes:
        kind: What it is.
        payload: A message.
        number: Of the request that it is or answers; 0 elsewhere.
    """

    kind: Kind
    payload: Message = b""
    number: int = 0


def pieces(frame: Frame) -> Iterator[bytes]:
    """The frame as it is sent."""
    view = memoryview(frame.payload)
    head = _HEAD.pack(_MAGIC, frame.kind, frame.number, len(view))
    first = PIECE_BYTES - len(head)
    yield head + bytes(view[:first])
    for start in range(first, len(view), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])


class Assembler:
    """Puts pieces together, and trusts none of them.

    Args:
        limit: Bytes of the longest payload; may be changed between frames.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kind, self._number, self._length = Kind.END, 0, 0
        self._payload: bytearray | None = None

    def add(self, piece: bytes) -> Frame | None:
        """The frame that this piece completes; None if there is more to come.

        Raises:
            MessageError: It is no piece of a frame that may be sent. Nothing after it makes sense.
        """
        if len(piece) > PIECE_BYTES:
            raise MessageError(f"piece of {len(piece):,} bytes; at most {PIECE_BYTES:,} allowed")
        if self._payload is None:
            piece = self._begin(piece)
        elif not piece:
            raise MessageError("empty piece")
        assert self._payload is not None
        self._payload += piece
        if len(self._payload) > self._length:
            raise MessageError(f"frame is longer than the {self._length:,} bytes that it announced")
        if len(self._payload) < self._length:
            return None
        payload, self._payload = self._payload, None
        return Frame(self._kind, memoryview(payload).toreadonly(), self._number)

    def _begin(self, piece: bytes) -> bytes:
        if len(piece) < _HEAD.size or piece[:4] != _MAGIC:
            raise MessageError("not a frame of this protocol; is the other side's version another?")
        _, kind, self._number, self._length = _HEAD.unpack_from(piece)
        if kind not in list(Kind):
            raise MessageError(f"frame of unknown kind {kind}")
        if self._length > self.limit:
            raise MessageError(f"frame of {self._length:,} bytes; at most {self.limit:,} allowed")
        self._kind, self._payload = Kind(kind), bytearray()
        return piece[_HEAD.size :]


def end(why: Ending) -> Frame:
    """A last frame."""
    return Frame(Kind.END, serialise({"ending": np.array([int(why)])}))


def read_end(frame: Frame) -> Ending:
    """Why the other side says no more.

    Raises:
        MessageError: It does not say.
    """
    ending = expect(open_message(frame.payload, 8), "ending", np.int64, (1,))
    code = int(ending[0])
    if code not in list(Ending):
        raise MessageError(f"unknown ending {code}")
    return Ending(code)
