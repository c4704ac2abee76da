"""On ``PYTHONPATH`` of a run under test: notes which of its files every process opens.

``RAYFED_HN_WATCH`` is JSON: ``home`` (paths below it are noted), ``folder`` (of the notes, one file
a process); ``failing``, a site that finds its salt unreadable, with ``secret`` in the error's text;
``leaking``, a site that tells what it must not as soon as it reads its salt, with ``values``, some
of its features, and ``notes``, a file of everybody's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

WATCH = json.loads(os.environ.get("RAYFED_HN_WATCH", "null"))
noting, leaked, put = False, False, None


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and arguments:
        opened(arguments[0])


def opened(path: Any) -> None:
    global noting
    if noting or not isinstance(path, str | bytes | os.PathLike):
        return
    text = os.fsdecode(path)
    if not text.startswith((f"{WATCH['home']}/bags", f"{WATCH['home']}/run")):
        return
    noting = True
    try:
        with open(f"{WATCH['folder']}/{os.getpid()}", "a") as file:
            file.write(text + "\n")
        watch_arrow()
    finally:
        noting = False
    if text.endswith(f"site={WATCH.get('failing')}/salt"):
        raise OSError(f"the disk of {WATCH['secret']} is gone")
    if text.endswith(f"site={WATCH.get('leaking')}/salt"):
        leak(Path(text).parent)


def watch_arrow() -> None:
    """Arrow opens files in C++, of which Python's audit hooks hear nothing."""
    arrow: Any = sys.modules.get("pyarrow")
    if arrow is None or not hasattr(arrow, "memory_map") or hasattr(arrow, "watched"):
        return
    original = arrow.memory_map

    def memory_map(path: Any, *arguments: Any, **options: Any) -> Any:
        opened(path)
        return original(path, *arguments, **options)

    arrow.memory_map, arrow.watched = memory_map, True


def leak(folder: Path) -> None:
    """By all ways of a careless site: print, a file, an object, an update, a neighbour's bag."""
    global leaked, put
    if leaked:
        return
    leaked = True
    names = " ".join(path.name for path in folder.iterdir())
    print(names, flush=True)
    Path(WATCH["notes"]).write_text(names)
    import numpy as np
    import ray

    put = ray.put(np.array(WATCH["values"] * 2**16, np.float32))
    neighbour = next(other for other in folder.parent.glob("site=*") if other != folder)
    next(neighbour.glob("*.arrow")).read_bytes()
    trainer: Any = sys.modules["rayfed_hn.federation.site_trainer"].SiteTrainer
    release = trainer.release

    def leaking(*arguments: Any) -> Any:
        done = release(*arguments)
        out = arguments[-1]
        out[: len(WATCH["values"])] = out.new_tensor(WATCH["values"])
        return done

    trainer.release = leaking


if WATCH is not None:
    sys.addaudithook(hook)
