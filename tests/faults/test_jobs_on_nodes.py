"""Jobs on a cluster of several nodes, one of which goes while they run and comes back.

As a user has it: ``cluster/local.sh up 3``, ``ray job submit``, real images, sites on their nodes.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from laptop_cluster import SCRIPT, Laptop, laptop
from processes import marked

from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
SITES = ("ucsb-other", "ucsb-ytma49", "warwick-2")
CONF = "conf/histology.yaml"
WORDS = (
    *("simulation.enabled=true", "simulation.slowest=3", "rounds.num_versions=60"),
    *("model.hidden_dim=32", "training.steps=2"),
)
_MAKE = """
import sys, pyarrow.fs
system = pyarrow.fs.S3FileSystem(
    scheme="http", endpoint_override=sys.argv[1], allow_bucket_creation=True
)
system.create_dir(sys.argv[2])
"""
_READ = """
import sys
from rayfed_hn.storage.remote import remote_of
print(remote_of(sys.argv[1]).read(sys.argv[2]).decode())
"""
PINNED = ("resources.pin_label=hospital", "resources.node_limit=300")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Laptop]:
    """A head and a node for each hospital, each with a GPU that is not there."""
    with laptop() as own:
        own.run("up", 3, "--sites", ",".join(SITES), "--gpus", 1)
        own.enter()
        yield own
        mark = own.known["mark"]
        own.run("down")
        assert own.left(mark) == {"folder": False, "namespaces": [], "processes": []}


@pytest.fixture(scope="module")
def bags(cluster: Laptop, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of each hospital, embedded by a job."""
    folder, slides = tmp_path_factory.mktemp("job"), real_data / "histology"
    with (slides / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    few = [row for site in SITES for row in [r for r in rows if r["site"] == site][::2][:12]]
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"path": str(slides / row["path"])} for row in few)
    words = [f"data.manifest={folder / 'manifest.csv'}", f"data.root={slides}"]
    words += [f"data.bags={folder / 'bags'}", f"run.dir={folder / 'embed'}"]
    told = cluster.job("rayfed-hn", "embed", CONF, *words)
    assert "Placement: 36 slides, 4 at a time with 1 CPU each; 4 nodes with 4 CPU" in told
    assert "36 embedded, 0 were in" in told
    return folder / "bags"


def train(bags: Path | str, run: Path | str, *words: str) -> list[str]:
    return ["rayfed-hn", "train", CONF, f"data.bags={bags}", f"run.dir={run}", *WORDS, *words]


def wait_for_version(run: Path, version: int) -> None:
    end = time.monotonic() + 300
    while not (run / "checkpoints" / "LATEST").exists() or _version(run) < version:
        assert time.monotonic() < end
        time.sleep(0.2)


def _version(run: Path) -> int:
    return (run / "metrics.jsonl").read_text().count("\n")


def disturbed(cluster: Laptop, run: Path, words: Sequence[str], site: str) -> str:
    """Run a job, cut the power of a site's node in the middle of it, and bring it back."""
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(cluster.job, *words)
        wait_for_version(run, 5)
        cluster.run("kill", site)
        assert _version(run) < 60
        time.sleep(5)
        cluster.run("restart", site)
        return job.result()


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def undisturbed(bags: Path) -> str:
    return run_in_process(make_plan(load(CONF, [*WORDS]), bags)).digest


def test_a_node_is_lost_and_comes_back_and_nothing_changes(
    cluster: Laptop, bags: Path, tmp_path: Path
) -> None:
    run, gpus = tmp_path / "run", ("resources.gpus_per_site=0.4", "resources.gpus_for_server=0.5")
    told = disturbed(cluster, run, train(bags, run, *PINNED, *gpus), "ucsb-ytma49")
    address = {node["sites"][0]: node["address"] for node in cluster.known["nodes"][1:]}
    for site in SITES:
        (line,) = (line for line in told.splitlines() if line.startswith(f"  {site} "))
        assert line.split()[1:] == [
            *["1", "CPU", "and", "0.4", "GPU"],
            address[site],
            f"(hospital={site})",
        ]
    assert "started anew: ucsb-ytma49 (its process was gone)" in told
    found = summary(run)
    assert found["digest"] == undisturbed(bags)
    assert found["status"] == "complete"
    assert found["restarts"].keys() == {"ucsb-ytma49"}


