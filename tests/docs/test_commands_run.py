"""Every command of the documentation is run, block by block, as its page prints it.

A page is played in a temporary folder that holds what it takes for granted (``played.SCENES``).
Commands of ours are run in this process, on the session's cluster; what takes a shell is given to
one. Runs are made small by words that are added (``played.SMALL``), never by another text.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_verb
from fences import ROOT, Fence, fences
from played import CLUSTER, SCENES, SMALL, Scene, is_simple, lines_of, not_run

from rayfed_hn import loading

pytestmark = [pytest.mark.docs, pytest.mark.ray, pytest.mark.timeout(900)]
WRAPPER = f"""#!{sys.executable}
import sys
from pathlib import Path
from played import SMALL
from rayfed_hn.cli import main
try:
    sys.argv += SMALL.get(sys.argv[1], ())
    main()
except SystemExit as end:
    with Path("ended").open("a") as file:
        print(end.code, *sys.argv[1:], file=file)
    raise
"""


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("page", SCENES)
def test_a_page_can_be_followed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = SCENES[page]
    blocks = [f for f in fences() if f.page == page and f.needs is None]
    blocks = [f for f in blocks if f.is_shell or f.info == "python"]
    assert blocks
    for number, block in enumerate(blocks):
        if scene.apart or not number:
            folder = tmp_path / str(number)
            folder.mkdir()
            monkeypatch.chdir(folder)
            scene.make(folder)
        capfd.readouterr()
        _play(block, scene, monkeypatch)
        assert "has no effect" not in capfd.readouterr().err, block.place


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
    """Give a block to bash. Commands of ours have to end with 0, also those in the background."""
    bin_ = Path("bin").resolve()
    bin_.mkdir(exist_ok=True)
    (bin_ / "rayfed-hn").write_text(WRAPPER)
    (bin_ / "rayfed-hn").chmod(0o755)
    helpers = [ROOT, ROOT / "tests", ROOT / "tests" / "docs"]
    environment = {
        "PATH": f"{bin_}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": ":".join(map(str, helpers)),
        "HOME": str(Path.cwd()),
    }
    done = subprocess.run(
        ["bash", "-euc", block.text], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{block.place}: {done.stdout}\n{done.stderr}"
    ended = Path("ended").read_text().splitlines()
    assert [line for line in ended if not line.startswith("0 ")] == [], (
        f"{block.place}: {done.stderr}"
    )
    assert len(ended) == block.text.count("rayfed-hn ")


def _run_python(block: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(path: str | Path | None = None, words: object = ()) -> object:
        assert isinstance(words, list | tuple)
        return real(path, [*words, *SMALL["train"]])

    real = loading.load
    with monkeypatch.context() as patched:
        patched.setattr(loading, "load", small)
        exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})


def test_the_page_of_the_cluster_can_be_followed(tmp_path: Path) -> None:
    """From the checkout, block after block in one shell; nothing is left."""
    blocks = [f for f in fences() if f.page == CLUSTER and f.needs is None and f.is_shell]
    text = "\n".join(block.text for block in blocks)
    assert "cluster/local.sh up 3" in text
    assert text.rstrip().splitlines()[-1].startswith("cluster/local.sh down")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/sbin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SHARED": str(tmp_path / "shared"),
    }
    down = ["cluster/local.sh", "down"]
    try:
        done = subprocess.run(
            ["bash", "-euc", text], cwd=ROOT, env=environment, capture_output=True, text=True
        )
    finally:
        subprocess.run(down, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "succeeded" in done.stdout


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
