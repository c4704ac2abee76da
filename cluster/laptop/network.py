"""Addresses of nodes: a network namespace for each, or loopback addresses of this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from processes import END_SECONDS, Process, end_now, identify, kill_marked, wait_until
from state import Folder, Node, Refused, State

# Ray's own.
GCS_PORT, DASHBOARD_PORT, CLIENT_PORT = 6379, 8265, 10001
# Mounts the node's own disk at the place that all nodes know, then runs the rest. Not by exec:
# the first process of a namespace takes away what others leave behind, which a shell does.
_FIRST = 'mount --bind "$1" "$2" && shift 2 && "$@"; exit $?'


class Namespaces:
    """Each node has a network of its own, joined by a bridge, and processes and mounts of its own.

    Nothing of it can be reached from the machine's own network, which is left as it is, but for
    the dashboard's port on the loopback address.
    """

    def __init__(self, folder: Folder, state: State) -> None:
        self._folder, self._state = folder, state

    @staticmethod
    def missing() -> str:
        """Why this cannot be had here; empty: it can."""
        if os.geteuid() != 0:
            return "only root may make network namespaces"
        tools = [tool for tool in ("ip", "unshare", "nsenter", "mount") if not shutil.which(tool)]
        if tools:
            return f"not installed: {', '.join(tools)}"
        name = f"rfhn-{os.getpid()}-try"
        try:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "add", "try", "type", "bridge")
            _inside(name, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "true")
        except Refused as error:
            return str(error)
        finally:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        return ""

    def build(self) -> None:
        """Make the switch, and a cable from it to every node."""
        switch = self._name("switch")
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, node in enumerate(self._state.nodes):
            name, port = self._name(node.name), f"port{number}"
            _ip("netns", "add", name)
            _ip("-n", switch, *f"link add {port} type veth peer name eth0 netns {name}".split())
            _ip("-n", switch, *f"link set {port} master bridge up".split())
            _ip("-n", name, *f"address add {node.address}/24 dev eth0".split())
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")

    def tear_down(self) -> None:
        """Remove all namespaces of this cluster, also of one that was half made."""
        for name in self._there():
            _ip("netns", "del", name)

    def command(self, node: Node, words: Sequence[str]) -> list[str]:
        """What starts the first process of a node."""
        first = ["sh", "-c", _FIRST, "sh", str(self._folder.of(node) / "disk")]
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        netns = ["ip", "netns", "exec", self._name(node.name)]
        return [*netns, *own, *first, str(self._folder.disk), *words]

    def enter(self, node: Node, words: Sequence[str]) -> list[str]:
        """What runs a command on a node that is there."""
        assert node.process is not None
        children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children")
        first = children.read_text().split()
        if not first:
            raise Refused(f"{node.name} is not running; cluster/local.sh restart {node.name}")
        # Not --wd: the caller's folder, by its path as the node has it.
        return ["nsenter", "-t", first[0], "-n", "-m", "-p", "--", *words]

    def stop(self, node: Node) -> None:
        """End everything on a node at once, as if its power were cut."""
        # The kernel ends a namespace of processes with its first one.
        for pid in self._pids(self._name(node.name)):
            if self._state.forwarder is None or pid != self._state.forwarder.pid:
                end_now(pid)
        name = self._name(node.name)
        kept = {self._state.forwarder.pid} if self._state.forwarder else set[int]()
        wait_until(
            lambda: not set(self._pids(name)) - kept, END_SECONDS, f"{node.name} does not end"
        )

    def forward(self) -> Process:
        """Bring the dashboard's port out; returns the process that does so."""
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", self._state.dashboard))
            listening.listen()
            words = [sys.executable, str(Path(__file__).parent / "forward.py")]
            words += [str(listening.fileno()), str(DASHBOARD_PORT)]
            started = subprocess.Popen(
                ["ip", "netns", "exec", self._name(self._state.head.name), *words],
                pass_fds=[listening.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        found = identify(started.pid)
        if found is None:
            raise Refused("the dashboard's port cannot be brought out of the head's namespace")
        return found

    def _name(self, what: str) -> str:
        return f"rfhn-{self._state.mark}-{what}"

    def _there(self) -> list[str]:
        found = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        names = [line.split()[0] for line in found.stdout.splitlines() if line.strip()]
        return [name for name in names if name.startswith(self._name(""))]

    def _pids(self, name: str) -> list[int]:
        if name not in self._there():
            return []
        found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split() if identify(int(pid)) is not None]


class Loopback:
    """Each node has an address of its own in 127.0.0.0/8; they share this machine's ports.

    Ray listens on all addresses of the machine then; the token is what keeps others out.
    """

    def __init__(self, folder: Folder, state: State) -> None:
        self._folder, self._state = folder, state

    @staticmethod
    def missing() -> str:
        return ""

    def build(self) -> None:
        """Nothing: the addresses are there."""

    def tear_down(self) -> None:
        """End what carries our mark, such as the children of a node that is gone."""
        kill_marked(self._state.mark)

    def command(self, node: Node, words: Sequence[str]) -> list[str]:
        return list(words)

    def enter(self, node: Node, words: Sequence[str]) -> list[str]:
        return list(words)

    def stop(self, node: Node) -> None:
        kill_marked(self._state.mark, node.name)

    def forward(self) -> None:
        """Nothing: the dashboard is on this machine's loopback address."""


Network = Namespaces | Loopback
MODES: dict[str, type[Namespaces] | type[Loopback]] = {
    "namespaces": Namespaces,
    "loopback": Loopback,
}


def addresses(mode: str, count: int) -> list[str]:
    """Of the head and of every node."""
    net = "10.99.0" if mode == "namespaces" else "127.0.0"
    return [f"{net}.{number}" for number in range(2, count + 2)]


def free_port(wanted: int) -> int:
    """A port of this machine's loopback address: the one that is wanted, or another."""
    for port in (wanted, 0):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return trial.getsockname()[1]
    raise Refused("no port is free")


def _ip(*words: str) -> None:
    _run("ip", *words)


def _inside(name: str, *words: str) -> None:
    _run("ip", "netns", "exec", name, *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"'{' '.join(words)}' failed: {done.stderr.strip()}")
