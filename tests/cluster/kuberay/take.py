"""Takes the schemas of KubeRay's CRDs: ``python take.py KUBERAY/.git TAG``; needs git alone."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import yaml

CRDS = "helm-chart/kuberay-operator/crds/ray.io_{}.yaml"
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}


def main(git: str, tag: str) -> None:
    """Write the schema of ``ray.io/v1`` of every kind into one file beside this one."""
    schemas = {}
    for kind, plural in KINDS.items():
        show = ["git", "--git-dir", git, "show", f"{tag}:{CRDS.format(plural)}"]
        crd = yaml.safe_load(subprocess.run(show, capture_output=True, check=True).stdout)
        assert crd["spec"]["names"]["kind"] == kind
        (version,) = (one for one in crd["spec"]["versions"] if one["name"] == "v1")
        schemas[kind] = version["schema"]["openAPIV3Schema"]
    text = json.dumps(schemas, sort_keys=True, separators=(",", ":"))
    target = Path(__file__).with_name(f"kuberay-{tag}.json.gz")
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