def test_bags_on_the_disks_of_their_nodes(cluster: Laptop, bags: Path, tmp_path: Path) -> None:
    if cluster.known["mode"] != "namespaces":
        pytest.skip("nodes have disks of their own only where namespaces can be made")
    for number, site in enumerate(SITES, 1):
        own = cluster.state / "n" / str(number) / "disk" / "bags"
        shutil.copytree(bags / f"site={site}", own / f"site={site}")
        shutil.copy(bags / "recipe.json", own)
    disk = cluster.environment["RAYFED_HN_DISK"]
    seen = cluster.run("exec", SITES[0], "--", "ls", f"{disk}/bags").stdout.split()
    assert seen == ["recipe.json", f"site={SITES[0]}"]
    assert not list(Path(disk).iterdir())  # nor has this machine anything there
    run = tmp_path / "run"
    words = train(f"{disk}/bags", run, *PINNED, f"resources.bags_on_nodes={','.join(SITES)}")
    disturbed(cluster, run, words, "warwick-2")
    assert summary(run)["digest"] == undisturbed(bags)


def test_a_job_that_is_stopped_says_how_to_go_on(
    cluster: Laptop, bags: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(cluster.job, *train(bags, run, *PINNED), name="stopped")
        wait_for_version(run, 5)
        cluster.command(["ray", "job", "stop", "stopped"])
        told = job.result()
    assert f"rayfed-hn: interrupted; the same command with run.dir={run} run.resume=true" in told
    assert not (run / "summary.json").exists()
    alive = cluster.run("exec", "head", "--", "ray", "list", "actors", "--filter", "state=ALIVE")
    assert "_Sites" not in alive.stdout
    told = cluster.job("rayfed-hn", "resume", run)
    assert "versions: 60/60" in told
    assert summary(run)["digest"] == undisturbed(bags)


def test_gpus_are_counted_node_by_node(cluster: Laptop, bags: Path, tmp_path: Path) -> None:
    """Four GPUs, one a node: in sum there is room for the server's whole one and five halves."""
    run, whole = tmp_path / "run", ("resources.gpus_per_site=0.5", "resources.gpus_for_server=1")
    told = cluster.job(*train(bags, run, *PINNED, *whole, "--plan"))
    assert "Placement: 4 actors, 4 CPU and 2.5 GPU together; 4 nodes have 4 CPU and 4 GPU" in told
    scale = ["rayfed-hn", "scale", f"run.dir={run}", "scale.where=actors", "scale.sites=9"]
    each = "resources.gpus_per_site=0.5", "resources.sites_per_actor=1"
    for words, says in (
        ([*scale, *each], "do not fit on the cluster's 4 GPUs"),
        (train(bags, run, "resources.pin_label=rack"), "no node has the label rack=ucsb-other"),
    ):
        begun = time.monotonic()
        told = cluster.job(*words, fine=False)
        assert time.monotonic() - begun < 30  # an answer at once is what is promised
        assert says in told
        assert "exit code 2" in told
        assert not run.exists()


def test_the_other_verbs(cluster: Laptop, bags: Path, tmp_path: Path) -> None:
    few = ["rounds.num_versions=4", "model.hidden_dim=32", "training.steps=2"]
    compare = ["compare.methods=local,fedavg", "compare.folds=3"]
    space = "tune.space.privacy.noise_scale=grid(0,1)"
    for verb, words in (
        ("compare", [f"data.bags={bags}", *few, *compare]),
        ("tune", [f"data.bags={bags}", *few, space]),
        ("scale", ["scale.where=actors", "scale.sites=3", *few]),
    ):
        run = tmp_path / verb
        told = cluster.job("rayfed-hn", verb, f"run.dir={run}", *words)
        assert "Placement: " in told
        assert "4 nodes" in told
        assert summary(run)["status"] == "complete"


@pytest.fixture
def bucket(cluster: Laptop) -> Iterator[str]:
    """An S3 server on the head's address, which nodes alone can reach."""
    if cluster.known["mode"] != "namespaces":
        pytest.skip("nodes have disks of their own only where namespaces can be made")
    head = cluster.known["nodes"][0]["address"]
    serve = [SCRIPT, "--state", cluster.state, "exec", "head", "--"]
    serve += [Path(sys.executable).parent / "moto_server", "-H", head, "-p", "5001"]
    with (
        (cluster.state / "s3.log").open("w") as log,
        subprocess.Popen(
            [str(w) for w in serve], stdout=log, stderr=log, env=cluster.environment
        ) as server,
    ):
        yield f"http://{head}:5001"
        server.terminate()


def test_nodes_that_share_nothing_but_object_storage(
    cluster: Laptop, bags: Path, bucket: str, tmp_path: Path, real_data: Path
) -> None:
    """Slides are embedded, sites trained, and the result read, through an address."""
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": bucket,
        "RAYFED_HN_CACHE": f"{cluster.environment['RAYFED_HN_DISK']}/cache",
    }
    runtime_env = tmp_path / "runtime_env.yaml"
    shared = yaml.safe_load(Path("cluster/runtime_env.yaml").read_text())
    runtime_env.write_text(yaml.safe_dump(shared | {"env_vars": shared["env_vars"] | variables}))

    def job(*words: object) -> str:
        return cluster.job(*words, runtime_env=runtime_env)

    disk = cluster.environment["RAYFED_HN_DISK"]
    slides = [f"data.manifest={bags.parent / 'manifest.csv'}"]
    slides += [f"data.root={real_data / 'histology'}"]
    own = [f"data.bags={disk}/own", f"run.dir={tmp_path / 'own'}"]
    told = cluster.job("rayfed-hn", "embed", CONF, *slides, *own, fine=False)
    assert "/own cannot be used by node 10." in told
    assert "does not have that folder on a disk of its own" in told

    job("python", "-c", _MAKE, bucket.removeprefix("http://"), "study")
    words = [*slides, "data.bags=s3://study/bags"]
    told = job("rayfed-hn", "embed", CONF, *words, "run.dir=s3://study/embed")
    assert "36 embedded, 0 were in" in told
    job(*train("s3://study/bags", "s3://study/run", *PINNED))
    assert undisturbed(bags) in job("python", "-c", _READ, "s3://study/run", "summary.json")
    for site in SITES:
        cache = f"{variables['RAYFED_HN_CACHE']}/s3/study"
        found = cluster.run("exec", site, "--", "ls", f"{cache}/run/sites").stdout
        assert found.split() == [site]  # what other sites keep is not on its node
    job("rayfed-hn", "report", "s3://study/run")
    assert "<html" in job("python", "-c", _READ, "s3://study/run", "report.html")


