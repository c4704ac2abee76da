"""TensorBoard's own reader finds settings, results and sites, by the names that were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from rayfed_hn.federation.board import FOLDER, results, settings, write_board
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.results import site_rows
from rayfed_hn.federation.site_map import write_site_map
from rayfed_hn.loading import load

WORDS = ["rounds.num_versions=2", "training.steps=2", "hypernetwork.embedding_dim=3"]


def plugin_data(found: EventAccumulator, tag: str) -> Any:
    content = found.SummaryMetadata(tag).plugin_data.content
    data: Any = plugin_data_pb2  # made by protoc, and not typed
    return data.HParamsPluginData.FromString(content)


@pytest.mark.parametrize("method", ["hypernetwork", "fedavg"])
def test_settings_results_and_sites(bag_root: Path, tmp_path: Path, method: str) -> None:
    plan = make_plan(load(None, [*WORDS, f"method.name={method}"]), bag_root)
    outcome = run_in_process(plan)
    rows = site_rows(plan, outcome.scores)
    sites = write_site_map(tmp_path, outcome.server)
    for _ in range(2):  # what was there before is gone
        write_board(tmp_path, plan.config, rows, sites)
    found = EventAccumulator(str(tmp_path / FOLDER))
    found.Reload()
    told = plugin_data(found, "_hparams_/session_start_info").session_start_info.hparams
    assert told["hypernetwork.embedding_dim"].number_value == 3
    assert told["method.name"].string_value == method
    assert set(told) == set(settings(plan.config))
    for tag, value in results(rows).items():
        (event,) = found.Scalars(tag)
        assert event.value == pytest.approx(value)
    projected = list((tmp_path / FOLDER).rglob("tensors.tsv"))
    assert len(projected) == (method == "hypernetwork")
    if projected:
        assert sites.embeddings is not None
        vectors = np.loadtxt(projected[0])
        np.testing.assert_allclose(vectors, sites.embeddings.rows_KE, rtol=1e-5)
        assert projected[0].with_name("metadata.tsv").read_text().split() == [*sites.sites]


def test_what_is_undefined_has_no_mean() -> None:
    rows = [
        {"readout": "last", "value": 0.5},
        {"readout": "last", "value": None},
        {"readout": "best", "value": None},
        {"readout": "last", "value": 1.0},
    ]
    assert results(rows) == {"test/mean site (last)": 0.75}
