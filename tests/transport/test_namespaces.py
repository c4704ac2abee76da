"""Server and sites as processes of different users in different network namespaces."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from apart import LABELS, STATED, together
from tiny_federations import federation

import rayfed_hn
from rayfed_hn.errors import ConfigError
from rayfed_hn.prediction.finished import FinishedRun
from rayfed_hn.prediction.networks import network_for

SOURCE = Path(rayfed_hn.__file__).parents[1]
SCRIPT = SOURCE / "cluster" / "federation.sh"
SECONDS = 280  # on a busy machine; some 20 s of work
SOMEBODY = "61001"


def interpreter() -> tuple[str, str]:
    """A Python that every user can run, and where it finds what is installed."""
    installed = sysconfig.get_paths()["purelib"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    path = f"{SOURCE}:{installed}"
    drop = ["setpriv", "--reuid", SOMEBODY, "--regid", SOMEBODY, "--clear-groups"]
    for program in (sys.executable, f"/usr/bin/{version}"):
        command = [*drop, "env", "-i", f"PYTHONPATH={path}", program, "-c", "import rayfed_hn.cli"]
        if subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0:
            return program, path
    pytest.skip("other users can run no Python here that has the package's dependencies")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can pass through, as pytest's are not."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for namespaces and users")
    for tool in ("ip", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    turn = (Path(tempfile.gettempdir()) / "rfh-tests.lock").open("w")
    fcntl.flock(turn, fcntl.LOCK_EX)  # another worker's namespaces would be taken for left ones
    probe = f"rfh-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    if made.returncode:
        turn.close()
        pytest.skip(f"no network namespaces here: {made.stderr.decode().strip()}")
    subprocess.run(["ip", "netns", "del", probe], check=True)
    folder = Path(tempfile.mkdtemp(prefix="rfh-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)
    turn.close()


def namespaces() -> list[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if line.startswith("rfh-")]


@pytest.mark.timeout(SECONDS + 60)
def test_apart_in_every_way_and_equal_to_the_bit(place: Path) -> None:
    program, path = interpreter()
    federation(place / "all", LABELS)
    study: dict[str, dict[str, object]] = {"resources": {"node_limit": 240}}
    for word in STATED:
        key, value = word.split("=")
        section, name = key.split(".")
        study.setdefault(section, {})[name] = yaml.safe_load(value)
    study["task"] = {"classes": ["0", "1"]}
    (place / "study.yaml").write_text(yaml.safe_dump(study))
    before = namespaces()
    done = subprocess.run(
        [SCRIPT, place / "all", place / "homes", place / "study.yaml"],
        env=os.environ | {"RAYFED_HN": f"{program} -m rayfed_hn", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    homes = place / "homes"
    logs = {log: log.read_text() for log in homes.glob("*/*log")}
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    summary = json.loads((homes / "server" / "run" / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("complete", 0)
    assert summary["digest"] == together(place).digest
    told = done.stdout.splitlines()
    assert "A certificate of another authority is refused:" in told
    for site in LABELS:
        assert f"The server's user on the bags of {site}: Permission denied" in told
        own = json.loads((homes / site / "run" / "summary.json").read_text())
        assert (own["status"], own["answers"] > 0) == ("complete", True)
        assert not list((homes / "server").rglob("*.arrow"))
        kept = homes / site / "run" / "sites" / site / "network_last.safetensors"
        assert kept.stat().st_uid == homes.joinpath(site).stat().st_uid
        run = FinishedRun.read(homes / site / "run")  # what it kept can be used at home
        assert network_for(run, site, list).name == "personal, mixture"
        with pytest.raises(ConfigError):
            _ = run.origin
    owners = {(homes / party).stat().st_uid for party in (*LABELS, "server")}
    assert len(owners) == 3
    assert 0 not in owners
    assert namespaces() == before


def test_the_script_is_a_script_and_says_what_it_needs(tmp_path: Path) -> None:
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    for words, missing in (
        ([], "give BAGS FOLDER STUDY.yaml"),
        ([tmp_path, tmp_path / "new", tmp_path / "none.yaml"], "needs root|is no bag store"),
    ):
        done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert any(part in done.stderr for part in missing.split("|"))


FAKE = """#!/bin/sh
# What federation.sh needs of rayfed-hn, without a federation.
verb=$1
shift
case $verb in
certificates)
  mkdir -p "$1"
  for stem in ca server $(echo "$3" | sed 's/,/ site-/g; s/^/site-/'); do
    touch "$1/$stem.pem" "$1/$stem.key"
  done
  ;;
