"""A command whose folder is in object storage: who may write it, and what becomes of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_mirror import fill, there

from rayfed_hn.errors import ConfigError, Interrupted, StorageError
from rayfed_hn.storage import keeping as keeping_module
from rayfed_hn.storage.claim import CLAIM, SET_ASIDE, TakenUp
from rayfed_hn.storage.keeping import bring_run, kept, storage
from rayfed_hn.storage.mirror import POINTER, Mirror
from rayfed_hn.storage.remote import Remote, remote_of


class Machines:
    """Two or more of them, with disks of their own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch

    def be(self, name: str) -> None:
        self._patch.setenv("RAYFED_HN_CACHE", str(self._folder / name))

    def set_aside(self, name: str) -> list[dict[str, str]]:
        """What was set aside on one of them."""
        folders = (self._folder / name / SET_ASIDE).glob("*")
        return [
            {p.relative_to(f).as_posix(): p.read_text() for p in f.rglob("[!.]*") if p.is_file()}
            for f in folders
        ]


@pytest.fixture
def machines(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> Machines:
    found = Machines(tmp_path, monkeypatch)
    found.be("first")
    return found


def wait() -> None:
    """Be interrupted, or give up."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.01)
    pytest.fail("nobody ended this command")


def test_changes_are_sent_while_a_command_works_and_in_the_end(place: str) -> None:
    remote = remote_of(place)
    with kept(remote, alone=True, every=0.05) as local:
        fill(local, one="1")
        for _ in range(200):
            if remote.read("one"):
                break
            threading.Event().wait(0.05)
        assert remote.read("one") == b"1"
        fill(local, two="2")
    assert remote.read("two") == b"2"


def test_whoever_takes_a_run_up_last_is_believed(
    place: str, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the earlier command ends by itself, whatever it is at."""
    remote = remote_of(place)

    def work() -> None:
        with kept(remote, alone=True, every=0.05) as first:
            fill(first, state="first")
            while remote.read("state") is None:
                time.sleep(0.01)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            machines.be("second")
            with kept(remote, alone=True, every=60) as second:
                assert (second / "state").read_text() == "first"
                fill(second, state="second")
                time.sleep(0.5)  # and meanwhile the first looks
            machines.be("first")
            fill(first, state="first again")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            wait()

    with pytest.raises(TakenUp, match="another process has taken this run up") as told:
        work()
    assert remote.read("state") == b"second"
    assert machines.set_aside("first") == [{"state": "first again"}]
    fill(remote.copy, late="by an actor that is being killed")
    with kept(remote, alone=True, every=60) as again:
        assert not (again / "late").exists()
    assert remote.read("late") is None
    assert str(remote.copy) not in str(told.value)
    assert "trying again" not in capsys.readouterr().err
    assert "sent when" not in str(told.value)


def test_a_run_is_taken_up_before_anything_is_brought(
    place: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody commits after what was brought."""
    remote = remote_of(place)
    pull, tried = Mirror.pull, []

    def watched(self: Mirror) -> int:
        with pytest.raises(TakenUp):
            sender.last(threading.Thread())
        tried.append(1)
        return pull(self)

    first = remote.copy
    sender = keeping_module._Sender(remote, first, None)
    sender.begin()
    fill(first, checkpoints__LATEST="1")
    machines.be("second")
    monkeypatch.setattr(threading.Thread, "join", lambda self: None)
    monkeypatch.setattr(Mirror, "pull", watched)
    keeping_module._Sender(remote, remote.copy, None).begin()
    assert tried
    assert POINTER not in there(remote)


def test_a_run_that_is_taken_up_while_it_is_sent_is_not_pointed_back(
    place: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, upload = remote_of(place), Remote.upload
    first = keeping_module._Sender(remote, remote.copy, None)
    first.begin()
    fill(remote.copy, checkpoints__5__state="five", checkpoints__LATEST="5")

    def taken_over(self: Remote, source: Path, name: str) -> None:
        if name == "checkpoints/5/state":
            monkeypatch.setattr(Remote, "upload", upload)
            machines.be("second")
            second = keeping_module._Sender(remote, remote.copy, None)
            second.begin()
            fill(remote.copy, checkpoints__6__state="six", checkpoints__LATEST="6")
            second._push()
        upload(self, source, name)

    monkeypatch.setattr(Remote, "upload", taken_over)
    with pytest.raises(TakenUp):
        first._push()
    assert remote.read(POINTER) == b"6"


def test_what_was_never_sent_is_not_mixed_with_a_run_that_went_on(
    place: str, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = remote_of(place)
    with kept(remote, alone=True, every=60) as first:
        fill(first, config="c", memory="1")
    fill(first, memory="2, and then the machine died")
    machines.be("second")
    with kept(remote, alone=True, every=60) as second:
        fill(second, state="second")
    machines.be("first")
    capsys.readouterr()
    with kept(remote, alone=False, every=60) as again:
        assert (again / "memory").read_text() == "1"
        assert (again / "state").read_text() == "second"
    assert there(remote)["memory"] == b"1"
    (aside,) = machines.set_aside("first")
    assert aside == {"config": "c", "memory": "2, and then the machine died"}
    assert "was taken up elsewhere since" in capsys.readouterr().out


def test_what_was_not_sent_is_sent_later_where_nobody_went_on(
    place: str, machines: Machines
) -> None:
    remote = remote_of(place)
    with kept(remote, alone=True, every=60) as first:
        fill(first, memory="1")
    fill(first, memory="2")
    with kept(remote, alone=True, every=60) as first:
        assert (first / "memory").read_text() == "2"
    assert there(remote)["memory"] == b"2"
    assert not machines.set_aside("first")


def test_a_reader_on_the_machine_of_a_run_leaves_it_alone(
    place: str, machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = remote_of(place)
    with kept(remote, alone=True, every=60) as run:
        fill(run, events="1")
        remote.write("events", b"of nobody")
        with kept(remote, alone=False, every=60) as same:
            assert same == run
            assert (same / "events").read_text() == "1"
            fill(same, report="page")
        assert remote.read("report") is None  # whoever has the run sends it too
        assert "is read as process" in capsys.readouterr().out
    assert (remote.read("report"), remote.read("events")) == (b"page", b"1")


def test_a_reader_sends_what_it_wrote_and_no_leftovers(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process that died has left here is old by the time that others went on."""
    remote = remote_of(place)
    with kept(remote, alone=True) as copy:
        fill(copy, config__yaml="", events="1", checkpoints__LATEST="1")
        (copy / "config.yaml").write_text("")
    fill(remote.copy, events="2", checkpoints__LATEST="2")  # and dies
    with kept(remote, alone=False, every=0.05) as same:
        assert (same / "events").read_text() == "2"
        remote.write(POINTER, b"7")  # by another machine, which has taken it up
        remote.write("events", b"7")
        fill(same, report="page")
        while remote.read("report") is None:
            time.sleep(0.02)
    assert (remote.read(POINTER), remote.read("events")) == (b"7", b"7")


_BACKGROUND = """
import sys, time
from rayfed_hn.storage.keeping import kept
from rayfed_hn.storage.remote import remote_of
from rayfed_hn import cli
import signal
signal.signal(signal.SIGTERM, cli._interrupt)
remote = remote_of(sys.argv[1])
with kept(remote, alone=True, every=0.1) as copy:
    (copy / "state").write_text("1")
    print("begun", flush=True)
    for _ in range(300):
        time.sleep(0.1)
        (copy / "state").write_text(str(time.time()))
"""


def test_a_command_of_a_script_ends_too(place: str, tmp_path: Path) -> None:
    """A shell that is no terminal starts what it puts into the background deaf to Ctrl-C."""
    if place.startswith("s3"):
        pytest.skip("the same, on a server of this process")
    shell = ["bash", "-c", '"$0" -c "$1" "$2" & wait $!', sys.executable, _BACKGROUND, place]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == b"begun\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAYFED_HN_CACHE", str(tmp_path / "another machine"))
            with kept(remote_of(place), alone=True):
                assert script.wait(20) != 0
        assert script.stderr is not None
        assert b"another process has taken this run up" in script.stderr.read()


def test_whatever_goes_wrong_is_told_and_tried_again(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full folder of temporary files, for one."""
    remote, push, tried = remote_of(place), Mirror.push, []

    def full(self: Mirror) -> int:
        tried.append(1)
        if len(tried) < 3:
            raise OSError(28, "No space left on device")
        return push(self)

    monkeypatch.setattr(Mirror, "push", full)
    with kept(remote, alone=True, every=0.05) as copy:
        fill(copy, state="1")
        while remote.read("state") is None:
            time.sleep(0.02)
    assert capsys.readouterr().err.count("No space left on device; trying again") == 1


def test_a_run_has_one_process_on_a_machine(
    place: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping_module, "WAIT_SECONDS", 0.0)
    remote = remote_of(place)
    with kept(remote, alone=True, every=60) as run:
        claim = remote.read(CLAIM)
        with (
            pytest.raises(ConfigError, match="is in use on this machine by process"),
            kept(remote, alone=True, every=60),
        ):
            pytest.fail("two are at work")
        assert remote.read(CLAIM) == claim
        fill(run, state="1")
    assert remote.read("state") == b"1"


def test_a_run_that_is_not_gone_on_with_is_left_to_whoever_has_it(
    place: str, machines: Machines
) -> None:
    remote = remote_of(place)
    remote.write("config.yaml", b"")
    with storage():
        path = bring_run(place, goes_on=False)
        assert remote.read(CLAIM) is None
    assert path == str(remote.copy)
    with storage():
        bring_run(place, goes_on=True)
        assert remote.read(CLAIM)
    with storage():
        bring_run(f"{place}/new", goes_on=False)
        assert (remote / "new").read(CLAIM)


def test_ctrl_c_while_the_last_is_sent_says_what_was_not(
    place: str, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Remote, source: Path, name: str) -> None:
        raise KeyboardInterrupt

    def work() -> None:
        with kept(remote_of(place), alone=False, every=60) as run:
            fill(run, state="1")
            monkeypatch.setattr(Remote, "upload", cut)

    with pytest.raises(Interrupted, match="what was not sent is whole in"):
        work()


def test_storage_that_cannot_be_reached_is_named(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYFED_HN_CACHE", str(tmp_path / "cache"))
    missing = remote_of("s3://no-such-bucket/run")
    with (
        pytest.raises(StorageError, match=r"run: there is no bucket no-such-bucket"),
        kept(missing, alone=False),
    ):
        pytest.fail("nothing is begun")
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/run/a: .*NO_SUCH_BUCKET"):
        missing.write("a", b"")


def test_what_cannot_be_sent_is_kept_and_sent_later(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, upload = remote_of(place), Remote.upload

    def broken(self: Remote, source: Path, name: str) -> None:
        raise StorageError(f"{self.uri}: no network")

    def work() -> None:
        with kept(remote, alone=True, every=60) as local:
            fill(local, one="1")
            monkeypatch.setattr(Remote, "upload", broken)

    with pytest.raises(StorageError, match="no network; what was not sent is whole in"):
        work()
    monkeypatch.setattr(Remote, "upload", upload)
    with kept(remote, alone=True, every=60) as local:
        assert (local / "one").read_text() == "1"
    assert remote.read("one") == b"1"
