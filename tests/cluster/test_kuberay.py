"""The manifests for Kubernetes fit KubeRay's schema and keep their promises; faults are seen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from broken_keys import Where, inside, uncaught
from cluster_rules import objections
from manifests import KUBERAY, at, complaints, documents, of_kind, pod_templates, whole

import rayfed_hn

CLUSTER = ("cluster/cluster.yaml",)
HEAD: Where = ("spec", "headGroupSpec", "template", "spec")
NORTH: Where = ("spec", "workerGroupSpecs", 0, "template", "spec")
GPU: Where = ("spec", "workerGroupSpecs", 2, "template", "spec")
OBJECTS = "object-store-memory"
TMP = {"name": "tmp", "mountPath": "/tmp"}
CA = {"configMap": {"name": "kube-root-ca.crt"}}
NO_GROUP = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def test_all_manifests_are_valid() -> None:
    found = whole()
    assert {one["kind"]: complaints(one) for one in found if complaints(one)} == {}
    assert objections(found) == []
    assert len(pod_templates(found)) == 2 * 4 + 1


@pytest.mark.parametrize("number", range(len(documents())))
def test_every_misspelt_key_is_caught(number: int) -> None:
    rest = documents()

    def problems(document: dict[str, Any]) -> list[str]:
        return complaints(document) or objections([*rest[:number], document, *rest[number + 1 :]])

    assert uncaught(rest[number], problems) == []


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("spec", "authOptions", "mode"), "disabled", "authOptions.mode is 'disabled'"),
        (("spec", "authOptions", "mode"), "tokens", "'tokens' is not one of"),
        (("spec", "authOptions"), None, "None is not of type 'object'"),
        (("spec", "tlsOptions", "enabled"), "true", "'true' is not of type 'boolean'"),
        (("spec", "tlsOptions", "enabled"), False, "tlsOptions.enabled is False"),
        (("spec", "rayVersion"), "2.51.0", "rayVersion is 2.51.0"),
        (("spec", "rayVersion"), 2.6, "2.6 is not of type 'string'"),
        ((*HEAD, "hostNetwork"), True, "hostNetwork is True"),
        ((*HEAD, "securityContext", "runAsNonRoot"), "yes", "'yes' is not of type 'boolean'"),
        ((*HEAD, "securityContext", "runAsUser"), 0, "securityContext.runAsUser is 0"),
        ((*HEAD, "automountServiceAccountToken"), True, "automountServiceAccountToken is True"),
        ((*HEAD, "containers"), [], "there is no container"),
        ((*HEAD, "unheardOf"), 1, "'unheardOf' was unexpected"),
        ((*NORTH, "securityContext", "runAsRoot"), False, "'runAsRoot' was unexpected"),
        ((*NORTH, "containers", 0, "securityContext", "privileged"), True, "privileged is True"),
        (
            (*NORTH, "containers", 0, "securityContext", "capabilities", "drop"),
            ["NET_RAW"],
            "capabilities.drop is ['NET_RAW']",
        ),
        (
            (*NORTH, "containers", 0, "securityContext", "readOnlyRootFilesystem"),
            False,
            "readOnlyRootFilesystem is False",
        ),
        ((*NORTH, "containers", 0, "resources", "limits", "memory"), "64Gi", "requests are not"),
        ((*NORTH, "containers", 0, "resources", "limits", "memory"), "32 gigs", "does not match"),
        ((*NORTH, "containers", 0, "livenessProbe", "httpGet", "port"), 8265, "livenessProbe asks"),
        ((*NORTH, "containers", 0, "volumeMounts", 5, "readOnly"), False, "slides can be changed"),
        ((*NORTH, "volumes", 5, "persistentVolumeClaim", "claimName"), "slides-south", "with ["),
        (("spec", "workerGroupSpecs", 0, "labels", "hospital"), "south", "north: labelled south"),
        (("spec", "workerGroupSpecs", 2, "minReplicas"), 1, "gpu: begins with more than nothing"),
        (("spec", "workerGroupSpecs", 0, "replicas"), "1", "'1' is not of type 'integer'"),
        (("spec", "headGroupSpec", "rayStartParams", OBJECTS), "4200000000", "head: objects of"),
        (("spec", "workerGroupSpecs", 0, "rayStartParams", OBJECTS), "0", "north: objects of 0"),
        (("spec", "workerGroupSpecs", 2, "rayStartParams"), {}, "gpu: objects of None bytes"),
        ((*NORTH, "volumes", 1, "emptyDir", "sizeLimit"), "3Gi", "do not fit into /dev/shm"),
        ((*HEAD, "containers", 0, "env"), [{"name": "HOME", "value": "/tmp"}], "head: environment"),
        ((*NORTH, "containers", 0, "env", 1, "value"), "3", "hospital: environment"),
        ((*NORTH, "containers", 0, "env", 0, "value"), "/", "hospital: environment"),
        (("spec", "headGroupSpec", "serviceType"), "LoadBalancer", "serviceType is 'LoadBalancer'"),
        (("spec", "headGroupSpec", "enableIngress"), True, "enableIngress is True"),
        (("spec", "headGroupSpec", "headService"), {"spec": {}}, "headService is {'spec': {}}"),
        (("spec", "headGroupSpec", "rayStartParams", "num-gpus"), "1", "head: starts with ["),
        (("spec", "headGroupSpec", "resources"), {"CPU": "0"}, "head: not what its pod has"),
        (
            ("spec", "workerGroupSpecs", 0, "rayStartParams", "num-cpus"),
            "0",
            "north: starts with [",
        ),
        (("spec", "workerGroupSpecs", 0, "resources"), {"CPU": "0"}, "north: not what its pod"),
        (("spec", "autoscalerOptions", "volumeMounts"), [TMP], "the autoscaler has no token"),
        (("spec", "autoscalerOptions", "volumeMounts", 1, "mountPath"), "/t", "has no token"),
        ((*HEAD, "volumes", 6, "projected", "sources"), [], "the autoscaler has no token"),
        ((*HEAD, "volumes", 6, "projected", "sources", 0), CA, "the autoscaler has no token"),
        ((*HEAD, "containers", 0, "volumeMounts", 0, "name"), "kubernetes", "a job sees its token"),
        ((*HEAD, "containers", 0, "volumeMounts", 4, "mountPath"), "/bags/site=east", "is at"),
        ((*HEAD, "volumes", 4, "persistentVolumeClaim", "claimName"), "bags-south", "is at"),
        ((*HEAD, "initContainers"), [{"name": "first"}], "initContainers is ["),
        ((*NORTH, "containers", 0, "volumeMounts", 4, "mountPath"), "/bags/site=south", "is at"),
        ((*NORTH, "containers", 0, "volumeMounts", 5, "mountPath"), "/bags/slides", "is at"),
        ((*NORTH, "containers", 0, "volumeMounts", 2, "mountPath"), "/run", "runs is at"),
        ((*NORTH, "volumes", 0), {"name": "tmp", "hostPath": {"path": "/"}}, "of no kind"),
        ((*NORTH, "securityContext", "fsGroup"), 0, "securityContext.fsGroup is 0"),
        ((*NORTH, "securityContext", "fsGroup"), None, "None is not of type 'integer'"),
        ((*NORTH, "securityContext"), NO_GROUP, "securityContext.fsGroup is None"),
        ((*NORTH, "securityContext", "supplementalGroups"), [0], "supplementalGroups is [0]"),
        ((*GPU, "tolerations"), [], "gpu: may not run where GPUs are"),
        ((*GPU, "tolerations", 0, "effect"), "NoExecute", "gpu: may not run where GPUs are"),
    ],
    ids=str,
)
def test_faults_in_the_cluster_are_caught(where: Where, value: Any, said: str) -> None:
    (cluster,) = documents(*CLUSTER)
    inside(cluster, where[:-1])[where[-1]] = value
    found = complaints(cluster)
    if not found:
        rest = [one for one in documents() if one["kind"] != "RayCluster"]
        found = objections([cluster, *rest])
    assert any(said in text for text in found), found


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("spec", "entrypoint"), "rayfed-hn train run.dir=/runs/a", "without run.resume=true"),
        (("spec", "entrypoint"), ["rayfed-hn", "train"], "is not of type 'string'"),
        (("spec", "backoffLimit"), "3", "'3' is not of type 'integer'"),
        (("spec", "backoffLimit"), 0, "backoffLimit is 0"),
        (("spec", "shutdownAfterJobFinishes"), False, "shutdownAfterJobFinishes is False"),
        (("spec", "clusterSelector"), {"ray.io/cluster": "a"}, "clusterSelector is"),
        (("spec", "submissionMode"), "Sidecar", "submissionMode is 'Sidecar'"),
    ],
    ids=str,
)
def test_faults_in_the_job_are_caught(where: Where, value: Any, said: str) -> None:
    found = documents()
    (job,) = of_kind(found, "RayJob")
    inside(job, where[:-1])[where[-1]] = value
    said_all = complaints(job) + objections(found)
    assert any(said in text for text in said_all), said_all


def network(number: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All documents, and of one network policy what it allows."""
    found = documents()
    return found, of_kind(found, "NetworkPolicy")[number]["spec"]


