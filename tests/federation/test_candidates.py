"""The networks that a site offers to the mixture readout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from one_site import RAW, ask, plan, trained_by_hand
from safetensors.torch import load_file

from rayfed_hn.federation.experiment import Outcome, finish, run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, evaluate_sites, run_federation
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    EvaluateRequest,
    Request,
    TrainRequest,
    read_answer,
)
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Binary

BINARY = Binary(("normal", "tumour"))


def test_the_candidates_of_a_site_are_the_averages_of_what_it_trained(
    bag_root: Path, tmp_path: Path
) -> None:
    training = plan(bag_root, "method.name=fedavg", RAW)
    server = training.server()
    executor = InProcessExecutor(SiteHost(training, training.participants, tmp_path))
    trained: dict[str, list[np.ndarray]] = {site: [] for site in server.sites}
    shared: list[np.ndarray] = []
    for report in run_federation(server, executor):
        for update in report.updates:
            received = training.initial().numpy() if not shared else shared[-1]
            trained[update.site].append(received - update.update)
        shared.append(server.parameters_for("north"))
    scores, _ = evaluate_sites(server, executor)
    for found in scores:
        kept = load_file(tmp_path / "sites" / found.site / "network_mixture.safetensors")
        histories = (shared, trained[found.site])
        expected = [average(values[:end]) for values in histories for end in (1, 2, 4)]
        np.testing.assert_allclose(kept["candidates"].numpy(), np.stack(expected), atol=1e-6)
        test = training.site(found.site).data.test
        odds = [
            score_bags(training.model(), one, test, BINARY).evidence_BE[:, 0]
            for one in kept["candidates"]
        ]
        mixed = kept["weights"].numpy()[0] @ np.stack(odds)
        np.testing.assert_allclose(found.mixture_BE[:, 0], mixed, rtol=1e-4, atol=1e-6)


def average(values: list[np.ndarray]) -> np.ndarray:
    ages = np.arange(len(values))[::-1]
    return np.average(np.stack(values), axis=0, weights=0.8**ages)


def test_without_the_mixture_readout_it_is_the_last_network(bag_root: Path) -> None:
    last = plan(bag_root, "evaluation.readout=last")
    outcome = run_in_process(last)
    for scores in outcome.scores:
        theta = torch.from_numpy(outcome.server.parameters_for(scores.site))
        data = last.site(scores.site).data
        known_BE, asked_BE = (
            score_bags(last.model(), theta, bags, BINARY).evidence_BE
            for bags in (data.validation, data.test)
        )
        assert known_BE.std() > 0
        np.testing.assert_allclose(scores.mixture_BE, asked_BE, rtol=1e-4)


def test_a_tuned_network_is_the_last_of_the_own_candidates(bag_root: Path, tmp_path: Path) -> None:
    tuning = plan(bag_root, "method.name=fedavg_ft", RAW)
    site, theta = tuning.site("north", tmp_path), tuning.initial()
    ask(site, 0, theta)
    judge = CandidatesRequest("north", 4, theta.numpy(), np.stack([theta.numpy()] * 3), 1)
    site.answer(judge)
    site.answer(EvaluateRequest("north", 4, np.full(6, 0.5)))
    kept = load_file(tmp_path / "network_mixture.safetensors")["candidates"]
    own = trained_by_hand(tuning, site, theta, 0, "fine-tuning", num_steps=15)
    assert torch.equal(kept[-1], own)
    assert not torch.equal(kept[-2], own)


def test_a_site_that_was_never_asked_has_as_many_candidates(bag_root: Path) -> None:
    usual = plan(bag_root)
    site, theta = usual.site("north"), usual.initial()
    judge = CandidatesRequest("north", 4, theta.numpy(), np.stack([theta.numpy()] * 3), 0)
    opinion = read_answer(judge, site.answer(judge))
    assert opinion.metric_OC.shape == (1, 6)  # type: ignore[union-attr]


def test_a_network_of_another_length_is_refused_everywhere(bag_root: Path) -> None:
    usual = plan(bag_root)
    theta = usual.initial().numpy()
    site, whole = usual.site("north"), np.stack([theta] * 3)
    bad = whole.copy()
    bad[1, 5] = np.nan
    for request in (
        TrainRequest("north", 0, theta[:-1], 0),
        CandidatesRequest("north", 4, theta[:-1], whole, 0),
        CandidatesRequest("north", 4, theta, whole[:, :-1], 0),
        CandidatesRequest("north", 4, theta, bad, 0),
        CandidatesRequest("north", 4, theta, whole[:2], 0),  # three moments, or none
        CandidatesRequest("north", 4, theta, np.stack([theta] * 4), 0),
    ):
        event = read_answer(request, site.answer(request))
        assert "refused the request" in event.reason  # type: ignore[union-attr]


# -- where nobody waits ------------------------------------------------------------------------


class Sent(InProcessExecutor):
    """Keeps the network that every request came with."""

    def __init__(self, plan: Plan, folder: Path | None) -> None:
        super().__init__(SiteHost(plan, plan.participants, folder))
        self.networks: dict[tuple[str, int], np.ndarray] = {}

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if isinstance(request, TrainRequest):
                self.networks[request.site, request.turn] = request.parameters
        super().submit(requests)


def simulated(
    plan: Plan, folder: Path | None
) -> tuple[Outcome, dict[str, list[np.ndarray]], Counter[str]]:
    """Train; what the accepted updates of every site trained, and how often each was asked."""
    server, inner = plan.server(), Sent(plan, folder)
    executor = plan.executor(inner)
    trained: dict[str, list[np.ndarray]] = {site: [] for site in server.sites}
    for report in run_federation(server, executor):
        for update in report.updates:
            received = inner.networks[update.site, update.turn]
            trained[update.site].append(received - update.update)
    return finish(plan, server, executor), trained, Counter(site for site, _ in inner.networks)


BUFFERED = [
    *("method.name=fedavg", "rounds.buffer_size=1", "rounds.num_versions=30"),
    *("simulation.enabled=true", "simulation.slowest=8"),
]


def test_what_is_delivered_after_the_last_version_is_no_part_of_the_candidates(
    bag_root: Path, tmp_path: Path
) -> None:
    outcome, trained, asked = simulated(plan(bag_root, *BUFFERED, RAW), tmp_path)
    counts = outcome.server.num_updates
    assert counts == {site: len(values) for site, values in trained.items()}
    assert len({0, *counts.values()}) == 4  # some are faster
    assert asked.total() == sum(counts.values()) + 2  # all others were still at work
    for site, values in trained.items():
        kept = load_file(tmp_path / "sites" / site / "network_mixture.safetensors")
        np.testing.assert_allclose(kept["candidates"][-1].numpy(), average(values), atol=1e-6)


def test_the_candidates_of_a_simulated_run_are_the_same_in_memory_and_on_disk(
    bag_root: Path, tmp_path: Path
) -> None:
    private = plan(bag_root, *BUFFERED, "method.name=fedper")
    in_memory, on_disk = (simulated(private, folder)[0] for folder in (None, tmp_path))
    for one, other in zip(in_memory.scores, on_disk.scores, strict=True):
        np.testing.assert_array_equal(one.last_BE, other.last_BE)
        np.testing.assert_array_equal(one.mixture_BE, other.mixture_BE)


def test_a_site_whose_last_updates_came_too_late_is_scored_all_the_same(
    bag_root: Path, tmp_path: Path
) -> None:
    durations = tmp_path / "durations.csv"
    durations.write_text("site,seconds\nnorth,1\nsouth,1\nwest,1\n" + "west,6\n" * 9)
    late = ["rounds.max_staleness=3", "rounds.num_versions=43", f"simulation.durations={durations}"]
    training = plan(bag_root, *BUFFERED, *late, RAW, "training.steps=1", "method.name=fedper")
    in_memory, on_disk = (simulated(training, folder)[0] for folder in (None, tmp_path))
    assert on_disk.server.num_updates["west"] == 1
    assert on_disk.server.num_refused >= 3
    assert [scores.site for scores in on_disk.scores] == ["north", "south", "west"]
    for one, other in zip(in_memory.scores, on_disk.scores, strict=True):
        np.testing.assert_array_equal(one.last_BE, other.last_BE)
        np.testing.assert_array_equal(one.mixture_BE, other.mixture_BE)
    last = load_file(tmp_path / "sites" / "west" / "network_last.safetensors")
    start = ParameterLayout.of(training.model()).unflatten(training.initial())
    # With the classifier that it has trained, and not with the one it began with.
    assert not torch.equal(last["classifier.weight"], start["classifier.weight"])


@pytest.mark.parametrize("readout", ["last", "best", "mixture"])
def test_averages_are_kept_for_the_mixture_only(bag_root: Path, readout: str) -> None:
    server = run_in_process(plan(bag_root, f"evaluation.readout={readout}")).server
    kept = [name for name in server.state() if name.startswith("shared.")]
    assert bool(kept) == (readout == "mixture")
    assert len(server.shared_candidates()) == (3 if readout == "mixture" else 0)
