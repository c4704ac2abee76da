"""A cluster of several nodes on this machine, made by ``cluster/local.sh`` as a user makes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "cluster" / "local.sh"
PATIENCE = 400.0  # seconds, on a busy machine
_RAYS = "RAY_"  # variables that a session of tests may have set


class Laptop:
    """One cluster.

    Args:
        state: Its private folder, which is not there yet.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_RAYS)}
        paths = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
        self.environment = kept | {"PATH": paths, "PYTHON": sys.executable}

    def run(self, *words: object, fine: bool = True) -> subprocess.CompletedProcess[str]:
        """Give ``local.sh`` a command."""
        return self.command([SCRIPT, "--state", self.state, *words], fine=fine)

    def command(
        self, words: list[object], *, fine: bool = True, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run something as the user's shell would."""
        done = subprocess.run(
            [str(word) for word in words],
            cwd=ROOT,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if fine and done.returncode:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def enter(self) -> None:
        """Take up what ``local.sh env`` says, as ``eval`` does."""
        script = f'eval "$({SCRIPT} --state {self.state} env)"; env -0'
        found = self.command(["bash", "-ec", script]).stdout
        self.environment = dict(pair.split("=", 1) for pair in found.split("\0") if pair)

    @property
    def known(self) -> dict[str, Any]:
        return json.loads((self.state / "cluster.json").read_text())

    def job(
        self,
        *words: object,
        name: str = "",
        fine: bool = True,
        runtime_env: object = "cluster/runtime_env.yaml",
    ) -> str:
        """Submit a job and wait for its end; returns what it printed."""
        named = ["--submission-id", name] if name else []
        submit = ["ray", "job", "submit", *named, "--working-dir", "."]
        submit += ["--runtime-env", runtime_env, "--"]
        done = self.command([*submit, *words], fine=False)
        if fine and done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        return done.stdout + done.stderr

    def left(self, mark: str) -> dict[str, object]:
        """What is there of the cluster: its folder, its namespaces, its processes.

        Args:
            mark: Of ``known``, while it was known.
        """
        spaces = ""
        if shutil.which("ip"):
            spaces = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
        named = f"{self.state}/".encode()
        return {
            "folder": self.state.exists(),
            "namespaces": [line for line in spaces.split() if line.startswith(f"rfhn-{mark}-")],
            "processes": [pid for pid in _pids() if named in _words(pid)],
        }


def _pids() -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def _words(pid: Path) -> bytes:
    """Command line and environment: a node's processes have the folder in one of them."""
    try:
        return (pid / "cmdline").read_bytes() + (pid / "environ").read_bytes()
    except OSError:
        return b""


@contextmanager
def laptop() -> Iterator[Laptop]:
    """A name for a cluster; whatever was made under it is ended."""
    place = Path(tempfile.mkdtemp(prefix="rl", dir="/tmp"))
    own = Laptop(place / "c")
    try:
        yield own
    finally:
        own.run("down", fine=False)
        shutil.rmtree(place)