def test_nothing_of_a_node_is_on_this_machines_network(cluster: Laptop) -> None:
    if cluster.known["mode"] != "namespaces":
        pytest.skip("on loopback addresses, tests/cluster looks at every door")
    spaces = {node["name"]: set[str]() for node in cluster.known["nodes"]}
    for pid in marked(cluster.known["mark"]):
        with suppress(OSError):  # a process that ends meanwhile
            name = next(n for n in spaces if pid in marked(cluster.known["mark"], n))
            spaces[name].add(str(Path(f"/proc/{pid}/ns/net").readlink()))
    here = str(Path("/proc/self/ns/net").readlink())
    assert all(len(found - {here}) == 1 for found in spaces.values())
    # What starts a node's first process enters the namespace by itself; nothing else is outside.
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout
    ours = f"pid={cluster.known['forwarder']['pid']},"
    (door,) = (line.split()[3] for line in listening.splitlines() if ours in line)
    assert door == f"127.0.0.1:{cluster.known['dashboard']}"


@pytest.mark.parametrize("mode", ["namespaces", "loopback"])
def test_an_up_that_is_killed_half_way_leaves_nothing_after_down(mode: str) -> None:
    with laptop() as own:
        words = [SCRIPT, "--state", own.state, "up", "2", "--mode", mode]
        with subprocess.Popen(words, env=own.environment, stderr=subprocess.PIPE) as up:
            while not (own.state / "n" / "head" / "log").exists() and up.poll() is None:
                time.sleep(0.1)
            time.sleep(3)
            up.kill()
            why = b"" if up.stderr is None else up.stderr.read()
        if b"--mode=namespaces" in why:
            pytest.skip(why.decode())
        mark = own.known["mark"]
        assert own.left(mark)["processes"]
        own.run("down")
        assert own.left(mark) == {"folder": False, "namespaces": [], "processes": []}
