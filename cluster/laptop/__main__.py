"""The command line of ``cluster/local.sh``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

from network import DASHBOARD_PORT, GCS_PORT, MODES, addresses, free_port  # noqa: E402
from nodes import LABEL, RESOURCE, Cluster  # noqa: E402
from processes import alive  # noqa: E402
from state import Folder, Node, Refused, State, new_mark  # noqa: E402

_USUAL = Path(tempfile.gettempdir(), f"rayfed-hn-{os.geteuid()}")
HELP = """\
A Ray cluster of several nodes on this machine: a head, which takes jobs, and a node for every
hospital, each with an address, a disk and temporary files of its own.

  cluster/local.sh up 3                          a head and three nodes: site-1, site-2, site-3
  cluster/local.sh up 3 --sites north,south,west the same, with the names of your hospitals
  eval "$(cluster/local.sh env)"                 tell this shell where the cluster is
  ray job submit --working-dir . --runtime-env cluster/runtime_env.yaml -- rayfed-hn --help
  cluster/local.sh status
  cluster/local.sh kill north                    as if the power of north's node were cut
  cluster/local.sh restart north                 it comes back, with the same address and disk
  cluster/local.sh exec north -- ls              run something on a node
  cluster/local.sh down                          end all of it; nothing is left

Each node has the label hospital=NAME of its first site, and the resource site:NAME of each of its
sites: resources.pin_label=hospital, or resources.pin_resource=site:, starts a site's actor there.
More sites than nodes are dealt out in turn.

As root, nodes are network namespaces that are joined by a bridge; nothing listens on an address of
this machine but the dashboard, on 127.0.0.1, where 'ray job' finds it. Otherwise nodes are loopback
addresses, and Ray listens on all addresses of the machine, behind the token. The token is in the
cluster's own folder, which only you can enter.

