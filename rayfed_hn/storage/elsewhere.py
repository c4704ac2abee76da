"""Parts of folders in object storage on nodes that share no disk with whoever started a command."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rayfed_hn.storage.mirror import Mirror
from rayfed_hn.storage.remote import origin_of

_STARTED_HERE = "config.yaml"  # written by whoever started a run, who sends all that is here too


def bring_bags(root: Path, sites: Iterable[str]) -> None:
    """See to it that a node has the bags of some sites, if the store is a copy of a remote one.

    Raises:
        StorageError: They cannot be brought.
    """
    remote = origin_of(root)
    if remote is not None:
        folders = tuple(f"site={site}/" for site in sites)
        Mirror(root, remote).pull(lambda name: "/" not in name or name.startswith(folders))


class Share:
    """What one process keeps of a run, where nobody else on its machine sends it.

    Args:
        folder: The run directory; None, a plain folder, and one that the run was started in are
            left alone.
        mine: What this process keeps, by the path below the folder.
    """

    def __init__(self, folder: Path | None, mine: Callable[[str], bool]) -> None:
        remote = None if folder is None else origin_of(folder)
        self._mirror: Mirror | None = None
        self._mine = mine
        if folder is not None and remote is not None and not (folder / _STARTED_HERE).exists():
            self._mirror = Mirror(folder, remote, mine)

    def pull(self) -> None:
        """Bring what was kept on another node.

        Raises:
            StorageError: It cannot be brought.
        """
        if self._mirror is not None:
            self._mirror.pull(self._mine)

    def push(self) -> None:
        """Send what has changed.

        Raises:
            StorageError: It cannot be sent.
        """
        if self._mirror is not None:
            self._mirror.push()
