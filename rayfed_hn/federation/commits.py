"""Commits of a server: whole on disk or not there, each with what proves it.

``checkpoints/<version>/`` holds ``state.safetensors`` and ``commit.json``; ``LATEST`` names the
newest one that counts, and is moved last. ``last.safetensors`` and ``best.safetensors`` are other
names (hard links) of the newest and the best version's tensors. Nothing is changed in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rayfed_hn.errors import DataError
from rayfed_hn.files import sync, write_text
from rayfed_hn.points import DESCRIBED, POINTED, PRUNED, TENSORS, reached
from rayfed_hn.saving import saving

FOLDER, POINTER = "checkpoints", "LATEST"
STATE, ABOUT = "state.safetensors", "commit.json"
_BROKEN = (OSError, ValueError, KeyError, TypeError, SafetensorError)


@dataclass(frozen=True, eq=False)
class Commit:
    """What was committed.

    Attributes:
        version: Its version.
        tensors: By name.
        about: Everything else, as JSON has it.
    """

    version: int
    tensors: dict[str, Tensor]
    about: dict[str, Any]


@dataclass(frozen=True)
class Damage:
    """A commit that cannot be used.

    Attributes:
        version: Which; None: the pointer itself.
        why: In words.
    """

    version: int | None
    why: str

    def __str__(self) -> str:
        what = POINTER if self.version is None else f"the commit of version {self.version}"
        return f"{what} is damaged: {self.why}"


class Commits:
    """The commits of one run.

    Args:
        folder: The run directory.
        keep: Commits that are kept, the newest ones.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._root = folder / FOLDER
        self._keep = keep

    def write(
        self, version: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any], data: str
    ) -> None:
        """Commit a version for good, and drop commits that are not needed any more.

        Args:
            version: Its number.
            tensors: By name.
            about: Ready for JSON; ``best_version`` is kept as long as this commit is.
            data: Digest of the bag store, for readers of the tensors alone.

        Raises:
            DataError: The disk is full or cannot be written to; the commit before is still there.
        """
        folder = self._folder(version)
        partial = self._root / f".{folder.name}.partial"
        with saving(folder):
            try:
                self._fill(partial, tensors, about, {"version": str(version), "data": data})
                _remove(folder)  # of a run that was cut before it pointed there
                partial.rename(folder)
                sync(self._root)
                reached(DESCRIBED)
                self.point(version)
            finally:
                _remove(partial)
            reached(POINTED)
            self.name("last", version)
            self._prune(version)
            reached(PRUNED)

    def _fill(
        self,
        folder: Path,
        tensors: Mapping[str, Tensor],
        about: Mapping[str, Any],
        names: dict[str, str],
    ) -> None:
        _remove(folder)
        folder.mkdir(parents=True)
        path = folder / STATE
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, path, metadata={"format": "pt", **names})
        sync(path)
        reached(TENSORS)
        file = {"name": STATE, "bytes": path.stat().st_size, "sha256": _sha256(path)}
        content = {**about, "file": file}
        text = json.dumps({"sha256": _digest(content), "commit": content}, indent=1)
        (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
        sync(folder / ABOUT)
        sync(folder)

    def point(self, version: int) -> None:
        """Let a commit be the newest one that counts."""
        write_text(self._root / POINTER, f"{version:08}\n")

    def name(self, name: str, version: int) -> None:
        """Give the tensors of a version another name; without hard links, a copy of them."""
        partial = self._root / f".{name}.partial"
        with saving(self._root / f"{name}.safetensors"):
            partial.unlink(missing_ok=True)
            source = self._folder(version) / STATE
            try:
                os.link(source, partial)
            except OSError:
                shutil.copyfile(source, partial)
            partial.replace(self._root / f"{name}.safetensors")
            partial.unlink(missing_ok=True)  # to rename a file to itself does nothing

    def newest(self) -> tuple[Commit | None, list[Damage]]:
        """The newest commit that is whole, and what is wrong with those after it.

        Returns:
            None and no damage if nothing was ever committed.

        Raises:
            DataError: Something was committed, and none of it can be used.
        """
        versions, damaged = self._versions(), []
        pointed = self._pointed()
        if pointed is None:
            if max(versions, default=0) == 0:  # cut at the very first commit
                return None, []
            pointed = max(versions)
            damaged.append(Damage(None, "it is missing or names no version"))
        elif pointed < max(versions, default=0) - 1:  # it is moved after every commit
            damaged.append(Damage(None, f"it names version {pointed}, and later ones are there"))
            pointed = max(versions)
        for version in range(pointed, max(-1, pointed - self._keep), -1):
            try:
                return self.read(version), damaged
            except _BROKEN as error:
                damaged.append(Damage(version, _why(error)))
        raise DataError(
            f"{self._root}: no commit of the run can be used ({'; '.join(map(str, damaged))}); "
            "restore the folder from a backup, or start again with another run.dir"
        )

    def read(self, version: int) -> Commit:
        """A commit whose files are as they were written; raises whatever shows that not."""
        folder = self._folder(version)
        about = _read_about(folder)
        path, file = folder / STATE, about["file"]
        if path.stat().st_size != file["bytes"] or _sha256(path) != file["sha256"]:
            raise ValueError(f"{STATE} is not what was written (size or SHA-256 differ)")
        if about["version"] != version:
            raise ValueError(f"{ABOUT} is of version {about['version']}")
        return Commit(version, load_file(path), about)

    def go_back(self, version: int) -> None:
        """Go on from a commit: those after it go, and will be made again.

        One that was whole, but is after a damaged one, must not be found later: its lines are gone.
        """
        with saving(self._root / POINTER):
            for partial in self._root.glob(".*.partial"):
                _remove(partial)
            for later in self._versions():
                if later > version:
                    _remove(self._folder(later))
            if self._pointed() != version:
                self.point(version)
            self.name("last", version)

    def _pointed(self) -> int | None:
        try:
            text = (self._root / POINTER).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None
        return int(text) if re.fullmatch(r"[0-9]{8}\n", text) else None

    def _prune(self, version: int) -> None:
        """Drop what neither can be gone back to nor is the best version of what can."""
        kept = {other for other in self._versions() if version - self._keep < other <= version}
        for other in tuple(kept):
            with contextlib.suppress(*_BROKEN):
                kept.add(_read_about(self._folder(other))["best_version"])
        for other in self._versions():
            if other not in kept:
                _remove(self._folder(other))

    def _versions(self) -> list[int]:
        folders = self._root.glob("[0-9]" * 8)
        return sorted(int(path.name) for path in folders if path.is_dir())

    def _folder(self, version: int) -> Path:
        return self._root / f"{version:08}"


def check_commits(folder: Path, keep: int, data: str | None = None) -> list[Damage]:
    """What is wrong with the newest commits of a run directory; without any, nothing.

    Args:
        folder: The run directory.
        keep: How many commits back a run may go.
        data: Digest of the bags that it is to go on with, if they are to be looked at too.

    Raises:
        DataError: None of them can be used, or they are of other bags.
    """
    commit, damaged = Commits(folder, keep).newest()
    if commit is not None and data is not None:
        check_bags(folder, commit, data)
    return damaged


def check_bags(folder: Path, commit: Commit, data: str) -> None:
    """Refuse bags that a run did not begin with: they would be dealt to other folds.

    Raises:
        DataError: Test cases would be trained on.
    """
    if commit.about["data"] != data:
        raise DataError(
            "data.bags: these are not the bags, as they were, that the run in "
            f"{folder} began with (some are missing, new or made anew); put them back, or name "
            "their folder. With other bags start again with another run.dir"
        )


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and values; equal states have equal ones."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        raw = tensor.detach().contiguous().flatten().view(torch.uint8)  # NumPy has no bfloat16
        hasher.update(name.encode())
        hasher.update(raw.numpy().data)
    return hasher.hexdigest()


def link_of(before: str, state: str) -> str:
    """A link of the chain that commits form: SHA-256 of the one before and of the new state."""
    return hashlib.sha256(f"{before}{state}".encode()).hexdigest()


def _read_about(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if _digest(found["commit"]) != found["sha256"]:
        raise ValueError(f"{ABOUT} is not what was written (SHA-256 differs)")
    return found["commit"]


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(error.filename).name} is missing"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | KeyError | TypeError):
        return f"{ABOUT} cannot be read ({type(error).__name__})"
    return str(error)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    """Delete a folder or file, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
