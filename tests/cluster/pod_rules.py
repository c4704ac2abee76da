"""What our pods promise beyond their schema: who they are, and what they may and can do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from manifests import COMPONENT, PART, at

COMPONENTS = ("head", "hospital", "gpu", "submitter")
TAINT = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
HOME = {"HOME": "/tmp"}  # the rest of the file system cannot be written
STOP = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}  # read where a job is started, in whatever pod
POD = {
    "serviceAccountName": ("rayfed-hn", "rayfed-hn-head"),
    "automountServiceAccountToken": (False,),
    "enableServiceLinks": (False,),
    "securityContext.runAsNonRoot": (True,),
    "securityContext.runAsUser": (10001,),
    "securityContext.runAsGroup": (10001,),
    "securityContext.seccompProfile.type": ("RuntimeDefault",),
    "hostNetwork": (None,),
    "hostPID": (None,),
    "hostIPC": (None,),
    "initContainers": (None,),
    "securityContext.supplementalGroups": (None,),
}
GROUP = {  # by which claims can be written
    "securityContext.fsGroup": (10001,),
    "securityContext.fsGroupChangePolicy": ("OnRootMismatch",),
}
CONTAINER = {
    "securityContext.allowPrivilegeEscalation": (False,),
    "securityContext.readOnlyRootFilesystem": (True,),
    "securityContext.capabilities.drop": (["ALL"],),
    "securityContext.capabilities.add": (None,),
    "securityContext.privileged": (None,),
}


def differs(value: Any, wanted: dict[str, tuple[Any, ...]], where: str) -> Iterator[str]:
    for path, allowed in wanted.items():
        got = at(value, path)
        # 1 is no True, and False no 0
        if not any(got == one and type(got) is type(one) for one in allowed):
            yield f"{where}: {path} is {got!r}, not one of {allowed}"


def pod(template: dict[str, Any]) -> Iterator[str]:
    spec, labels = template["spec"], at(template, "metadata.labels") or {}
    where = labels.get(COMPONENT, "a pod")
    if labels.get(PART) != "rayfed-hn" or where not in COMPONENTS or len(labels) != 2:
        yield f"{where}: labels {labels}: no network policy is for it"
    yield from differs(spec, POD, where)
    if not spec["containers"]:
        yield f"{where}: there is no container"
    for container in spec["containers"]:
        yield from differs(container, CONTAINER, where)
        yield from bounded(container, where)
        if not re.fullmatch(r"rayfed-hn(-cuda)?", container.get("image", "")):
            yield f"{where}: image {container.get('image')} is none that kustomize replaces"
        given = {one["name"]: one.get("value") for one in container.get("env") or []}
        wanted = HOME if where == "submitter" else HOME | STOP
        if given != wanted:
            yield f"{where}: environment {given}, not {wanted}"
        if where != "submitter":
            yield from _probes(container, where)
    if where != "submitter":
        yield from differs(spec, GROUP, where)
    yield from _volumes(spec, where)
    yield from _places(spec, where)
    gpus = any(at(one, "resources.limits").get("nvidia.com/gpu") for one in spec["containers"])
    if gpus and TAINT not in (spec.get("tolerations") or []):
        yield f"{where}: may not run where GPUs are"


def bounded(container: dict[str, Any], where: str) -> Iterator[str]:
    resources = container.get("resources") or {}
    if resources.get("requests") != resources.get("limits") or not resources.get("limits"):
        yield f"{where}: resources: requests are not limits"
    missing = {"cpu", "memory"} - set(resources.get("limits") or ())
    known = {"cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"}
    if missing or set(resources.get("limits") or ()) - known:
        yield f"{where}: resources of {sorted(resources.get('limits') or ())}"
    gpu = "nvidia.com/gpu" in (resources.get("limits") or ())
    if gpu != container.get("image", "").endswith("-cuda"):
        yield f"{where}: GPUs and image do not go together"


def _probes(container: dict[str, Any], where: str) -> Iterator[str]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        health = at(container, f"{name}.httpGet")
        if health != {"path": "/api/healthz", "port": 52365}:
            yield f"{where}: {name} asks {health}"
        if not at(container, f"{name}.periodSeconds") or not at(
            container, f"{name}.failureThreshold"
        ):
            yield f"{where}: {name} does not say when it gives up"
    if any(
        not at(container, f"{name}.timeoutSeconds") for name in ("readinessProbe", "livenessProbe")
    ):
        yield f"{where}: a busy machine may take more than the second that a probe has by itself"
    names = {port["containerPort"]: port.get("name") for port in container.get("ports") or []}
    if where == "head" and names != {6379: "gcs-server", 8265: "dashboard", 8080: "metrics"}:
        yield f"head: ports {names}"


def _volumes(pod: dict[str, Any], where: str) -> Iterator[str]:
    """What is mounted is there; /tmp can be written; slides cannot."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes") or []}
    mounts = [mount for one in pod["containers"] for mount in one.get("volumeMounts") or []]
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"{where}: no volume {mount['name']}"
    for name, volume in volumes.items():
        if not any(mount["name"] == name for mount in mounts) and name != "kubernetes":
            yield f"{where}: volume {name} is not mounted"
        if name.startswith("slides"):
            read_only = [mount.get("readOnly") for mount in mounts if mount["name"] == name]
            if read_only != [True] or not at(volume, "persistentVolumeClaim.readOnly"):
                yield f"{where}: slides can be changed"
        if where == "head" and name.startswith("bags-"):
            if not at(volume, "persistentVolumeClaim.readOnly"):
                yield f"{where}: {name} can be changed"
            if not all(mount.get("readOnly") for mount in mounts if mount["name"] == name):
                yield f"{where}: {name} can be changed"
        if "emptyDir" in volume and not at(volume, "emptyDir.sizeLimit"):
            yield f"{where}: {name} can fill the node"
    places = {mount["mountPath"]: volumes.get(mount["name"]) for mount in mounts}
    if at(places.get("/tmp"), "emptyDir.sizeLimit") is None:
        yield f"{where}: nothing at /tmp"
    if where != "submitter" and at(places.get("/dev/shm"), "emptyDir.medium") != "Memory":
        yield f"{where}: objects are not kept in memory"


def _places(pod: dict[str, Any], where: str) -> Iterator[str]:
    """A claim is where the run looks for it: a hospital's bags under its own name."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes") or []}
    for name, volume in volumes.items():
        kinds = volume.keys() - {"name"}
        if kinds != {"projected"} and not kinds <= {"emptyDir", "persistentVolumeClaim"}:
            yield f"{where}: {name} is of no kind that is needed: {sorted(kinds)}"
    for mount in (one for each in pod["containers"] for one in each.get("volumeMounts") or []):
        volume = volumes.get(mount["name"], {})
        if "projected" in volume:
            yield f"{where}: a job sees its token"
        claim = str(at(volume, "persistentVolumeClaim.claimName") or "")
        kind, _, site = claim.partition("-")
        wanted = {"slides": "/slides", "bags": f"/bags/site={site}" if site else "/bags"}
        if claim and mount["mountPath"] != wanted.get(kind, f"/{claim}"):
            yield f"{where}: {claim} is at {mount['mountPath']}"
