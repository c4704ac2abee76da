"""Ray on the nodes: started, asked who is there, and ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Any

from network import CLIENT_PORT, DASHBOARD_PORT, MODES, Network, free_port
from processes import MARK, alive, identify, kill, wait_until
from state import Folder, Node, Refused, State

START_SECONDS = 120.0
LABEL, RESOURCE = "hospital", "site:"
# Of the machine's memory, for what all nodes together hold in Ray's object store.
OBJECT_SHARE, OBJECT_LEAST = 0.2, 2**27
# Ray's metrics know no token, and on loopback addresses they would answer the whole network: the
# first setting is Ray's own, the others are ports that there are not.
_NO_METRICS = {
    "RAY_enable_metrics_collection": "0",
    "DASHBOARD_METRIC_PORT": "65536",
    "AUTOSCALER_METRIC_PORT": "65536",
}
# Another cluster's, which the user may have set.
_FOREIGN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR")


class Cluster:
    """A cluster that is being made, looked at or ended.

    Args:
        folder: Where it is kept.
        state: What is known of it.
    """

    def __init__(self, folder: Folder, state: State) -> None:
        self.folder, self.state = folder, state
        self.network: Network = MODES[state.mode](folder, state)

    @property
    def gcs(self) -> str:
        return f"{self.state.head.address}:{self.state.port}"

    def start(self) -> None:
        """Start everything; what is begun is written down first, so that ``stop`` finds it."""
        self.folder.write(self.state)
        self.network.build()
        self.state.forwarder = self.network.forward()
        self.folder.write(self.state)
        head, *others = self.state.nodes
        self._launch(head)
        self.wait_for([head])
        for node in others:
            self._launch(node)
        self.wait_for(others)

    def restart(self, node: Node) -> None:
        """Bring a node back that has gone."""
        if node is self.state.head:
            raise Refused("the head is what the nodes know each other by; 'down', then 'up'")
        if alive(node.process):
            raise Refused(f"{node.name} is running; 'kill {node.name}' comes first")
        self.network.stop(node)
        before = self.there()
        self._launch(node)
        self.wait_for([node], before)

    def kill(self, node: Node) -> None:
        """End a node as if its power were cut."""
        self.network.stop(node)
        kill(node.process)

    def stop(self) -> None:
        """End what was started, and only that; what was never started is no matter."""
        for node in reversed(self.state.nodes):
            self.kill(node)
        kill(self.state.forwarder)
        self.network.tear_down()
        shutil.rmtree(self.folder.path)

    def environment(self, node: Node) -> dict[str, str]:
        """What processes of a node find."""
        kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        paths = [str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]
        closed = _NO_METRICS if self.state.mode == "loopback" else {}
        own = {
            "PATH": os.pathsep.join(paths),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the default of Ray to come
            "RAYFED_HN_DISK": str(self.folder.disk),
            "SPT_NOENV": "1",  # a process's title must not be written over its environment
            MARK: f"{self.state.mark}-{node.name}",
        }
        return kept | closed | own

    def ask(self, path: str) -> Any:
        """What the dashboard answers, asked as the job client asks.

        Raises:
            OSError: It does not.
        """
        url = f"http://127.0.0.1:{self.state.dashboard}{path}"
        token = {"Authorization": f"Bearer {self.folder.token.read_text()}"}
        straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with straight.open(urllib.request.Request(url, headers=token), timeout=10) as answer:
            return json.load(answer)

    def there(self) -> dict[str, str]:
        """Addresses of nodes that the head counts as alive, by id; empty if it does not answer."""
        try:
            found = self.ask("/nodes?view=summary")["data"]["summary"]
        except (OSError, ValueError, KeyError):
            return {}
        # Of a node that has just come little is known yet.
        alive_ones = (n for n in found if n.get("raylet", {}).get("state") == "ALIVE")
        return {n["raylet"]["nodeId"]: n["ip"] for n in alive_ones if "ip" in n}

    def wait_for(self, nodes: list[Node], before: Collection[str] = ()) -> None:
        """Wait until the head knows nodes.

        Args:
            nodes: Which.
            before: Ids of nodes that may be gone although the head still counts them.

        Raises:
            Refused: One has ended, or it takes too long.
        """

        def known() -> bool:
            for node in nodes:
                if not alive(node.process):
                    raise Refused(f"{node.name} did not start:\n{self._last_words(node)}")
            come = {ip for name, ip in self.there().items() if name not in before}
            return {node.address for node in nodes} <= come

        names = ", ".join(node.name for node in nodes)
        wait_until(known, START_SECONDS, f"{names}: the head does not know of all of them")

    def _launch(self, node: Node) -> None:
        own = self.folder.of(node)
        for part in ("r", "disk"):
            (own / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        with (own / "log").open("ab") as log:
            started = subprocess.Popen(
                self.network.command(node, self._ray(node)),
                env=self.environment(node),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=own,
            )
        node.process = identify(started.pid)
        self.folder.write(self.state)

    def _ray(self, node: Node) -> list[str]:
        """The command that starts a node and stays with it."""
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block"]
        ray += [f"--node-ip-address={node.address}", "--disable-usage-stats"]
        ray += [f"--num-cpus={node.cpus}", f"--num-gpus={node.gpus}"]
        ray += [f"--object-store-memory={_object_bytes(len(self.state.nodes))}"]
        ray += [f"--temp-dir={self.folder.of(node) / 'r'}"]
        if self.state.mode == "loopback":  # not the usual port, which others' clusters take too
            ray += [f"--dashboard-agent-listen-port={free_port(0)}"]
        if node is self.state.head:
            port = DASHBOARD_PORT if self.state.forwarder else self.state.dashboard
            client = CLIENT_PORT if self.state.forwarder else free_port(CLIENT_PORT)
            ray += ["--head", f"--port={self.state.port}", f"--ray-client-server-port={client}"]
            ray += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
        else:
            ray += [f"--address={self.gcs}", f"--labels={LABEL}={node.sites[0]}"]
            ray += [f"--resources={json.dumps({RESOURCE + site: 1 for site in node.sites})}"]
        return ray

    def _last_words(self, node: Node) -> str:
        lines = (self.folder.of(node) / "log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])


def _object_bytes(count: int) -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(OBJECT_LEAST, int(total * OBJECT_SHARE / count))
