"""The files for ``ray up`` hold what they should, and a user is told what to change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from broken_keys import Where, inside, uncaught
from machines import FILES, ROOT, complaints, of_machines, placeholders, read
from packaging.requirements import Requirement
from packaging.version import Version

CLUSTER = ROOT / "cluster"
PROJECT = (ROOT / "pyproject.toml").read_text()
PINS = dict(re.findall(r"^(\w+)==(\S+)$", (CLUSTER / "machine/constraints.txt").read_text(), re.M))


@pytest.mark.parametrize("name", FILES)
def test_every_misspelt_key_is_caught(name: str) -> None:
    assert uncaught(read(name), lambda document: complaints(name, document)) == []


@pytest.mark.parametrize(
    ("name", "where", "value", "said"),
    [
        ("onprem", ("provider", "worker_ips"), "north", "is not of type 'array'"),
        ("onprem", ("provider", "type"), "locale", "'local' was expected"),
        ("onprem", ("setup_commands", 0), "true", "others can read the token"),
        ("onprem", ("auth", "ssh_pasword"), "x", "'ssh_pasword' was unexpected"),
        ("aws", ("max_workers",), "12", "'12' is not of type 'integer'"),
        ("aws", ("head_node_type",), "gpu", "'head' was expected"),
        ("aws", ("provider", "use_internal_ips"), False, "True was expected"),
        ("gcp", ("head_start_ray_commands", 1), "ray start --head", "without --port=6379"),
        ("gcp", ("file_mounts", "~/.rayfed-hn/machine"), "machine", "there is no folder machine"),
    ],
    ids=str,
)
def test_faults_are_caught(name: str, where: Where, value: Any, said: str) -> None:
    document = read(name)
    inside(document, where[:-1])[where[-1]] = value
    assert any(said in text for text in complaints(name, document)), complaints(name, document)


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_token_is_refused(name: str) -> None:
    document = read(name)
    del document["file_mounts"]["~/.ray/auth_token"]
    assert complaints(name, document)


def test_a_disk_that_is_not_encrypted_and_an_open_dashboard_are_refused() -> None:
    document = read("aws")
    gpu = document["available_node_types"]["gpu"]["node_config"]
    gpu["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] = False
    assert any("Encrypted" in text for text in complaints("aws", document))
    document = read("gcp")
    start = document["head_start_ray_commands"]
    start[1] = start[1].replace("127.0.0.1", "0.0.0.0")
    assert complaints("gcp", document) == ["the head starts without --dashboard-host=127.0.0.1"]


def test_the_head_is_never_a_spot_machine_and_the_others_are() -> None:
    for name, spot in (("aws", "InstanceMarketOptions"), ("gcp", "scheduling")):
        types = read(name)["available_node_types"]
        assert {kind: spot in one["node_config"] for kind, one in types.items()} == {
            "head": False,
            "decode": True,
            "gpu": True,
        }


def test_versions_of_the_machines_are_versions_that_the_package_takes() -> None:
    assert PINS.keys() == {"ray", "torch"}
    for line in re.findall(r'^  "((?:ray|torch)\b[^":]*)",', PROJECT, re.M):
        requirement = Requirement(line)
        assert Version(PINS[requirement.name]) in requirement.specifier


@pytest.mark.parametrize("where", ["onprem.yaml", "aws.yaml", "gcp.yaml", "kuberay"])
def test_readme_tells_everything_that_must_be_replaced(where: str) -> None:
    paths = sorted(CLUSTER.glob(f"{where}/*/*.yaml")) or [CLUSTER / where]
    wanted = {word for path in paths for word in placeholders(_without_comments(path))}
    assert wanted
    readme = (CLUSTER / "README.md").read_text()
    rows = re.findall(rf"^\| `(REPLACE-[A-Z-]+)` \| [^|]*\b{where}\b", readme, re.M)
    assert sorted(rows) == sorted(wanted)


def _without_comments(path: Path) -> str:
    return re.sub(r"(^|\s)#.*", "", path.read_text())


def test_nothing_else_is_anybody_s_own() -> None:
    """No account, address or key of whoever wrote the files."""
    for path in (*CLUSTER.glob("*.yaml"), *CLUSTER.glob("kuberay/*/*.yaml")):
        text = path.read_text()
        assert not re.search(r"\b(?:ami|subnet|sg|vpc|fs)-[0-9a-f]{8,}", text), path
        assert set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text)) <= {"127.0.0.1", "0.0.0.0"}, path


def test_the_environment_of_machines_is_what_a_shell_makes_of_it(tmp_path: Path) -> None:
    found = of_machines(HOME=str(tmp_path))
    assert found["PATH"].startswith(f"{tmp_path}/.rayfed-hn/venv/bin:")
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_TMPDIR"] == f"{tmp_path}/.rayfed-hn"
    assert found["RAY_JOB_STOP_WAIT_TIME_S"] == "30"
    assert "RAY_AUTH_TOKEN" not in found
