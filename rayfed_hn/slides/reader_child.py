"""The process that opens slides, so that one that crashes, hangs or swells takes nothing along.

Started by ``rayfed_hn.slides.isolation``. It hears and says lines of JSON over a socket, and puts
tiles into memory that both share; it never runs an encoder. Usage:
``python -m rayfed_hn.slides.reader_child SOCKET_FD MEMORY_FD``.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.bags import store
from rayfed_hn.config import ArtefactsConfig, EmbedConfig, LimitsConfig, TissueConfig
from rayfed_hn.errors import DataError, SetAside
from rayfed_hn.slides.embedding import describe_features, import_features, refuse_changed
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.reading import Found, Reading, batch_shape, open_reading

ORPHAN_SECONDS = 1.0


class Line:
    """Lines of JSON, both ways."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rwb")

    def say(self, **message: Any) -> None:
        """Send one message."""
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for one message.

        Raises:
            EOFError: The other side is gone.
        """
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)


def pack(array: np.ndarray) -> str:
    """An array as text; its type and shape are agreed upon."""
    return base64.b64encode(np.ascontiguousarray(array).data).decode()


def serve(line: Line, memory: mmap.mmap) -> None:
    """Read slides as they are asked for, until the other side is gone."""
    hello = line.hear()
    config = embed_config(hello["config"])
    size = config.limits.memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    slots = np.frombuffer(memory, np.uint8).reshape(hello["slots"], *batch_shape(config))
    line.say(ready=True)
    while True:
        request = line.hear()
        if "op" not in request:  # a slot of the slide before, given back at its end
            continue
        with _told(line):
            if request["op"] == "describe":
                line.say(described=describe_features(record_of(request["record"])))
            elif request["op"] == "import":
                root = Path(request["root"])
                recipe = store.read_recipe(root)
                bag = import_features(record_of(request["record"]), recipe, request["source"])
                store.write(root, bag)
                line.say(imported=len(bag))
            else:
                _read(line, request, config, slots)


@contextmanager
def _told(line: Line) -> Iterator[None]:
    """Tell what is wrong with a slide; never more than the type of an error we did not foresee."""
    try:
        yield
    except SetAside as error:
        line.say(reason=error.reason, remedy=error.remedy)
    except DataError as error:
        line.say(reason=str(error), remedy="see the message")
    except MemoryError:
        line.say(
            reason="needs more memory than it may take",
            remedy="look at the file, or raise embed.limits.memory_mib; then embed with --retry",
        )
    except (EOFError, BrokenPipeError):
        raise
    except Exception as error:
        line.say(
            reason=f"unexpected error {type(error).__name__} while it was read",
            remedy="look at the file, and report this",
        )


def _read(line: Line, request: dict[str, Any], config: EmbedConfig, slots: np.ndarray) -> None:
    picture = request["picture"] and Path(request["picture"])
    record = record_of(request["record"])
    with open_reading(record, config, picture) as reading:
        line.say(found=_plain(reading.found))
        if request["op"] == "read":
            _send_tiles(line, reading, slots)
    refuse_changed(record, request["source"])
    line.say(done=True)


def _send_tiles(line: Line, reading: Reading, slots: np.ndarray) -> None:
    total, size = len(reading.found.coords_N2), slots.shape[1]
    for number, start in enumerate(range(0, total, size)):
        slot = number % len(slots)
        if number >= len(slots):
            line.hear()  # slots come back in the order in which they went
        tiles_NHW3 = slots[slot][: min(size, total - start)]
        artefacts_N4 = reading.fill(start, tiles_NHW3)
        line.say(slot=slot, count=len(tiles_NHW3), artefacts=pack(artefacts_N4))


def _plain(found: Found) -> dict[str, Any]:
    return {
        "coords": pack(found.coords_N2),
        "tissue": pack(found.tissue_N),
        "tile_size0": found.tile_size0,
        "mpp": found.mpp,
        "reader": found.reader,
        "notes": list(found.notes),
    }


def record_of(values: dict[str, Any]) -> SlideRecord:
    """A record from its plain values."""
    mask = values["mask"] and Path(values["mask"])
    return SlideRecord(**(values | {"path": Path(values["path"]), "mask": mask}))


def embed_config(values: dict[str, Any]) -> EmbedConfig:
    """The ``embed`` section from its plain values."""
    sections = {"tissue": TissueConfig, "artefacts": ArtefactsConfig, "limits": LimitsConfig}
    nested = {name: kind(**values[name]) for name, kind in sections.items()}
    return EmbedConfig(**(values | nested))


def die_with_parent(parent: int) -> None:
    """End this process when it has another parent than the one that started it."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def main() -> None:
    """Serve the process that started this one."""
    # A reader that hangs in a decoder would not notice that nobody listens any more.
    threading.Thread(target=die_with_parent, args=(os.getppid(),), daemon=True).start()
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    memory = mmap.mmap(int(sys.argv[2]), 0)
    try:
        serve(line, memory)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


if __name__ == "__main__":
    main()
