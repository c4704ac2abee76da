"""What a cell says it moved: networks down, messages up, of every version and of the scoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.federation import cell as cell_module
from rayfed_hn.federation.cell import Cell, run_cell
from rayfed_hn.federation.messages import Request, TrainRequest
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.score_messages import CandidatesRequest
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.wire import Message
from rayfed_hn.loading import load

WORDS = ["rounds.num_versions=2", "training.steps=2", "compare.seeds=1", "compare.folds=3"]


@pytest.mark.parametrize("method", ["fedavg", "hypernetwork", "pooled"])
def test_bytes_are_those_of_what_was_sent_and_answered(
    bag_root: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, cell = load(None, WORDS), Cell(method, 0, 0)
    plan = make_plan(cell.config(config), bag_root)
    down: list[tuple[type, int]] = []
    up: list[tuple[type, int]] = []

    def answer(self: SiteHost, request: Request) -> Message:
        message = asked(self, request)
        if isinstance(request, TrainRequest):
            down.append((TrainRequest, request.parameters.nbytes))
        if isinstance(request, CandidatesRequest):
            size = request.parameters.nbytes + request.shared_SP.nbytes
            down.append((CandidatesRequest, size))
        up.append((type(request), len(message)))
        return message

    asked = SiteHost.answer
    monkeypatch.setattr(SiteHost, "answer", answer)
    costs = run_cell(cell, config, bag_root)["costs"]
    sites, network = len(plan.participants), 4 * plan.initial().numel()
    assert [version["version"] for version in costs["versions"]] == [1, 2]
    assert [version["bytes_down"] for version in costs["versions"]] == [sites * network] * 2
    training = sum(size for kind, size in down if kind is TrainRequest)
    assert sum(version["bytes_down"] for version in costs["versions"]) == training
    assert costs["scoring"]["bytes_down"] == sum(s for k, s in down if k is CandidatesRequest)
    told = sum(version["bytes_up"] for version in costs["versions"])
    assert told + costs["scoring"]["bytes_up"] == sum(size for _, size in up)
    updates = sum(size for kind, size in up if kind is TrainRequest)
    assert updates > 2 * sites * network
    assert costs["versions"][1]["bytes_up"] == pytest.approx(updates / 2, rel=1e-3)
    assert costs["time"] is None
    assert costs["seconds"] > 0


def test_counting_changes_nothing(bag_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, cell = load(None, WORDS), Cell("hypernetwork", 0, 0)
    counted = run_cell(cell, config, bag_root)
    run = cell_module.run_in_process
    monkeypatch.setattr(
        cell_module, "run_in_process", lambda plan, on, tell, _: run(plan, on, tell)
    )
    plain = run_cell(cell, config, bag_root)
    assert plain["scores"] == counted["scores"]
    assert plain["costs"]["versions"][0]["bytes_down"] == 0  # else this test shows nothing


def test_simulated_time_is_told(bag_root: Path) -> None:
    config = load(None, [*WORDS, "simulation.enabled=true"])
    costs = run_cell(Cell("fedavg", 0, 0), config, bag_root)["costs"]
    assert costs["time"] > 0
    assert run_cell(Cell("pooled", 0, 0), config, bag_root)["costs"]["time"] is None
