"""Reads slides in a process of their own, with limits of time and memory.

Pixels come through memory that both processes share, a few batches ahead of whoever encodes them.
A process that crashes, hangs or swells costs its slide and nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rayfed_hn
from rayfed_hn.bags.bag import ARTEFACTS
from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import SetAside
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.reading import Batch, Found, batch_shape

# glibc gives large blocks back to the system at every free and faults them in again at the next
# tile, which costs as much as half a decode. With these limits a process keeps them.
KEEP_MEMORY = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_TOP_PAD_": str(2**26),
}
SLOTS = 3  # one being encoded, one waiting, one being filled
START_SECONDS = 120.0  # for imports on a slow or busy machine
KILL_SECONDS = 5.0
MAX_LINE_BYTES = 512 * 2**20  # coordinates and tissue of ten million tiles


class IsolatedReader:
    """A process that reads one slide after the other; made anew when it is lost.

    Args:
        config: Scale, tile and tissue settings, and the limits.
    """

    def __init__(self, config: EmbedConfig) -> None:
        self._config = config
        self._child: _Child | None = None

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    @contextmanager
    def open_reading(
        self, record: SlideRecord, source: str, picture: Path | None = None
    ) -> Iterator[IsolatedReading]:
        """Open a slide of the manifest and find its tiles, as ``reading.open_reading`` does.

        Raises:
            SetAside: The slide cannot be used, or took more than it may.
        """
        child = self._ready()
        try:
            child.ask("read", record, source=source, picture=picture and str(picture))
            reading = IsolatedReading(child)
            yield reading
            reading.finish()
        except _Told as error:  # the process is well, only the slide is not
            raise SetAside(*error.args) from None
        except BaseException:
            self.close()
            raise

    def draw(self, record: SlideRecord, source: str, picture: Path) -> None:
        """Only draw a slide with its tissue and tiles.

        Raises:
            SetAside: The slide cannot be used.
        """
        self._do("draw", record, source=source, picture=str(picture))

    def import_features(self, record: SlideRecord, source: str, root: Path) -> int:
        """Read a file of features and write it into the store; returns its number of tiles.

        Raises:
            SetAside: The file cannot be used.
        """
        return self._do("import", record, source=source, root=str(root)).get("imported", 0)

    def describe_features(self, record: SlideRecord) -> dict[str, Any]:
        """Return what ``embedding.describe_features`` does.

        Raises:
            SetAside: The file cannot be used.
        """
        return self._do("describe", record)["described"]

    def _do(self, op: str, record: SlideRecord, **more: Any) -> dict[str, Any]:
        child = self._ready()
        try:
            child.ask(op, record, **({"picture": None} | more))
            message = child.hear()
            while "found" in message:
                message = child.hear()
            return message
        except _Told as error:
            raise SetAside(*error.args) from None
        except BaseException:
            self.close()
            raise

    def _ready(self) -> _Child:
        if self._child is None:
            self._child = _Child(self._config)
        return self._child


class IsolatedReading:
    """A slide that another process has open.

    Attributes:
        found: Its tiles, before any is read.
    """

    def __init__(self, child: _Child) -> None:
        self._child = child
        self._over = False
        values = child.hear()["found"]
        self.found = Found(
            coords_N2=_array(values["coords"], np.int64, 2),
            tissue_N=_array(values["tissue"], np.float32),
            tile_size0=float(values["tile_size0"]),
            mpp=float(values["mpp"]),
            reader=str(values["reader"]),
            notes=tuple(values["notes"]),
        )

    def __iter__(self) -> Iterator[Batch]:
        while not self._over:
            message = self._child.hear()
            if "done" in message:
                self._over = True
                return
            slot, count = message["slot"], message["count"]
            artefacts_N4 = _array(message["artefacts"], np.float32, len(ARTEFACTS))
            yield Batch(self._child.slots[slot, :count], artefacts_N4)
            self._child.say(free=slot)

    def finish(self) -> None:
        """Make sure that the slide is over, whether or not its tiles were taken.

        Raises:
            SetAside: Something was wrong with tiles that nobody has taken.
        """
        for _ in self:
            pass


class _Told(Exception):
    """The process said why a slide is set aside: reason, remedy."""


class _Child:
    """The process and the two channels to it."""

    def __init__(self, config: EmbedConfig) -> None:
        shape = SLOTS, *batch_shape(config)
        self._patience = config.limits.stall_seconds
        self._memory_mib = config.limits.memory_mib
        memory_fd = os.memfd_create("rayfed_hn tiles")
        os.ftruncate(memory_fd, int(np.prod(shape)))
        ours, theirs = socket.socketpair()
        try:
            memory = mmap.mmap(memory_fd, 0)
            self._process = _start(theirs.fileno(), memory_fd)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(memory_fd)
        self.slots: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(shape)
        self._socket = ours
        self._socket.settimeout(max(self._patience, START_SECONDS))
        self._pending = bytearray()
        try:
            self.say(config=asdict(config), slots=SLOTS)
            self.hear()
        except BaseException:
            self.kill()
            raise
        self._socket.settimeout(self._patience)

    def ask(self, op: str, record: SlideRecord, **more: Any) -> None:
        plain = asdict(record) | {"path": str(record.path)}
        plain["mask"] = record.mask and str(record.mask)
        self.say(op=op, record=plain, **more)

    def say(self, **message: Any) -> None:
        with contextlib.suppress(OSError):  # its end is noticed when it is heard
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """Wait for one message.

        Raises:
            _Told: It says why the slide is set aside.
            SetAside: It said nothing for too long, or is gone.
        """
        try:
            message = json.loads(self._line())
        except TimeoutError:
            self.kill()
            raise SetAside(
                f"yielded nothing for {self._patience:g} s while it was read",
                "look at the file and its disk, or raise embed.limits.stall_seconds; then embed "
                "with --retry",
            ) from None
        except (EOFError, ConnectionError, ValueError):
            raise self._gone() from None
        if "reason" in message:
            raise _Told(message["reason"], message["remedy"])
        return message

    def kill(self) -> None:
        self._process.kill()
        # One that sleeps in a dead disk's driver dies when that wakes up, which may be never.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)
        self._socket.close()

    def _line(self) -> bytes:
        while (end := self._pending.find(b"\n")) < 0:
            received = self._socket.recv(2**20)
            if not received or len(self._pending) > MAX_LINE_BYTES:
                raise EOFError
            self._pending += received
        line = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return line

    def _gone(self) -> SetAside:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)  # it is gone, or broke the rules of the conversation
        code = self._process.poll()
        self.kill()
        how = "it said nonsense" if code is None else f"exit {code}"
        if code is not None and code < 0:
            names = {s.value: s.name for s in signal.Signals}
            how = names.get(-code, f"signal {-code}")
        return SetAside(
            f"the process that read it crashed ({how})",
            "look at the file; if it is only large, raise embed.limits.memory_mib (now "
            f"{self._memory_mib}); then embed with --retry",
        )


def _start(socket_fd: int, memory_fd: int) -> subprocess.Popen[bytes]:
    package = str(Path(rayfed_hn.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    module = "rayfed_hn.slides.reader_child"
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(socket_fd), str(memory_fd)],
        pass_fds=(socket_fd, memory_fd),
        env=os.environ | {"PYTHONPATH": path} | KEEP_MEMORY,
        stdin=subprocess.DEVNULL,
        # Decoders print warnings, with the paths of slides.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _array(text: str, dtype: type[np.generic], columns: int = 1) -> NDArray[Any]:
    flat = np.frombuffer(base64.b64decode(text), dtype)
    return flat if columns == 1 else flat.reshape(-1, columns)
