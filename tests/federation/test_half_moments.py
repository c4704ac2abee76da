"""pFedHN whose optimiser keeps its first moment in bfloat16, in whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from whole_runs import final_networks, plan

from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.loop import InProcessExecutor
from rayfed_hn.federation.record import RunRecord
from rayfed_hn.federation.site_host import SiteHost

HALF = ("method.name=pfedhn", "hypernetwork.moments=bfloat16")


@pytest.mark.parametrize("optimiser", ["momentum", "adam"])
def test_a_run_is_close_to_that_of_float32_and_repeats(bag_root: Path, optimiser: str) -> None:
    words = (f"hypernetwork.optimiser={optimiser}", "training.optimiser=momentum")
    one, again = (run_in_process(plan(bag_root, *HALF, *words)) for _ in range(2))
    assert one.digest == again.digest
    state = one.server.state()
    assert state["phi.head.moment0"].dtype == torch.bfloat16
    whole = final_networks(plan(bag_root, HALF[0], *words))
    for site, network in whole.items():
        found = torch.from_numpy(one.server.parameters_for(site))
        expected = torch.from_numpy(network)
        assert 0 < (found - expected).norm() < 0.05 * expected.norm()


def test_a_checkpoint_holds_them(bag_root: Path, tmp_path: Path) -> None:
    of = plan(bag_root, *HALF)
    outcome = run_in_process(of)
    server, record = of.server(), RunRecord(tmp_path, of)
    record.begin(outcome.server, of.begin_line())
    assert record.resume(server, of.executor(InProcessExecutor(SiteHost(of, ()))))
    for name, tensor in outcome.server.state().items():
        assert torch.equal(server.state()[name], tensor), name


@pytest.mark.parametrize("name", ["phi.head", "phi.head.moment0", "phi.bias", "site_embeddings"])
def test_a_digest_sees_every_value(bag_root: Path, name: str) -> None:
    outcome = run_in_process(plan(bag_root, *HALF))
    before = outcome.digest
    assert outcome.digest == before
    last = outcome.server.rule.state()[name].view(-1)[-1:]  # a view of what the rule keeps
    value = last.clone()
    last += 1.0
    assert outcome.digest != before
    last.copy_(value)
    assert outcome.digest == before
