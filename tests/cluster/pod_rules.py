"""What our manifests promise beyond their schema: who may do, read and reach what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifests import of_kind

CONSTRAINTS = Path(__file__).parents[2] / "cluster" / "machine" / "constraints.txt"
PART, COMPONENT = "app.kubernetes.io/part-of", "app.kubernetes.io/component"
COMPONENTS = ("head", "hospital", "gpu", "submitter")
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
}
CONTAINER = {
    "securityContext.allowPrivilegeEscalation": (False,),
    "securityContext.readOnlyRootFilesystem": (True,),
    "securityContext.capabilities.drop": (["ALL"],),
    "securityContext.capabilities.add": (None,),
    "securityContext.privileged": (None,),
}
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
}
JOB = {
    "shutdownAfterJobFinishes": (True,),
    "backoffLimit": (1, 2, 3, 4, 5),
    "ttlSecondsAfterFinished": (600,),
    "submissionMode": ("K8sJobMode",),
    "clusterSelector": (None,),  # KubeRay: not together with backoffLimit
    "submitterPodTemplate.spec.restartPolicy": ("Never",),
}


def at(value: Any, path: str) -> Any:
    """What lies under a path of keys; None where nothing does."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def objections(found: list[dict[str, Any]]) -> list[str]:
    """Everything that is not as promised, in documents that their schemas have nothing against."""
    return [
        text for rule in (_clusters, _jobs, _network, _claims, _namespace) for text in rule(found)
    ]


