"""Every command of the documentation is run, block by block, as its page prints it.

A page is played in a temporary folder that holds what it takes for granted (``played.SCENES``).
Commands of ours are run in this process, on the session's cluster; what takes a shell is given to
one. Runs are made small by words that are added (``played.SMALL``), never by another text.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from command_line import run_verb
from fences import ROOT, Fence, fences
from played import SCENES, SMALL, Scene, is_simple, lines_of, not_run

from rayfed_hn import loading

pytestmark = [pytest.mark.docs, pytest.mark.ray, pytest.mark.timeout(900)]
WRAPPER = """#!{python}
import sys
from pathlib import Path
from rayfed_hn.cli import main
try:
    sys.argv += {small}.get(sys.argv[1], ())
    main()
except SystemExit as end:
    with Path({ended!r}).open("a") as file:
        print(end.code, *sys.argv[1:], file=file)
    raise
"""


@pytest.mark.parametrize("page", SCENES)
def test_a_page_can_be_followed(
    page: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    scene = SCENES[page]
    blocks = [f for f in fences() if f.page == page and f.needs is None]
    blocks = [f for f in blocks if f.is_shell or f.info == "python"]
    assert blocks
    if scene.in_checkout:
        _play_in_checkout(blocks, scene, tmp_path)
        return
    request.getfixturevalue("ray_session")
    for number, block in enumerate(blocks):
        if scene.apart or not number:
            folder = tmp_path / str(number)
            folder.mkdir()
            monkeypatch.chdir(folder)
            scene.make(folder)
        capfd.readouterr()
        _play(block, scene, monkeypatch)
        assert "has no effect" not in capfd.readouterr().err, block.place


def _play_in_checkout(blocks: Sequence[Fence], scene: Scene, folder: Path) -> None:
    place = Path(tempfile.mkdtemp(prefix="rd", dir="/tmp"))  # names of sockets are to be short
    own = {"SHARED": str(folder), "RAYFED_HN_CLUSTER": str(place / "c"), "PYTHON": sys.executable}
    try:
        for block in blocks:
            _shell(block, folder, ROOT, own)
    finally:
        _shell(Fence(blocks[0].page, 0, "bash", scene.at_last), folder, ROOT, own)
        shutil.rmtree(place)


def _play(block: Fence, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.info == "python":
        _run_python(block, monkeypatch)
        return
    wanted = [line for line in lines_of(block) if not_run(line) is None]
    if all(map(is_simple, wanted)):
        for line in wanted:
            code = _run_line(line, monkeypatch)
            assert code == scene.ends.get(line, 0), f"{block.place}: {line}"
    else:
        _run_shell(block)


def _run_line(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    program, *words = [_filled(word) for word in shlex.split(line, comments=True)]
    if program == "tensorboard":  # would serve until it is stopped
        return 0 if list(Path(words[1]).rglob("events.out.tfevents.*")) else 1
    return run_verb(monkeypatch, *words, *SMALL.get(words[0], ()))


def _filled(word: str) -> str:
    """``runs/scale-...`` is the newest run that begins so."""
    if "..." not in word:
        return word
    beginning = word.split("...")[0]
    runs = Path(beginning).parent.glob(f"{Path(beginning).name}*")
    return word.replace(f"{beginning}...", str(max(runs, key=lambda run: run.stat().st_mtime)))


def _run_shell(block: Fence) -> None:
    """Commands of ours have to end with 0, also those in the background."""
    ended = _shell(block, Path.cwd(), Path.cwd(), {"PYTHONPATH": str(ROOT)})
    assert [line for line in ended if not line.startswith("0 ")] == [], block.place
    assert len(ended) == block.text.count("rayfed-hn ")


def _shell(block: Fence, folder: Path, where: Path, own: Mapping[str, str]) -> list[str]:
    """Give a block to bash; returns exit code and words of every command of ours."""
    bin_, ended = folder / "bin", folder / "ended"
    bin_.mkdir(exist_ok=True)
    words = {verb: [w for w in SMALL[verb] if not w.startswith("resources.")] for verb in SMALL}
    text = WRAPPER.format(python=sys.executable, small=words, ended=str(ended))
    (bin_ / "rayfed-hn").write_text(text)
    (bin_ / "rayfed-hn").chmod(0o755)
    path = f"{bin_}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["bash", "-euc", block.text],
        cwd=where,
        env={"PATH": path, "HOME": os.environ["HOME"], **own},
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{block.place}: {done.stdout}\n{done.stderr}"
    return ended.read_text().splitlines() if ended.exists() else []


def _run_python(block: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(path: str | Path | None = None, words: object = ()) -> object:
        assert isinstance(words, list | tuple)
        return real(path, [*words, *SMALL["train"]])

    real = loading.load
    with monkeypatch.context() as patched:
        patched.setattr(loading, "load", small)
        exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(
    "text",
    [
        "rayfed-hn report nowhere",
        "rayfed-hn certificates pki --sites a\nrayfed-hn report nowhere",
        "rayfed-hn report nowhere &\nwait",  # bash itself ends with 0
        "rayfed-hn certificates pki --sites a && false",
        "tensorboard --logdir nowhere",
    ],
)
def test_a_command_that_fails_is_seen(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="somewhere:1"):
        _play(Fence("somewhere", 1, "bash", text), Scene(), monkeypatch)
