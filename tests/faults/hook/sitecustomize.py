"""On ``PYTHONPATH`` of a run under test: kills its processes at named points, as a seed decides.

``RAYFED_HN_CHAOS`` is JSON: ``folder`` (of what is counted and noted), ``seed``, and ``chances`` of
a kill at every point that ``site``, ``centre`` and ``driver`` processes come to; or ``at``, a point
and at which time it is fatal.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from typing import Any

CHAOS = json.loads(os.environ.get("RAYFED_HN_CHAOS", "null"))
EVENT = "rayfed_hn.point"


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != EVENT:
        return
    point = arguments[0]
    if CHAOS.get("at") and (point, count(point)) == tuple(CHAOS["at"]):
        os.kill(os.getpid(), signal.SIGKILL)
    kind = point.split(".")[0]
    kind = {"site": "site", "driver": "driver", "summary": "driver"}.get(kind, "centre")
    number = count(kind)
    chance = CHAOS.get("chances", {}).get(kind, 0.0)
    if random.Random(f"{CHAOS.get('seed')}/{kind}/{number}").random() < chance:
        note(f"{kind} {point} {number}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def count(kind: str) -> int:
    """How many points processes of a kind have come to, this one included."""
    handle = os.open(f"{CHAOS['folder']}/{kind}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, b".")
    size = os.fstat(handle).st_size
    os.close(handle)
    return size


def note(line: str) -> None:
    handle = os.open(f"{CHAOS['folder']}/kills", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, line.encode())
    os.close(handle)


if CHAOS is not None:
    sys.addaudithook(hook)