def test_prometheus_reaches_figures_and_nothing_else() -> None:
    """Those that docs/operations.md speaks of, where KubeRay's PodMonitor finds them."""
    found, spec = network(0)
    (rule,) = [one for one in spec["ingress"] if "REPLACE-MONITORING" in str(one)]
    assert [one["port"] for one in rule["ports"]] == [8080]
    (head,) = (one["spec"]["headGroupSpec"] for one in of_kind(found, "RayCluster"))
    ports = head["template"]["spec"]["containers"][0]["ports"]
    assert {"name": "metrics", "containerPort": 8080} in ports
    assert objections(found) == []
    rule["ports"].append({"protocol": "TCP", "port": 8265})
    assert objections(found) == ["ingress is not what it should be"]
    spec["ingress"].remove(rule)
    assert objections(found) == ["ingress is not what it should be"]


@pytest.mark.parametrize(
    ("blocks", "fine"),
    [
        (["REPLACE-API-SERVER"], True),
        (["172.20.0.1/32"], True),
        (["10.0.1.17/32", "10.0.2.44/32", "fd00::5/128"], True),
        (["10.0.0.0/20"], True),
        (["0.0.0.0/0"], False),
        (["10.0.1.17/32", "10.0.0.0/8"], False),
        (["::/0"], False),
        (["10.0.1.17/20"], False),  # not the beginning of a block: Kubernetes refuses it
        (["kubernetes.default"], False),
        ([], False),
    ],
    ids=str,
)
def test_kubernetes_may_have_several_endpoints(blocks: list[str], fine: bool) -> None:
    """Managed and replicated ones have two or three; a service's address is none of them."""
    found, head = network(1)
    (rule,) = head["egress"]
    assert len(rule["to"]) == 1
    rule["to"] = [{"ipBlock": {"cidr": block}} for block in blocks]
    assert (objections(found) == []) == fine
    rule["to"] = [{"podSelector": {}}]
    assert objections(found) == ["the head reaches [{'podSelector': {}}]"]


