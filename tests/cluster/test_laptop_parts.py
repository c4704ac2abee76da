"""What ``cluster/local.sh`` refuses, and what it takes for its own; nothing of Ray is started."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from laptop_cluster import ROOT, SCRIPT, Laptop
from processes import MARK, alive, identify, kill, kill_marked, marked
from state import MAX_FOLDER, Folder, Node, Process, Refused, State

PLACE = Path(tempfile.gettempdir()) / f"rl{os.getpid()}"
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def folder(tmp: Path) -> Folder:
    """A private one; pytest's own paths are longer than Ray's sockets allow."""
    made = Folder(tmp)
    tmp.mkdir(mode=0o700)
    return made


def state() -> State:
    nodes = [
        Node("head", [], "127.0.0.2", 1, 0),
        Node("node-1", ["north", "west"], "127.0.0.3", 2, 0, Process(os.getpid(), 1)),
    ]
    return State("abcd", "loopback", 6379, 8265, nodes)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    own = folder(tmp_path / "c")
    assert own.read() is None
    own.write(state())
    assert own.read() == state()


def test_a_node_is_found_by_its_sites() -> None:
    assert state().node("west").name == state().node("node-1").name == "node-1"
    with pytest.raises(Refused, match=r"no node 'east'; there are head \(head\), node-1 \(north"):
        state().node("east")


def test_the_folder_and_the_token_are_the_users_alone() -> None:
    place = PLACE
    own = Folder(place)
    try:
        own.make()
        own.fill()
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE(own.token.stat().st_mode) == 0o600
        token = own.token.read_text()
        assert len(token) == 64
        own.fill()
        assert own.token.read_text() != token
        place.chmod(0o755)
        with pytest.raises(Refused, match="not a folder of yours with mode 0700"):
            own.make()
    finally:
        shutil.rmtree(place)


def test_a_second_up_does_not_touch_what_the_first_is_making() -> None:
    place = PLACE
    own = Folder(place)
    own.make()
    try:
        own.fill()
        token = own.token.read_text()
        with own.locked():
            assert "another local.sh is at work" in refused("up", 1, "--mode", "loopback")
        assert own.token.read_text() == token
    finally:
        shutil.rmtree(place)


def test_what_another_version_has_written_is_not_guessed_at(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "cluster.json").write_text('{"nodes": [], "forwarder": null, "colour": "red"}')
    with pytest.raises(Refused, match=r"cluster\.json is not of this version"):
        Folder(tmp_path).read()


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    place = PLACE
    place.symlink_to(tmp_path)
    try:
        with pytest.raises(Refused, match="not a folder of yours"):
            Folder(place).make()
    finally:
        place.unlink()


def test_a_path_that_sockets_find_no_room_below() -> None:
    with pytest.raises(Refused, match=f"longer than {MAX_FOLDER} bytes"):
        Folder(PLACE.with_name("x" * MAX_FOLDER)).make()


def test_a_number_that_is_anothers_by_now_is_left_alone() -> None:
    with subprocess.Popen(SLEEP) as other:
        now = identify(other.pid)
        assert now is not None
        before = Process(other.pid, now.started - 1)
        assert alive(now)
        assert not alive(before)
        kill(before)
        assert alive(now)
        kill(now)
        assert not alive(now)
    assert identify(other.pid) is None
    assert not alive(None)


def test_only_what_carries_the_mark_is_ended() -> None:
    ours = os.environ | {MARK: "f00d-node-1"}
    tenth, others = ours | {MARK: "f00d-node-10"}, ours | {MARK: "f00e-node-1"}
    with (
        subprocess.Popen(SLEEP, env=ours) as one,
        subprocess.Popen(SLEEP, env=tenth) as ten,
        subprocess.Popen(SLEEP, env=others) as two,
    ):
        try:
            assert marked("f00d", "node-1") == [one.pid]
            assert sorted(marked("f00d")) == sorted([one.pid, ten.pid])
            kill_marked("f00d", "node-1")
            assert one.wait(10) == -9
            assert ten.poll() is None
            kill_marked("f00d")
            assert ten.wait(10) == -9
            assert two.poll() is None
        finally:
            ten.kill()
            two.kill()


def refused(*words: object) -> str:
    done = Laptop(PLACE).run(*words, fine=False)
    assert done.returncode == 2, done
    return done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("up", 0), "0 nodes for the sites"),
        (("up", 3, "--sites", "a,b"), "3 nodes for the sites a, b"),
        (("up", 2, "--sites", "a,a"), "by its name"),
        (("status",), "up 3 makes one"),
        (("env",), "up 3 makes one"),
        (("kill", "a"), "up 3 makes one"),
        (("sideways",), "invalid choice"),
    ],
)
def test_refusals(words: tuple[object, ...], says: str) -> None:
    assert says in refused(*words)


def test_nothing_to_end_is_no_error() -> None:
    assert "no cluster" in Laptop(PLACE).run("down").stdout


def test_help_teaches() -> None:
    text = Laptop(PLACE).run("--help").stdout
    for word in ("up 3", "env", "ray job submit", "kill north", "down", "pin_label", "token"):
        assert word in text


def test_without_python_it_says_so() -> None:
    words = [SCRIPT, "--state", PLACE, "status"]
    done = subprocess.run(words, env={"PATH": "/bin", "PYTHON": ""}, capture_output=True, text=True)
    found = (ROOT / ".venv" / "bin" / "python").exists()
    assert done.returncode == 2
    assert ("no cluster" if found else "no Python with Ray") in done.stderr


def test_shell_scripts_are_clean() -> None:
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if tool is None:
        pytest.skip("no shellcheck here; pip install -e '.[dev]' brings it")
    scripts = sorted((ROOT / "cluster").rglob("*.sh"))
    assert {path.parent.name for path in scripts} == {"cluster", "machine"}
    done = subprocess.run([tool, *scripts], capture_output=True, text=True)
    assert not done.stdout