$RAYFED_HN_DISK is a folder on every node. As root each node sees its own disk there.
"""


def main(words: list[str]) -> int:
    asked = _parser().parse_args(words)
    folder = Folder(asked.state.absolute())
    try:
        return asked.run(folder, asked)
    except Refused as error:
        print(f"local.sh: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("cluster/local.sh", description=HELP, formatter_class=form)
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("RAYFED_HN_CLUSTER", _USUAL)),
        help="the cluster's folder, one for each cluster (default: $RAYFED_HN_CLUSTER or "
        f"{_USUAL})",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start a head and N nodes")
    up.add_argument("nodes", type=int, metavar="N")
    up.add_argument(
        "--sites", help="names of hospitals, such as north,south (default: site-1, ...)"
    )
    up.add_argument("--cpus", type=int, help="CPUs that a node announces (default: one a site)")
    up.add_argument(
        "--gpus", type=int, default=0, help="GPUs that a node announces, there or not (default: 0)"
    )
    up.add_argument("--mode", choices=list(MODES), help="default: namespaces where they can be had")
    up.set_defaults(run=_up)
    for name, run, text in (
        ("status", _status, "who is there"),
        ("down", _down, "end the cluster and remove its folder"),
        ("env", _env, "print what a shell has to know, for eval"),
    ):
        verbs.add_parser(name, help=text).set_defaults(run=run)
    for name, run, text in (
        ("kill", _kill, "end a node at once"),
        ("restart", _restart, "bring a node back"),
        ("exec", _exec, "run a command on a node: exec NODE -- COMMAND"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("node", help="its name, or that of a site that lives there; head")
        if name == "exec":
            verb.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
        verb.set_defaults(run=run)
    return parser


def _up(folder: Folder, asked: argparse.Namespace) -> int:
    begun = time.monotonic()
    mode, why = _mode(asked.mode)
    nodes = _nodes(asked, mode)
    folder.make()
    with folder.locked():  # before a look is taken: two of us would take each other's away
        if folder.read() is not None:
            raise Refused(
                f"there is a cluster in {folder.path}; 'down' ends it, --state is another"
            )
        if why:
            print(f"Loopback addresses in place of network namespaces: {why}", file=sys.stderr)
        port = GCS_PORT if mode == "namespaces" else free_port(GCS_PORT)
        folder.fill()
        state = State(new_mark(), mode, port, free_port(DASHBOARD_PORT), nodes)
        cluster = Cluster(folder, state)
        try:
            cluster.start()
        except BaseException:
            cluster.stop()
            raise
    _print(cluster)
    print(f'\nUp in {time.monotonic() - begun:.0f} s. Now: eval "$({_again(folder)} env)"')
    return 0


def _nodes(asked: argparse.Namespace, mode: str) -> list[Node]:
    """The head, and nodes that sites are dealt out to in turn."""
    sites = asked.sites.split(",") if asked.sites else [f"site-{i + 1}" for i in range(asked.nodes)]
    if not 1 <= asked.nodes <= min(99, len(sites)) or len(set(sites)) != len(sites):
        raise Refused(
            f"N: {asked.nodes} nodes for the sites {', '.join(sites)}; each needs one, by its name"
        )
    made = addresses(mode, asked.nodes + 1)
    nodes = [Node("head", [], made[0], asked.cpus or 1, asked.gpus)]
    for number in range(asked.nodes):
        own = sites[number :: asked.nodes]
        cpus = asked.cpus or len(own)
        nodes.append(Node(f"node-{number + 1}", own, made[number + 1], cpus, asked.gpus))
    return nodes


def _mode(asked: str | None) -> tuple[str, str]:
    """How nodes are told apart, and why not by namespaces if that was left open."""
    if asked == "loopback":
        return asked, ""
    missing = MODES["namespaces"].missing()
    if missing and asked:
        raise Refused(f"--mode=namespaces: {missing}")
    return ("loopback", missing) if missing else ("namespaces", "")


def _status(folder: Folder, asked: argparse.Namespace) -> int:
    _print(_cluster(folder))
    return 0


def _print(cluster: Cluster) -> None:
    state, there = cluster.state, set(cluster.there().values())
    print(f"{'node':8} {'address':12} {'CPU':>3} {'GPU':>3}  {'state':14} sites")
    for node in state.nodes:
        known = "up" if node.address in there else "unknown to head"
        what = known if alive(node.process) else "down"
        sites = ", ".join(node.sites)
        print(f"{node.name:8} {node.address:12} {node.cpus:3} {node.gpus:3}  {what:14} {sites}")
    print(f"pinned by: resources.pin_label={LABEL} or resources.pin_resource={RESOURCE}")
    print(f"dashboard and jobs: http://127.0.0.1:{state.dashboard} ({state.mode})")


def _down(folder: Folder, asked: argparse.Namespace) -> int:
    with folder.locked():
        state = folder.read()
        if state is not None:
            Cluster(folder, state).stop()
        elif folder.path.is_dir():  # of an 'up' that ended before it began
            folder.check()
            shutil.rmtree(folder.path)
    if state is None:
        print(f"no cluster in {folder.path}")
        return 0
    print("down")
    if os.environ.get("RAY_AUTH_TOKEN_PATH") == str(folder.token):
        names = (
            "RAY_API_SERVER_ADDRESS RAY_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH RAYFED_HN_DISK"
        )
        print(f"This shell knows it still: unset {names}")
    return 0


def _env(folder: Folder, asked: argparse.Namespace) -> int:
    cluster = _cluster(folder)
    print(f"export RAY_API_SERVER_ADDRESS=http://127.0.0.1:{cluster.state.dashboard}  # ray job")
    print(f"export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={folder.token}")
    print(f"export RAYFED_HN_DISK={folder.disk}  # on every node")
    print(f'export PATH="{Path(sys.executable).parent}:$PATH"')
    if cluster.state.mode == "loopback":
        print(f"export RAY_ADDRESS={cluster.gcs}")
    else:
        print(f"# RAY_ADDRESS={cluster.gcs}, on nodes only: {_again(folder)} exec head -- COMMAND")
        print("unset RAY_ADDRESS")
    return 0


def _kill(folder: Folder, asked: argparse.Namespace) -> int:
    cluster = _cluster(folder)
    with folder.locked():
        node = cluster.state.node(asked.node)
        cluster.kill(node)
    again = f"restart {node.name} brings it back"
    if node is cluster.state.head:
        again = "down, and up: nodes know each other by it"
    print(f"{node.name} is gone; {_again(folder)} {again}")
    return 0


def _restart(folder: Folder, asked: argparse.Namespace) -> int:
    cluster = _cluster(folder)
    with folder.locked():
        node = cluster.state.node(asked.node)
        cluster.restart(node)
    print(f"{node.name} is back")
    return 0


def _exec(folder: Folder, asked: argparse.Namespace) -> int:
    cluster = _cluster(folder)
    node = cluster.state.node(asked.node)
    words = asked.words[1:] if asked.words[:1] == ["--"] else asked.words
    if not words:
        raise Refused("exec NODE -- COMMAND: which command?")
    if not alive(node.process):
        raise Refused(f"{node.name} is not running; {_again(folder)} restart {node.name}")
    command = cluster.network.enter(node, words)
    environment = cluster.environment(node) | {"RAY_ADDRESS": cluster.gcs}
    os.execvpe(command[0], command, environment)


def _cluster(folder: Folder) -> Cluster:
    state = folder.read()
    if state is None:
        raise Refused(f"no cluster in {folder.path}; cluster/local.sh up 3 makes one")
    return Cluster(folder, state)


def _again(folder: Folder) -> str:
    own = Folder(_USUAL).path == folder.path
    return "cluster/local.sh" if own else f"cluster/local.sh --state {folder.path}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
