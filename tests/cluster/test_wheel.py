"""The wheel holds the package and nothing else, and runs where there is no checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from virtual_sites import TINY

import rayfed_hn

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rayfed_hn"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what is tracked, as from a clean clone, with what is installed."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in ("rayfed_hn", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([sys.executable, *build, "--wheel-dir", str(made), str(source)], check=True)
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it depends on, and without the checkout.

    What it depends on is not downloaded again: it is looked up where it is installed here, by a
    .pth file, which does not read those that lie there, such as that of an editable install.
    """
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = next(folder.glob("lib/python*/site-packages"))
    here = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "dependencies.pth").write_text("\n".join(dict.fromkeys(here)) + "\n")
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    ignoring = ["--no-index", "--ignore-installed", str(wheel)]
    subprocess.run([sys.executable, *install, *ignoring], check=True)
    return folder


def run(empty: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the environment in an empty folder, with nothing of ours in its variables."""
    strange = {"PYTHONPATH", "VIRTUAL_ENV", "RAYFED_HN_WITHOUT_RAY"}
    environment = {key: value for key, value in os.environ.items() if key not in strange}
    return subprocess.run(
        [str(empty / "bin" / words[0]), *words[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*") if path.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"rayfed_hn-{rayfed_hn.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == wanted
    assert "rayfed_hn/py.typed" in names
    assert f"{info}licenses/LICENSE" in names


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    info = f"rayfed_hn-{rayfed_hn.__version__}.dist-info/"
    with zipfile.ZipFile(wheel) as opened:
        metadata = opened.read(f"{info}METADATA").decode()
        entries = opened.read(f"{info}entry_points.txt").decode()
    assert re.search(r"^Requires-Python: >=3\.11$", metadata, re.MULTILINE)
    assert "rayfed-hn = rayfed_hn.cli:main" in entries
    plain = re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata, re.MULTILINE)
    assert any(line.startswith("ray[") for line in plain)
    assert not any(line.startswith(("pytest", "jsonschema", "hadolint")) for line in plain)


def test_it_is_the_wheel_that_runs(empty: Path, tmp_path: Path) -> None:
    show = "import rayfed_hn, sys; print(rayfed_hn.__file__); print('ray' in sys.modules)"
    done = run(empty, tmp_path, "python", "-c", show)
    where, with_ray = done.stdout.split()
    assert Path(where).is_relative_to(empty), done.stderr
    assert with_ray == "False"


def test_verbs_run_in_an_empty_folder(empty: Path, tmp_path: Path) -> None:
    done = run(empty, tmp_path, "rayfed-hn", "--version")
    assert done.stdout.split()[-1] == rayfed_hn.__version__, done.stderr
    done = run(empty, tmp_path, "rayfed-hn", "demo", "--help")
    assert done.returncode == 0
    assert "demo.slides_per_site" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_network_is_made_and_scored_without_the_checkout(empty: Path, tmp_path: Path) -> None:
    """A real run, of virtual sites: it writes its report with what the wheel holds."""
    words = (*TINY, "scale.sites=2", "scale.where=process", "run.dir=runs/small")
    done = run(empty, tmp_path, "rayfed-hn", "scale", *words)
    assert done.returncode == 0, done.stderr
    done = run(empty, tmp_path, "rayfed-hn", "report", "runs/small")
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "runs" / "small").rglob("*.html"))
