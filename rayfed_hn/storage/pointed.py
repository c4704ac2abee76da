"""The commit that a run's pointer names, kept while it is sent although the run may drop it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rayfed_hn.errors import StorageError
from rayfed_hn.saving import saving
from rayfed_hn.storage.index import Stamp

COMMITS = "checkpoints"
POINTER = f"{COMMITS}/LATEST"  # names the newest commit that counts
PINS = ".sending-"  # how the names of folders with pins begin
TRIES = 20  # to have a commit that a run is about to drop


@contextmanager
def pinned(
    folder: Path, list_files: Callable[[], dict[str, Stamp]]
) -> Iterator[tuple[bytes | None, dict[str, Stamp], dict[str, Path]]]:
    """The pointer, what there is, and where the pointed commit's files will be for long enough.

    A run that goes on drops its commits, and may be quicker than they are sent.

    Args:
        folder: The copy.
        list_files: What there is in it to be sent, by the path below it.

    Raises:
        StorageError: The disk cannot be written, or the run is too quick even for this.
    """
    with saving(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pins = Path(tempfile.mkdtemp(dir=folder, prefix=PINS))
    try:
        for _ in range(TRIES):
            # The pointer first: what it names is there then, and so is what follows.
            pointer = _read(folder / POINTER)
            found = list_files()
            paths = _pin(folder, found if POINTER in found else (), pointer, pins)
            if paths is not None:
                break
        else:
            raise StorageError(f"{folder}: its commits come and go faster than they are read")
        yield pointer, found, paths
    finally:
        shutil.rmtree(pins, ignore_errors=True)


def clear_pins(folder: Path) -> None:
    """Take away what a process that was killed has left."""
    for pins in folder.glob(f"{PINS}*"):
        shutil.rmtree(pins, ignore_errors=True)


def is_whole(pointer: bytes | None, there: Container[str] | Iterable[str]) -> bool:
    """Whether the commit that was pointed at is in a listing that was made after."""
    if pointer is None or POINTER not in there:
        return POINTER not in there
    return any(name.startswith(_folder_of(pointer)) for name in there)  # type: ignore[union-attr]


def _pin(
    folder: Path, names: Iterable[str], pointer: bytes | None, pins: Path
) -> dict[str, Path] | None:
    """None: the commit has been dropped already."""
    if pointer is None:
        return {}
    paths: dict[str, Path] = {}
    with saving(pins):
        for name in names:
            if name.startswith(_folder_of(pointer)):
                to = pins / f"{len(paths)}"
                to.unlink(missing_ok=True)
                if not _link(folder / name, to):
                    return None
                paths[name] = to
    # Nothing of it is listed: it was dropped in between, unless the pointer has stayed.
    return paths if paths or _read(folder / POINTER) == pointer else None


def _link(path: Path, to: Path) -> bool:
    """Give a file another name, or copy it where the disk has no such names; False: it is gone."""
    try:
        os.link(path, to)
    except FileNotFoundError:
        return False
    except OSError:
        try:
            shutil.copyfile(path, to)
        except FileNotFoundError:
            return False
    return True


def _folder_of(pointer: bytes) -> str:
    """The commit that is pointed at, by its path below the folder."""
    return f"{COMMITS}/{pointer.decode(errors='replace').strip()}/"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
