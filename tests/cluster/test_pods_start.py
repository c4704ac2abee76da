"""What Ray makes of the pods' parameters: its own options, and objects in memory."""

from __future__ import annotations

import re
from typing import Any

import pytest
from manifests import at, cluster_specs, documents

pytestmark = pytest.mark.ray
GI = 2**30


def groups() -> dict[str, dict[str, Any]]:
    (spec,) = cluster_specs(documents("cluster/cluster.yaml"))
    return {
        one.get("groupName", "head"): one
        for one in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    }


def gibibytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)Gi", text)
    assert found, text
    return int(found[1]) * GI


def plasma(group: dict[str, Any], wanted: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where Ray keeps objects of so many bytes, with the memory of a pod of the group."""
    from ray._private import services

    pod = group["template"]["spec"]
    (shm,) = (at(one, "emptyDir.sizeLimit") for one in pod["volumes"] if one["name"] == "shm")
    memory = gibibytes(pod["containers"][0]["resources"]["limits"]["memory"])
    monkeypatch.setattr("ray._private.utils.get_shared_memory_bytes", lambda: gibibytes(shm))
    monkeypatch.setattr("ray._common.utils.get_system_memory", lambda: memory)
    monkeypatch.delenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", raising=False)
    return services.determine_plasma_store_config(wanted, temp_dir="/tmp")[0]


@pytest.mark.parametrize("name", groups())
def test_objects_are_kept_in_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.scripts.scripts import start

    group = groups()[name]
    words = [f"--{key}={value}" for key, value in group["rayStartParams"].items()]
    words = [word.removesuffix("=true") for word in words]
    given = start.make_context("ray start", words).params["object_store_memory"]
    assert plasma(group, given, monkeypatch) == "/dev/shm"


def test_without_a_size_ray_would_keep_them_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why there is one."""
    from ray._private import ray_constants

    share = ray_constants.DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
    assert plasma(groups()["head"], int(share * 16 * GI), monkeypatch) == "/tmp"
