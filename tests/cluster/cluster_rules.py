"""What our clusters and jobs promise beyond their schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests import at, claims_of, cluster_specs, of_kind, pod_templates
from pod_rules import CONTAINER, bounded, differs, pod
from reach_rules import claims, namespace, network

CONSTRAINTS = Path(__file__).parents[2] / "cluster" / "machine" / "constraints.txt"
CLUSTER = {
    "authOptions.mode": ("token",),
    "authOptions.secretName": ("rayfed-hn-token",),
    "tlsOptions.enabled": (True,),
    "enableInTreeAutoscaling": (True,),
    "autoscalerOptions.version": ("v2",),
    "headGroupSpec.rayStartParams.num-cpus": ("2",),
    "headGroupSpec.rayStartParams.dashboard-host": ("0.0.0.0",),
    "headGroupSpec.rayStartParams.disable-usage-stats": ("true",),
    "headGroupSpec.template.spec.serviceAccountName": ("rayfed-hn-head",),
    # A service within the cluster: what is outside comes through a tunnel.
    "headGroupSpec.serviceType": (None, "ClusterIP"),
    "headGroupSpec.enableIngress": (None, False),
    "headGroupSpec.ingressOptions": (None,),
    "headGroupSpec.headService": (None,),
}
STARTS = {  # all that Ray is told, by group; the rest it takes from the pod
    "head": {"num-cpus", "dashboard-host", "disable-usage-stats", "object-store-memory"},
    "": {"object-store-memory"},
}
TOKEN = {"name": "kubernetes", "readOnly": True} | {
    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"
}
SOURCES = [
    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
]
JOB = {
    "shutdownAfterJobFinishes": (True,),
    "backoffLimit": (1, 2, 3, 4, 5),
    "ttlSecondsAfterFinished": (600,),
    "submissionMode": ("K8sJobMode",),
    "clusterSelector": (None,),  # KubeRay: not together with backoffLimit
    "submitterPodTemplate.spec.restartPolicy": ("Never",),
}


def objections(found: list[dict[str, Any]]) -> list[str]:
    """Everything that is not as promised, in documents that their schemas have nothing against."""
    return [text for rule in (_clusters, _jobs, network, claims, namespace) for text in rule(found)]


def _clusters(found: list[dict[str, Any]]) -> Iterator[str]:
    specs = cluster_specs(found)
    if not specs or not of_kind(found, "RayJob"):
        yield "there is no cluster or no job"
    ray = re.search(r"^ray==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE)
    for spec in specs:
        yield from differs(spec, CLUSTER, "cluster")
        if not ray or spec.get("rayVersion") != ray[1]:
            yield f"rayVersion is {spec.get('rayVersion')}, not that of {CONSTRAINTS.name}"
        yield from differs(spec["autoscalerOptions"], CONTAINER, "autoscaler")
        yield from bounded(spec["autoscalerOptions"], "autoscaler")
        if not at(spec, "autoscalerOptions.idleTimeoutSeconds"):
            yield "idle pods stay"
        for group in (spec["headGroupSpec"], *(spec.get("workerGroupSpecs") or [])):
            yield from _starts(group)
            yield from _objects(group)
        yield from _autoscaler(spec)
        yield from _groups(spec)
    for template in pod_templates(found):
        yield from pod(template)


def _starts(group: dict[str, Any]) -> Iterator[str]:
    where = group.get("groupName", "head")
    given = group.get("rayStartParams") or {}
    if given.keys() != STARTS.get(where, STARTS[""]):
        yield f"{where}: starts with {sorted(given)}"
    if group.get("resources"):
        yield f"{where}: not what its pod has, but {group['resources']}"


def _autoscaler(spec: dict[str, Any]) -> Iterator[str]:
    """It alone is given the token of the head's account."""
    volumes = at(spec, "headGroupSpec.template.spec.volumes") or []
    sources = [at(one, "projected.sources") for one in volumes if one["name"] == "kubernetes"]
    if TOKEN not in (at(spec, "autoscalerOptions.volumeMounts") or []) or sources != [SOURCES]:
        yield f"the autoscaler has no token of its own: {sources}"


def _objects(group: dict[str, Any]) -> Iterator[str]:
    """Ray takes 30 % of the memory for objects, and a disk where /dev/shm has less than that."""
    where, pods = group.get("groupName", "head"), group["template"]["spec"]
    given = str(at(group, "rayStartParams.object-store-memory"))
    mounts = [mount for one in pods["containers"] for mount in one.get("volumeMounts") or []]
    names = [mount["name"] for mount in mounts if mount["mountPath"] == "/dev/shm"]
    volumes = {volume["name"]: volume for volume in pods.get("volumes") or []}
    sizes = [str(at(volumes.get(name), "emptyDir.sizeLimit")) for name in names]
    room = re.fullmatch(r"(\d+)Gi", sizes[0]) if sizes else None
    if room is None or not given.isdigit() or not 0 < int(given) <= 0.95 * int(room[1]) * 2**30:
        yield f"{where}: objects of {given} bytes do not fit into /dev/shm of {sizes}"


def _groups(spec: dict[str, Any]) -> Iterator[str]:
    """A group for every hospital, on its own nodes and with its own claims; GPUs from none on."""
    groups = {group["groupName"]: group for group in spec.get("workerGroupSpecs") or []}
    hospitals = {name: at(group, "labels.hospital") for name, group in groups.items()}
    if sum(label is not None for label in hospitals.values()) < 2:
        yield "fewer than two hospitals"
    for name, group in groups.items():
        claims = set(claims_of(group["template"]["spec"]))
        private = {claim for claim in claims if claim.startswith(("slides-", "bags-"))}
        if hospitals[name] is None:
            if group["minReplicas"] != 0 or group.get("replicas") != 0:
                yield f"{name}: begins with more than nothing"
            if at(group, "labels.role") != "gpu" or private:
                yield f"{name}: neither a hospital nor for GPUs alone"
            continue
        if hospitals[name] != name or private != {f"slides-{name}", f"bags-{name}"}:
            yield f"{name}: labelled {hospitals[name]}, with {sorted(private)}"
        if not group["minReplicas"] == group["maxReplicas"] == group.get("replicas") == 1:
            yield f"{name}: not one pod"
        if f"'hospital', 'operator': 'In', 'values': ['{name}']" not in str(
            at(group, "template.spec.affinity.nodeAffinity")
        ):
            yield f"{name}: not bound to its own nodes"
    head = set(claims_of(spec["headGroupSpec"]["template"]["spec"]))
    if any(claim.startswith("slides-") for claim in head):
        yield "the head sees slides"


def _jobs(found: list[dict[str, Any]]) -> Iterator[str]:
    for job in of_kind(found, "RayJob"):
        yield from differs(job["spec"], JOB, "job")
        words = str(at(job, "spec.entrypoint")).split()
        for word in ("rayfed-hn", "run.resume=true", "resources.pin_label=hospital"):
            if word not in words:
                yield f"job: {words} without {word}"
        if not any(word.startswith("run.dir=/runs/") for word in words):
            yield "job: its run is not on the claim, and gone with its pods"