def test_entries_that_are_there_twice_are_caught() -> None:
    (cluster,) = documents(*CLUSTER)
    container = inside(cluster, (*HEAD, "containers", 0))
    container["env"] *= 2
    assert any("('HOME',) twice" in text for text in complaints(cluster))


def test_every_chart_is_of_a_repository_that_the_page_adds() -> None:
    """A fresh helm knows none."""
    page = (KUBERAY.parent / "README.md").read_text()
    added = dict(re.findall(r"^helm repo add (\S+) (\S+)$", page, re.MULTILINE))
    charts = re.findall(r"^helm install \S+ (\S+)/\S+ ", page, re.MULTILINE)
    assert sorted(added) == sorted(charts)
    assert charts
    assert page.index("helm repo add") < page.index("helm install")
    assert all(f"`{address}`" in page for address in added.values())


def test_no_secret_is_in_a_file() -> None:
    assert not [one for one in documents() if one["kind"] == "Secret"]
    for path in KUBERAY.glob("*/*.yaml"):
        assert not any(word in path.read_text() for word in ("stringData", "BEGIN ")), path


@pytest.mark.parametrize("folder", ["cluster", "job"])
def test_kustomizations_name_files_and_images_that_are_there(folder: str) -> None:
    path = KUBERAY / folder
    found = yaml.safe_load((path / "kustomization.yaml").read_text())
    allowed = {"apiVersion", "kind", "namespace", "resources", "images", "replacements", "patches"}
    assert set(found) <= allowed
    assert found["namespace"] == "rayfed-hn"
    for name in found["resources"]:
        assert (path / name).exists(), name
    listed = {(path / name).resolve() for name in found["resources"]}
    assert {one for one in path.glob("*.yaml") if one.name != "kustomization.yaml"} <= listed
    used = {one["image"] for t in pod_templates(documents()) for one in t["spec"]["containers"]}
    if folder == "cluster":
        assert {one["name"] for one in found["images"]} == used
        for one in found["images"]:
            assert one["newTag"].startswith(f"{rayfed_hn.__version__}-")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here to try it with")
@pytest.mark.parametrize("folder", ["cluster", "job"])
def test_kustomize_makes_of_them_what_is_checked(folder: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERAY / folder)], capture_output=True, text=True, check=True
    )
    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}
    wanted = {(one["kind"], one["metadata"]["name"]): one for one in whole()}
    del wanted[("RayJob", "train") if folder == "cluster" else ("RayCluster", "rayfed-hn")]
    assert made.keys() == wanted.keys()
    for key, one in made.items():
        assert one["metadata"].pop("namespace", "rayfed-hn") == "rayfed-hn"
        assert complaints(one) == []
        text = json.dumps(one)
        for kind in ("cpu", "cuda"):
            image = f"REPLACE-REGISTRY/rayfed-hn:{rayfed_hn.__version__}-{kind}"
            text = text.replace(image, "rayfed-hn-cuda" if kind == "cuda" else "rayfed-hn")
        assert json.loads(text) == wanted[key], key
    assert at(made.get(("RayJob", "train"), {}), "spec.rayClusterSpec") or folder == "cluster"
