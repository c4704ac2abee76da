"""What ``ray up`` runs on a machine before Ray: the last wheel, once; and room for sockets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import FILES, ROOT, read

OLD, NEW = "rayfed_hn-0.1.0-py3-none-any.whl", "rayfed_hn-0.2.0-py3-none-any.whl"
ROOM = 39  # bytes of RAY_TMPDIR
Setup = Callable[[], list[str]]


def wheel(home: Path, name: str, built: int) -> Path:
    """A wheel as Ray's rsync leaves it: with the time at which it was built."""
    path = home / ".rayfed-hn" / "wheel" / name
    path.write_text(f"{name} of {built}")
    os.utime(path, (built, built))
    return path


@pytest.fixture
def short() -> Iterator[str]:
    """A folder with a short name."""
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as path:
        yield path


@pytest.fixture
def home(short: str) -> Path:
    """What is there before the setup: a token, and what is sent along."""
    path = Path(short)
    (path / ".ray").mkdir()
    (path / ".ray" / "auth_token").write_text("t")
    (path / ".rayfed-hn" / "wheel").mkdir(parents=True)
    (path / ".rayfed-hn" / "machine").symlink_to(ROOT / "cluster" / "machine")
    wheel(path, OLD, built=1_000_000)
    return path


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


def check(home: str, tmpdir: str | None = None) -> subprocess.CompletedProcess[str]:
    """What a machine says to an account of this home, with env.sh as it is or with a folder."""
    machine = Path(home) / ".rayfed-hn" / "machine"
    shutil.copytree(ROOT / "cluster" / "machine", machine)
    if tmpdir is not None:
        with (machine / "env.sh").open("a") as file:
            file.write(f'export RAY_TMPDIR="{tmpdir}"\n')
    machine.parent.chmod(0o700)
    setup = read("onprem")["setup_commands"]
    (command,) = [one for one in setup if "check.sh" in one]
    assert setup.index(command) < setup.index(next(one for one in setup if "install.sh" in one))
    return subprocess.run(
        ["bash", "-euc", command],
        env={"HOME": home, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )


def of_length(short: str, size: int) -> str:
    folder = f"{short}/".ljust(size - len("/.rayfed-hn"), "x")
    os.mkdir(folder)
    return folder


def test_a_home_of_28_bytes_has_room_for_sockets(short: str) -> None:
    done = check(of_length(short, ROOM))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_longer_home_is_refused_with_what_to_do(short: str) -> None:
    home = of_length(short, ROOM + 1)
    done = check(home)
    assert done.returncode == 2
    assert f"RAY_TMPDIR, {home}/.rayfed-hn: 40 bytes, and Ray's sockets leave it 39" in done.stderr
    assert "in cluster/machine/env.sh, set it to a short folder" in done.stderr


def test_the_short_folder_is_made_and_nobody_else_can_enter_it(short: str) -> None:
    home, tmpdir = of_length(short, ROOM + 1), f"{short}/ray"
    assert check(home, tmpdir).returncode == 0
    assert Path(tmpdir).stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_enter_is_refused(short: str) -> None:
    home, tmpdir = of_length(short, ROOM + 1), f"{short}/ray"
    Path(tmpdir).mkdir(mode=0o755)
    done = check(home, tmpdir)
    assert (done.returncode, "others can enter it" in done.stderr) == (2, True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_room_is_what_rays_own_names_leave() -> None:
    """Of the session that runs here; a process has a number of up to seven digits."""
    from ray._private.utils import validate_socket_filepath
    from ray._private.worker import _global_node

    assert _global_node is not None
    socket = _global_node.plasma_store_socket_name
    tail = socket.removeprefix(os.path.dirname(_global_node.get_temp_dir_path()))
    number = re.search(r"_(\d+)/sockets/", tail)
    assert number
    tail = tail.replace(number[0], "_4194303/sockets/")
    validate_socket_filepath("/".ljust(ROOM, "x") + tail)
    with pytest.raises(OSError, match="cannot exceed 107 bytes"):
        validate_socket_filepath("/".ljust(ROOM + 1, "x") + tail)
