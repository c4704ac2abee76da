"""What ``ray up`` runs on a machine before Ray: the last wheel, once; and room for sockets."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from machines import FILES, ROOT, read

OLD, NEW = "rayfed_hn-0.1.0-py3-none-any.whl", "rayfed_hn-0.2.0-py3-none-any.whl"
Setup = Callable[[], list[str]]


def wheel(home: Path, name: str, built: int) -> Path:
    """A wheel as Ray's rsync leaves it: with the time at which it was built."""
    path = home / ".rayfed-hn" / "wheel" / name
    path.write_text(f"{name} of {built}")
    os.utime(path, (built, built))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What is there before the setup: a token, and what is sent along."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    (tmp_path / ".rayfed-hn" / "wheel").mkdir(parents=True)
    (tmp_path / ".rayfed-hn" / "machine").symlink_to(ROOT / "cluster" / "machine")
    wheel(tmp_path, OLD, built=1_000_000)
    return tmp_path


@pytest.fixture(params=FILES)
def setup(request: pytest.FixtureRequest, home: Path) -> Setup:
    """One file's commands, with pip, Python and sudo stood in for; says what pip was told."""
    tools, venv = home / "tools", home / ".rayfed-hn" / "venv"
    tools.mkdir()
    note = f'#!/bin/bash\necho "$(basename "$0") $*" >> {home}/said\n'
    made = f"{note}mkdir -p {venv}/bin && cp {tools}/pip {venv}/bin/pip\n"
    python = dict.fromkeys(("python3.11", "python3.12"), made)
    for tool, text in ({"pip": note, "sudo": "#!/bin/bash\n", "mountpoint": note} | python).items():
        (tools / tool).write_text(text)
        (tools / tool).chmod(0o755)
    environment = {"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}"}

    def run() -> list[str]:
        (home / "said").write_text("")
        for command in read(request.param)["setup_commands"]:
            subprocess.run(["bash", "-euc", command], env=environment, check=True)
        said = (home / "said").read_text().splitlines()
        return [line for line in said if line.startswith(("pip", "python"))]

    return run


def installed(home: Path, path: Path) -> list[str]:
    constraints = home / ".rayfed-hn" / "machine" / "constraints.txt"
    return [
        f"pip install --quiet --constraint {constraints} {path}",
        f"pip install --quiet --no-deps --force-reinstall {path}",
    ]


def test_setup_makes_the_same_machine_twice(home: Path, setup: Setup) -> None:
    first, *rest = setup()
    assert first.split()[1:3] == ["-m", "venv"]
    assert rest == installed(home, home / ".rayfed-hn" / "wheel" / OLD)
    assert setup() == []  # which may be while a job runs
    assert (home / ".bashrc").read_text() == "source ~/.rayfed-hn/machine/env.sh\n"
    assert (home / ".rayfed-hn").stat().st_mode & 0o777 == 0o700
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_the_wheel_that_was_built_last_is_installed(home: Path, setup: Setup) -> None:
    """A release after the first, the first again, and that built anew under the same name."""
    setup()
    new = wheel(home, NEW, built=2_000_000)
    assert setup() == installed(home, new)
    old = wheel(home, OLD, built=3_000_000)
    assert setup() == installed(home, old)
    wheel(home, OLD, built=4_000_000)
    assert setup() == installed(home, old)


def test_what_failed_is_tried_again(home: Path, setup: Setup) -> None:
    setup()
    pip = home / ".rayfed-hn" / "venv" / "bin" / "pip"
    fine = pip.read_text()
    new = wheel(home, NEW, built=2_000_000)
    pip.write_text(f"{fine}exit 1\n")
    with pytest.raises(subprocess.CalledProcessError):
        setup()
    pip.write_text(fine)
    assert setup() == installed(home, new)


def test_no_wheel_is_an_error(home: Path, setup: Setup) -> None:
    (home / ".rayfed-hn" / "wheel" / OLD).unlink()
    with pytest.raises(subprocess.CalledProcessError):
        setup()
