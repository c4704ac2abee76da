"""What our manifests promise beyond their schema: whom pods reach, and what they keep where."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from manifests import COMPONENT, PART, at, claims_of, of_kind, pod_templates

LARGEST = 2**16  # addresses of a block that only holds endpoints of Kubernetes


def network(found: list[dict[str, Any]]) -> Iterator[str]:
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
    monitoring, metrics = _namespace_of("REPLACE-MONITORING"), [{"protocol": "TCP", "port": 8080}]
    if general.get("ingress") != [
        {"from": [ours]},
        {"from": [operator], "ports": dashboard},
        {"from": [monitoring], "ports": metrics},
    ]:
        yield "ingress is not what it should be"
    if general.get("egress") != [{"to": [ours]}, {"to": [names], "ports": dns}]:
        yield "egress is not what it should be"
    yield from _kubernetes(head.get("egress") or [])


def _kubernetes(egress: list[dict[str, Any]]) -> Iterator[str]:
    """One endpoint of the control plane or several, and not half of the world."""
    if len(egress) != 1:
        yield f"the head reaches {len(egress)} kinds of places outside, not Kubernetes alone"
    for rule in egress:
        peers, ports = rule.get("to") or [], rule.get("ports") or []
        if not peers or not all(_few_addresses(peer) for peer in peers):
            yield f"the head reaches {peers}"
        if ports != [{"protocol": "TCP", "port": port} for port in (443, 6443)]:
            yield f"the head reaches ports {ports}"


def _few_addresses(peer: dict[str, Any]) -> bool:
    """Whether it is a block of addresses no larger than a subnet, or to be replaced by one."""
    cidr = at(peer, "ipBlock.cidr")
    if peer != {"ipBlock": {"cidr": cidr}}:
        return False
    try:
        return cidr == "REPLACE-API-SERVER" or ip_network(cidr).num_addresses <= LARGEST
    except ValueError:
        return False


def _namespace_of(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def claims(found: list[dict[str, Any]]) -> Iterator[str]:
    named = {
        one["metadata"]["name"]: one["spec"] for one in of_kind(found, "PersistentVolumeClaim")
    }
    used = {name for one in pod_templates(found) for name in claims_of(one["spec"])}
    if used != set(named):
        yield f"claims {sorted(named)}, but pods use {sorted(used)}"
    for name, spec in named.items():
        slides = name.startswith("slides-")
        if spec.get("accessModes") != ["ReadOnlyMany" if slides else "ReadWriteMany"]:
            yield f"{name}: {spec.get('accessModes')}"
        if slides == bool(spec.get("storageClassName")) or slides != ("volumeName" in spec):
            yield f"{name}: neither the hospital's volume nor a new one"
        if not at(spec, "resources.requests.storage"):
            yield f"{name}: of no size"


def namespace(found: list[dict[str, Any]]) -> Iterator[str]:
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
