"""What a run of train leaves is all that predict, export-model and heatmap need."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from command_line import run_verb

from rayfed_hn.bags.store import SiteBags
from rayfed_hn.federation.data import _opaque

pytestmark = pytest.mark.ray
SHORT = ("rounds.num_versions=2", "training.steps=2", "resources.sites_per_actor=9")


@pytest.mark.usefixtures("ray_session")
def test_train_then_predict_and_export(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bag_root: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "out.csv"
    words = [f"data.bags={bag_root}", f"run.dir={run}", "data.leave_out=west", *SHORT]
    assert run_verb(monkeypatch, "train", *words) == 0
    assert run_verb(monkeypatch, "predict", run, "--to", out) == 0
    with out.open(newline="") as file:
        rows = {(row["site"], row["slide_id"]): row for row in csv.DictReader(file)}
    assert len(rows) == 30
    assert {row["network"] for (site, _), row in rows.items() if site == "west"} == {"shared"}
    checked = 0
    for site in ("north", "south"):
        bags = SiteBags(bag_root, site)
        names = {_opaque(e.slide_id, bags.salt): e.slide_id for e in bags.entries}
        for score in pq.read_table(run / "sites" / site / "scores.parquet").to_pylist():
            if (score["readout"], score["unit"]) == ("mixture", "slide"):
                own = rows[site, names[score["slide"]]]
                assert float(own["probability_tumour"]) == pytest.approx(score["score"], abs=2e-6)
                checked += 1
    assert checked >= 4
    assert (
        run_verb(monkeypatch, "export-model", run, "--site", "north", "--to", tmp_path / "m") == 0
    )
    program = torch.export.load(str(tmp_path / "m" / "north.pt2")).module()
    bags = SiteBags(bag_root, "north")
    said = program(torch.tensor(bags.load(0).features_ND)).tolist()
    own = rows["north", bags.entries[0].slide_id]
    assert said == pytest.approx(
        [float(own["probability_normal"]), float(own["probability_tumour"])], abs=1e-6
    )
    card = (tmp_path / "m" / "MODEL_CARD.md").read_text()
    for site in json.loads((run / "summary.json").read_text())["sites"]:
        assert f"{site['site']}" in card
