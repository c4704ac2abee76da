"""What is known of the cluster between two commands: one private folder, one JSON file in it."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

# A Unix socket's path has 107 bytes, of which Ray's own names take 72 and ours "/n/99" 5.
MAX_FOLDER = 30


class Refused(Exception):
    """What was asked cannot be done; the text says why and what to do. Exit code 2."""


@dataclass(frozen=True)
class Process:
    """A process that we have started; a number alone may be another's by now.

    Attributes:
        pid: Its number.
        started: Clock ticks from the machine's start to its own.
    """

    pid: int
    started: int


@dataclass
class Node:
    """One node of the cluster.

    Attributes:
        name: Such as node-1; the first one is the head.
        sites: Hospitals whose slides are here; none on the head.
        address: IP address of its own.
        process: What everything on it descends from; None: not running.
    """

    name: str
    sites: list[str]
    address: str
    cpus: int
    gpus: int
    process: Process | None = None


@dataclass
class State:
    """A cluster.

    Attributes:
        mark: Names what is ours: namespaces, and the environment of every process.
        mode: ``namespaces`` or ``loopback``.
        port: Of the head's GCS.
        dashboard: Port of the dashboard on this machine's loopback address.
        nodes: The head first.
        forwarder: Brings the dashboard's port out of the head's namespace.
    """

    mark: str
    mode: str
    port: int
    dashboard: int
    nodes: list[Node]
    forwarder: Process | None = None

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def node(self, name: str) -> Node:
        """A node by its name or by that of a site that lives there."""
        for node in self.nodes:
            if name == node.name or name in node.sites:
                return node
        known = ", ".join(f"{n.name} ({', '.join(n.sites) or 'head'})" for n in self.nodes)
        raise Refused(f"no node '{name}'; there are {known}")


def new_mark() -> str:
    return secrets.token_hex(4)


class Folder:
    """The private folder of a cluster.

    Args:
        path: Where.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = path / "token"
        self.disk = path / "disk"
        self._file = path / "cluster.json"

    def of(self, node: Node) -> Path:
        """What belongs to one node: Ray's files, its log, its disk."""
        return self.path / "n" / node.name.rpartition("-")[2]

    def make(self) -> None:
        """Make the folder for this user alone.

        Raises:
            Refused: It is somebody else's, or others may look into it, or its path is too long.
        """
        if len(os.fsencode(self.path)) > MAX_FOLDER:
            raise Refused(
                f"--state: {self.path} is longer than {MAX_FOLDER} bytes, and Ray's sockets would "
                "not find room below it; give a short one, right below that of temporary files"
            )
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.check()

    def fill(self) -> None:
        """Put a token into it that nobody knows, and the disk that nodes share."""
        self.disk.mkdir(mode=0o700, exist_ok=True)
        self.token.unlink(missing_ok=True)
        descriptor = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))

    def check(self) -> None:
        found = self.path.lstat()
        private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
        if not private or found.st_uid != os.geteuid():
            raise Refused(
                f"--state: {self.path} is not a folder of yours with mode 0700; remove it or give "
                "another"
            )

    def read(self) -> State | None:
        """The cluster of this folder; None: there is none.

        Raises:
            Refused: The folder is not as it should be.
        """
        try:
            self.check()
            found = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        try:
            nodes = [Node(**(n | {"process": _process(n["process"])})) for n in found.pop("nodes")]
            forwarder = _process(found.pop("forwarder"))
            return State(**found, nodes=nodes, forwarder=forwarder)
        except (TypeError, KeyError):
            raise Refused(
                f"{self._file} is not of this version; end its cluster with the local.sh that "
                "made it, or give another --state"
            ) from None

    def write(self, state: State) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(asdict(state), indent=1))
        new.replace(self._file)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep two commands from changing one cluster at a time; the folder's own lock."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another local.sh is at work in {self.path}; wait for it") from None
        try:
            yield
        finally:
            os.close(descriptor)


def _process(found: dict[str, int] | None) -> Process | None:
    return None if found is None else Process(**found)
