"""A head and a node: who may come in, what a job is told, and that nothing is left."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from laptop_cluster import SCRIPT, Laptop, laptop
from listening import open_doors
from machines import of_machines
from processes import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


GOODBYE = """
import signal, sys, time
from pathlib import Path

def end(*_):
    time.sleep(6)
    Path(sys.argv[1]).write_text("goodbye")
    sys.exit()

signal.signal(signal.SIGTERM, end)
Path(sys.argv[1]).write_text("begun")
time.sleep(100)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Laptop]:
    """On loopback addresses, where Ray's ports are those of this machine."""
    with laptop() as own:
        up = [SCRIPT, "--state", own.state, "up", 1, "--sites", "north", "--mode", "loopback"]
        own.command(up, RAY_JOB_STOP_WAIT_TIME_S=of_machines()["RAY_JOB_STOP_WAIT_TIME_S"])
        own.enter()
        yield own
        mark = own.known["mark"]
        assert "unset RAY_API_SERVER_ADDRESS" in own.run("down").stdout  # 'enter' knows it still
        assert own.left(mark) == {"folder": False, "namespaces": [], "processes": []}


def test_every_door_asks_for_the_token(cluster: Laptop) -> None:
    found = open_doors(cluster.known["mark"])
    assert len(found.asked) > 5
    assert found.answered == []


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_no_token_and_a_wrong_one_are_refused(cluster: Laptop, token: str) -> None:
    asked = urllib.request.Request(f"{cluster.environment['RAY_API_SERVER_ADDRESS']}/api/jobs/")
    if token:
        asked.add_header("Authorization", f"Bearer {token}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=30)
    assert caught.value.code in (401, 403)
    caught.value.close()
    own = {"RAY_AUTH_TOKEN": token, "RAY_AUTH_TOKEN_PATH": "", "HOME": "/nowhere"}
    done = cluster.command(["ray", "job", "list"], fine=False, **own)
    assert done.returncode
    assert "uthentication" in done.stderr


def test_a_job_without_room_says_so_and_leaves_nothing(cluster: Laptop, bag_root: object) -> None:
    run = cluster.state / "run"
    words = ["rayfed-hn", "train", f"data.bags={bag_root}", f"run.dir={run}"]
    told = cluster.job(*words, "resources.gpus_per_site=0.5", fine=False)
    assert "the cluster has no GPU; set both to 0 (CPU only)" in told
    assert "exit code 2" in told
    assert not run.exists()


def test_what_would_be_deleted_with_the_job_is_refused(cluster: Laptop, bag_root: object) -> None:
    told = cluster.job("rayfed-hn", "train", f"data.bags={bag_root}", fine=False)
    assert "run.dir: " in told
    assert "give run.dir an absolute path on a disk that all nodes share" in told


def test_a_stopped_job_has_the_time_that_its_machine_gives_it(
    cluster: Laptop, tmp_path: Path
) -> None:
    """Ray's own are 3 s. The job brings no environment: it is that in which Ray was started."""
    script, said = tmp_path / "job.py", tmp_path / "said"
    script.write_text(GOODBYE)
    submit = ["ray", "job", "submit", "--no-wait", "--submission-id", "stopped", "--"]
    cluster.command([*submit, "python", script, said])
    wait_until(said.exists, 60, "the job does not begin")
    cluster.command(["ray", "job", "stop", "stopped"])
    assert said.read_text() == "goodbye"


def test_status_and_a_second_up(cluster: Laptop) -> None:
    lines = cluster.run("status").stdout.splitlines()
    assert [line.split()[:5] for line in lines[1:3]] == [
        ["head", "127.0.0.2", "1", "0", "up"],
        ["node-1", "127.0.0.3", "1", "0", "up"],
    ]
    assert "'down' ends it" in cluster.run("up", 1, fine=False).stderr
    assert (
        "running; 'kill node-1' comes first" in cluster.run("restart", "north", fine=False).stderr
    )


def test_the_node_is_the_sites(cluster: Laptop) -> None:
    script = "import ray, json; ray.init(log_to_driver=False); print(json.dumps(ray.nodes()))"
    done: subprocess.CompletedProcess[str] = cluster.command(["python", "-c", script])
    nodes = json.loads(done.stdout.splitlines()[-1])
    (north,) = (node for node in nodes if node["Labels"].get("hospital") == "north")
    assert north["Resources"]["site:north"] == 1.0