serve)
  echo Listening
  echo $$ >"$HOME/pid"
  FAKE_SERVE
  ;;
join)
  case "$*" in *wrong.pem*) echo "this certificate"; exit 2 ;; esac
  echo $$ >"$HOME/pid"
  FAKE_JOIN
  ;;
esac
"""


def fake(place: Path, serve: str, join: str) -> list[Path | str]:
    """The script's words, for a program that everybody can run and that does this."""
    program = place / "fake"
    program.write_text(FAKE.replace("FAKE_SERVE", serve).replace("FAKE_JOIN", join))
    program.chmod(0o755)
    for site in ("a", "b"):
        (place / "bags" / f"site={site}").mkdir(parents=True)
    (place / "bags" / "recipe.json").touch()
    (place / "study.yaml").touch()
    return [SCRIPT, place / "bags", place / "homes", place / "study.yaml"]


def test_what_the_script_started_ends_with_it(place: Path) -> None:
    before = namespaces()
    words = fake(place, "exec sleep 300", "trap '' TERM; sleep 300; sleep 300")
    started = subprocess.Popen(
        words,
        env=os.environ | {"RAYFED_HN": str(place / "fake")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    found = [place / "homes" / party / "pid" for party in ("server", "a", "b")]
    until = time.monotonic() + 60
    while not all(path.exists() and path.read_text().strip() for path in found):
        assert time.monotonic() < until
        time.sleep(0.05)
    started.terminate()
    started.wait(60)
    numbers = [int(path.read_text()) for path in found]
    left = [number for number in numbers if Path("/proc", str(number)).exists()]
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert left == []
    assert namespaces() == before


@pytest.mark.parametrize(("bags", "said", "code"), [(400, "Permission denied", 0), (0, "NOT", 1)])
def test_only_a_refusal_is_taken_for_one(place: Path, bags: int, said: str, code: int) -> None:
    words = fake(place, "sleep 1; mkdir run; touch run/summary.json", "exit 0")
    for number in range(bags):  # with many of them, who reads the first only breaks the pipe
        for site in ("a", "b"):
            name = f"{number:03}-{'x' * 200}.arrow"
            (place / "bags" / f"site={site}" / name).touch()
    done = subprocess.run(
        words,
        env=os.environ | {"RAYFED_HN": str(place / "fake")},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    for site in ("a", "b"):
        (line,) = [x for x in done.stdout.splitlines() if f"the bags of {site}" in x]
        assert said in line
    assert done.returncode == code, done.stderr


def test_a_program_that_users_cannot_run_is_said_before_anything_is_made(place: Path) -> None:
    """As one is that was installed in a home which others cannot enter."""
    program = place / "home" / "rayfed-hn"
    program.parent.mkdir(mode=0o700)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (place / "bags").mkdir()
    (place / "bags" / "recipe.json").write_text("{}")
    (place / "study.yaml").write_text("{}")
    words = [str(place / name) for name in ("bags", "homes", "study.yaml")]
    done = subprocess.run(
        [str(SCRIPT), *words],
        env=os.environ | {"RAYFED_HN": str(program)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"user {SOMEBODY} cannot run '{program}' (" in done.stderr
    assert "Permission denied); install it where every user can read it" in done.stderr
    assert not (place / "homes").exists()
