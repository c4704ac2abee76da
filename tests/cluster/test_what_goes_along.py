"""What a job takes with it from a working directory: code and settings, never data or keys."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml
from laptop_cluster import ROOT

pytestmark = pytest.mark.ray

ALONG = ("rayfed_hn/cli.py", "rayfed_hn/models/x.py", "conf/own.yaml", "cluster/federation.sh")
STAYS = (
    *("slides/a.ndpi", "slides/a.mrxs", "slides/a.jpg", "slides/manifest.csv", "labels.csv"),
    *("features/a.pt", "out/pt_files/a.pt", "study_bags/site=north/a.arrow", "a.svs", ".venv/x"),
    *("pki/ca.key", "pki/site-north.key", "ledger.jsonl", "runs/one/config.yaml", ".git/config"),
)


def test_code_and_settings_go_along_and_nothing_else(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    folder, package = tmp_path / "checkout", tmp_path / "package.zip"
    for name in (*ALONG, *STAYS):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    excludes = yaml.safe_load((ROOT / "cluster" / "runtime_env.yaml").read_text())["excludes"]
    create_package(str(folder), package, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(package) as packed:
        files = {name for name in packed.namelist() if not name.endswith("/")}
    assert files == set(ALONG)
