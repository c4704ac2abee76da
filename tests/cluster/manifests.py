"""What a Kubernetes with KubeRay would say to our manifests, without one.

Kubernetes drops fields that it does not know in silence, so here they are errors: a typo in a
security setting must not pass.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

KUBERAY = Path(__file__).parents[2] / "cluster" / "kuberay"
SCHEMAS = Path(__file__).parent / "kuberay" / "kuberay-v1.7.0.json.gz"
PART, COMPONENT = "app.kubernetes.io/part-of", "app.kubernetes.io/component"
TEXT = {"type": "string"}
WORDS = {"type": "object", "additionalProperties": TEXT}
METADATA = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": TEXT, "namespace": TEXT, "labels": WORDS, "annotations": WORDS},
}


def documents(*names: str) -> list[dict[str, Any]]:
    """All documents of some files of cluster/kuberay, or of all that are for Kubernetes."""
    files = [KUBERAY / name for name in names] or [
        path for path in sorted(KUBERAY.glob("*/*.yaml")) if path.name != "kustomization.yaml"
    ]
    found = [one for path in files for one in yaml.safe_load_all(path.read_text())]
    return json.loads(json.dumps(found))  # what YAML shares by anchors is shared no more


def whole() -> list[dict[str, Any]]:
    """All documents, with the job's cluster filled in as kustomize does."""
    found = documents()
    cluster, job = of_kind(found, "RayCluster")[0], of_kind(found, "RayJob")[0]
    job["spec"]["rayClusterSpec"] = copy.deepcopy(cluster["spec"])
    return found


def of_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in found if one.get("kind") == kind]


def at(value: Any, path: str) -> Any:
    """What lies under a path of keys; None where nothing does."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


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


def claims_of(pod: dict[str, Any]) -> Iterator[str]:
    for volume in pod.get("volumes") or []:
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"]


def complaints(document: dict[str, Any]) -> list[str]:
    """What the schema of a document's kind has against it."""
    kind = str(document.get("kind"))
    if kind not in schemas():
        return [f"kind: {kind!r} is not one of {sorted(schemas())}"]
    validator = jsonschema.Draft202012Validator(schemas()[kind])
    found = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)]
    return found + list(_twice(document, schemas()[kind]))


@cache
def schemas() -> dict[str, Any]:
    """By kind: KubeRay's own, and those of Kubernetes that can be taken out of them."""
    crds = json.loads(gzip.decompress(SCHEMAS.read_bytes()))
    spec = crds["RayCluster"]["properties"]["spec"]["properties"]
    rules = spec["networkPolicy"]["properties"]["head"]["properties"]
    pod = spec["headGroupSpec"]["properties"]["template"]["properties"]["spec"]["properties"]
    claim = pod["volumes"]["items"]["properties"]["ephemeral"]["properties"]["volumeClaimTemplate"]
    peer = rules["ingressRules"]["items"]["properties"]["from"]["items"]["properties"]
    policy = {
        "type": "object",
        "required": ["podSelector", "policyTypes"],
        "properties": {
            "podSelector": peer["podSelector"],
            "policyTypes": {"type": "array", "items": {"enum": ["Ingress", "Egress"]}},
            "ingress": rules["ingressRules"],
            "egress": rules["egressRules"],
        },
    }
    automount = {"automountServiceAccountToken": {"type": "boolean"}}
    found = {
        "RayCluster": _kind("ray.io/v1", spec=crds["RayCluster"]["properties"]["spec"]),
        "RayJob": _kind("ray.io/v1", spec=crds["RayJob"]["properties"]["spec"]),
        "NetworkPolicy": _kind("networking.k8s.io/v1", spec=policy),
        "PersistentVolumeClaim": _kind("v1", spec=claim["properties"]["spec"]),
        "ServiceAccount": _kind("v1", **automount),
        "Namespace": _kind("v1"),
    }
    return {kind: _strict(schema) for kind, schema in found.items()}


def _kind(version: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", *properties],
        "properties": {
            "apiVersion": {"const": version},
            "kind": TEXT,
            "metadata": METADATA,
            **properties,
        },
    }


def _strict(schema: Any) -> Any:
    """A structural schema of Kubernetes as a JSON schema that refuses what it does not name."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {
        key: {name: _strict(one) for name, one in value.items()}
        if key == "properties"
        else _strict(value)
        for key, value in schema.items()
    }
    if strict.pop("x-kubernetes-int-or-string", False):
        strict["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if strict.pop("nullable", False):
        strict["type"] = [strict["type"], "null"]
    if "properties" in strict and not strict.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


def _twice(value: Any, schema: dict[str, Any], where: str = "$") -> Iterator[str]:
    """Entries of lists that are maps by some of their fields and hold a key twice."""
    if isinstance(value, dict):
        for key, one in value.items():
            part = schema.get("properties", {}).get(key)
            if part is not None:
                yield from _twice(one, part, f"{where}.{key}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        keys = schema.get("x-kubernetes-list-map-keys")
        seen = [tuple(one.get(key) for key in keys) for one in value] if keys else []
        yield from (f"{where}: {one} twice" for one in set(seen) if seen.count(one) > 1)
        for number, one in enumerate(value):
            yield from _twice(one, schema["items"], f"{where}[{number}]")