def cluster_specs(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clusters = [one["spec"] for one in of_kind(found, "RayCluster")]
    jobs = [at(one, "spec.rayClusterSpec") for one in of_kind(found, "RayJob")]
    return [spec for spec in (*clusters, *jobs) if spec]


def pod_templates(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups = [
        group
        for spec in cluster_specs(found)
        for group in (spec["headGroupSpec"], *(spec.get("workerGroupSpecs") or []))
    ]
    submitters = [at(one, "spec.submitterPodTemplate") for one in of_kind(found, "RayJob")]
    return [*(group["template"] for group in groups), *filter(None, submitters)]


def _differs(value: Any, wanted: dict[str, tuple[Any, ...]], where: str) -> Iterator[str]:
    for path, allowed in wanted.items():
        got = at(value, path)
        # 1 is no True, and False no 0
        if not any(got == one and type(got) is type(one) for one in allowed):
            yield f"{where}: {path} is {got!r}, not one of {allowed}"


def _clusters(found: list[dict[str, Any]]) -> Iterator[str]:
    specs = cluster_specs(found)
    if not specs or not of_kind(found, "RayJob"):
        yield "there is no cluster or no job"
    ray = re.search(r"^ray==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE)
    for spec in specs:
        yield from _differs(spec, CLUSTER, "cluster")
        if not ray or spec.get("rayVersion") != ray[1]:
            yield f"rayVersion is {spec.get('rayVersion')}, not that of {CONSTRAINTS.name}"
        yield from _differs(spec["autoscalerOptions"], CONTAINER, "autoscaler")
        yield from _bounded(spec["autoscalerOptions"], "autoscaler")
        if not at(spec, "autoscalerOptions.idleTimeoutSeconds"):
            yield "idle pods stay"
        yield from _groups(spec)
    for template in pod_templates(found):
        yield from _pod(template)


def _groups(spec: dict[str, Any]) -> Iterator[str]:
    """A group for every hospital, on its own nodes and with its own claims; GPUs from none on."""
    groups = {group["groupName"]: group for group in spec.get("workerGroupSpecs") or []}
    hospitals = {name: at(group, "labels.hospital") for name, group in groups.items()}
    if sum(label is not None for label in hospitals.values()) < 2:
        yield "fewer than two hospitals"
    for name, group in groups.items():
        claims = set(_claims_of(group["template"]["spec"]))
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
    head = set(_claims_of(spec["headGroupSpec"]["template"]["spec"]))
    if any(claim.startswith("slides-") for claim in head):
        yield "the head sees slides"


def _claims_of(pod: dict[str, Any]) -> Iterator[str]:
    for volume in pod.get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"]


def _pod(template: dict[str, Any]) -> Iterator[str]:
    pod, labels = template["spec"], at(template, "metadata.labels") or {}
    where = labels.get(COMPONENT, "a pod")
    if labels.get(PART) != "rayfed-hn" or where not in COMPONENTS or len(labels) != 2:
        yield f"{where}: labels {labels}: no network policy is for it"
    yield from _differs(pod, POD, where)
    if not pod["containers"]:
        yield f"{where}: there is no container"
    for container in pod["containers"]:
        yield from _differs(container, CONTAINER, where)
        yield from _bounded(container, where)
        if not re.fullmatch(r"rayfed-hn(-cuda)?", container.get("image", "")):
            yield f"{where}: image {container.get('image')} is none that kustomize replaces"
        home = [one.get("value") for one in container.get("env") or [] if one["name"] == "HOME"]
        if home != ["/tmp"]:
            yield f"{where}: nothing can be written to HOME, {home}"
        if where != "submitter":
            yield from _probes(container, where)
    yield from _volumes(pod, where)


def _bounded(container: dict[str, Any], where: str) -> Iterator[str]:
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


def _jobs(found: list[dict[str, Any]]) -> Iterator[str]:
    for job in of_kind(found, "RayJob"):
        yield from _differs(job["spec"], JOB, "job")
        words = str(at(job, "spec.entrypoint")).split()
        for word in ("rayfed-hn", "run.resume=true", "resources.pin_label=hospital"):
            if word not in words:
                yield f"job: {words} without {word}"
        if not any(word.startswith("run.dir=/runs/") for word in words):
            yield "job: its run is not on the claim, and gone with its pods"


def _network(found: list[dict[str, Any]]) -> Iterator[str]:
    """Every pod of ours is closed both ways, but to its like, to KubeRay and to name servers."""
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(found, "NetworkPolicy")}
    general, head = policies.get("rayfed-hn"), policies.get("rayfed-hn-head")
    if len(policies) != 2 or general is None or head is None:
        yield f"network policies {sorted(policies)}"
        return
    ours = {"podSelector": {"matchLabels": {PART: "rayfed-hn"}}}
    if general["podSelector"] != ours["podSelector"]:
        yield "the network policy is not for all pods"
    if general["policyTypes"] != ["Ingress", "Egress"] or head["policyTypes"] != ["Egress"]:
        yield "the network policy does not close both ways"
    component = {COMPONENT: "head"}
    if head["podSelector"] != {"matchLabels": {PART: "rayfed-hn"} | component}:
        yield "more than the head may ask Kubernetes"
    operator, names = _namespace_of("kuberay-system"), _namespace_of("kube-system")
    dashboard = [{"protocol": "TCP", "port": 8265}]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    if general.get("ingress") != [{"from": [ours]}, {"from": [operator], "ports": dashboard}]:
        yield "ingress is not what it should be"
    if general.get("egress") != [{"to": [ours]}, {"to": [names], "ports": dns}]:
        yield "egress is not what it should be"
    for rule in head.get("egress") or [{}]:
        cidrs = [at(peer, "ipBlock.cidr") for peer in rule.get("to") or []]
        ports = [(one.get("protocol"), one.get("port")) for one in rule.get("ports") or []]
        if cidrs != ["REPLACE-API-SERVER/32"] or set(ports) != {("TCP", 443), ("TCP", 6443)}:
            yield f"the head reaches {cidrs} at {ports}"


def _namespace_of(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _claims(found: list[dict[str, Any]]) -> Iterator[str]:
    claims = {
        one["metadata"]["name"]: one["spec"] for one in of_kind(found, "PersistentVolumeClaim")
    }
    used = {name for one in pod_templates(found) for name in _claims_of(one["spec"])}
    if used != set(claims):
        yield f"claims {sorted(claims)}, but pods use {sorted(used)}"
    for name, spec in claims.items():
        slides = name.startswith("slides-")
        if spec.get("accessModes") != ["ReadOnlyMany" if slides else "ReadWriteMany"]:
            yield f"{name}: {spec.get('accessModes')}"
        if slides == bool(spec.get("storageClassName")) or slides != ("volumeName" in spec):
            yield f"{name}: neither the hospital's volume nor a new one"
        if not at(spec, "resources.requests.storage"):
            yield f"{name}: of no size"


def _namespace(found: list[dict[str, Any]]) -> Iterator[str]:
    for one in of_kind(found, "Namespace"):
        labels = at(one, "metadata.labels") or {}
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "the namespace lets anything run"
    accounts = of_kind(found, "ServiceAccount")
    if any(one.get("automountServiceAccountToken") is not False for one in accounts):
        yield "an account's token is given to every pod"
    named = {one["metadata"]["name"] for one in accounts}
    if named != {"rayfed-hn", "rayfed-hn-head"}:
        yield f"accounts {sorted(named)}"
