"""Before training, sites agree on the scale of their features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as serialise

from rayfed_hn.bags import store
from rayfed_hn.errors import FederationError, MessageError
from rayfed_hn.federation.experiment import Outcome, prepare, run_in_process
from rayfed_hn.federation.failures import failure_message
from rayfed_hn.federation.loop import InProcessExecutor
from rayfed_hn.federation.messages import (
    FeatureStatistics,
    Prepared,
    PrepareRequest,
    Request,
    SiteLost,
    StatisticsRequest,
    TrainRequest,
    read_answer,
)
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.wire import Message
from rayfed_hn.loading import load
from rayfed_hn.models.standardise import Standardisation, agree, measure

SHORT = ["rounds.num_versions=3", "training.steps=4", "training.learning_rate=0.01"]
DIM = 12


def planned(bag_root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), bag_root)


def scale_of(outcome: Outcome) -> Standardisation:
    assert outcome.server.standardisation is not None
    return outcome.server.standardisation


def test_the_scale_is_of_training_bags_with_equal_weights_for_sites(bag_root: Path) -> None:
    plan = planned(bag_root)
    expected = agree(
        [measure(bag.features_ND for bag in plan.site(n).data.train) for n in plan.participants]
    )
    scale = scale_of(run_in_process(plan))
    np.testing.assert_array_equal(scale.centre_D, expected.centre_D)
    np.testing.assert_array_equal(scale.deviation_D, expected.deviation_D)


def test_a_shared_scale_is_the_same_as_bags_on_that_scale(bag_root: Path, tmp_path: Path) -> None:
    outcome = run_in_process(planned(bag_root))
    scale = scale_of(outcome)
    store.create(tmp_path, {"encoder": "scaled", "feature_dim": DIM})
    for site in store.list_sites(bag_root):
        bags = store.SiteBags(bag_root, site)
        for i in range(len(bags.entries)):
            bag = bags.load(i)
            features_ND = (bag.features_ND - scale.centre_D) / scale.deviation_D
            store.write(tmp_path, type(bag)(**{**bag.__dict__, "features_ND": features_ND}))
    again = run_in_process(planned(tmp_path, "model.standardise=none"))
    for site in outcome.server.sites:
        np.testing.assert_allclose(
            again.server.parameters_for(site), outcome.server.parameters_for(site), atol=1e-5
        )
    assert again.server.standardisation is None


@pytest.mark.parametrize("method", ["local", "pooled"])
def test_methods_that_share_nothing_share_no_scale(bag_root: Path, method: str) -> None:
    plan = planned(bag_root, f"method.name={method}")
    assert plan.standardise == "site"
    (words,) = plan.released_without_noise()
    assert "mean and variance" not in words
    outcome = run_in_process(plan)
    assert outcome.server.standardisation is None
    explicit = run_in_process(planned(bag_root, f"method.name={method}", "model.standardise=site"))
    assert outcome.digest == explicit.digest
    off = run_in_process(planned(bag_root, f"method.name={method}", "model.standardise=none"))
    assert outcome.digest != off.digest


def test_a_run_that_goes_on_keeps_the_scale(bag_root: Path) -> None:
    plan = planned(bag_root)
    first = run_in_process(plan)
    server = plan.server()
    server.resume(first.server.state(), 1, [])
    asked: list[type] = []

    class Watched(InProcessExecutor):
        def submit(self, requests: object) -> None:
            asked.extend(type(request) for request in requests)  # type: ignore[attr-defined]
            super().submit(requests)  # type: ignore[arg-type]

    prepare(plan, server, Watched(SiteHost(plan, plan.participants)))
    assert set(asked) == {PrepareRequest}
    np.testing.assert_array_equal(
        scale_of(first).centre_D,
        server.standardisation.centre_D,  # type: ignore[union-attr]
    )


class Failing:
    """Fails at one kind of request, at some sites."""

    def __init__(self, plan: Plan, kind: type, sites: set[str]) -> None:
        self.host, self.kind, self.sites = SiteHost(plan, plan.participants), kind, sites

    def answer(self, request: Request) -> Message:
        if isinstance(request, self.kind) and request.site in self.sites:
            return failure_message(OSError("disk"))
        return self.host.answer(request)


@pytest.mark.parametrize("kind", [StatisticsRequest, PrepareRequest])
def test_a_site_lost_while_preparing_is_lost_and_the_others_go_on(
    bag_root: Path, kind: type
) -> None:
    plan = planned(bag_root)
    server = plan.server()
    prepare(plan, server, InProcessExecutor(Failing(plan, kind, {"south"})))
    assert server.alive == ("north", "west")
    assert [loss.site for loss in server.lost] == ["south"]
    everybody = InProcessExecutor(Failing(plan, kind, {"north", "south", "west"}))
    with pytest.raises(FederationError, match="all 3 sites were lost"):
        prepare(plan, plan.server(), everybody)


def test_a_site_does_not_work_before_the_scale_is_agreed_on(bag_root: Path) -> None:
    plan = planned(bag_root)
    request = TrainRequest("north", 0, plan.initial().numpy(), 0)
    event = read_answer(request, plan.site("north").answer(request))
    assert isinstance(event, SiteLost)
    assert "refused the request" in event.reason


@pytest.mark.parametrize(
    "scale",
    [
        Standardisation(np.zeros(3, np.float32), np.ones(3, np.float32)),
        Standardisation(np.zeros(DIM, np.float32), np.zeros(DIM, np.float32)),
        Standardisation(np.full(DIM, np.nan, np.float32), np.ones(DIM, np.float32)),
    ],
)
def test_a_site_refuses_a_scale_that_does_not_fit(bag_root: Path, scale: Standardisation) -> None:
    request = PrepareRequest("north", 0, scale)
    event = read_answer(request, planned(bag_root).site("north").answer(request))
    assert isinstance(event, SiteLost)


def test_statistics_go_through_bytes_and_bad_ones_are_refused() -> None:
    sent = FeatureStatistics("a", 4, np.arange(3.0), np.ones(3))
    read = FeatureStatistics.from_bytes(sent.to_bytes(), "a", 3)
    assert (read.version, read.mean_D.tolist()) == (4, [0, 1, 2])
    assert Prepared.from_bytes(Prepared("a", 4).to_bytes(), "a") == Prepared("a", 4)
    for change, says in (
        ({"mean": np.zeros(4)}, "'mean' is"),
        ({"mean": np.zeros(3, np.float32)}, "'mean' is"),
        ({"variance": -np.ones(3)}, "a variance is not within 0 to 1e"),
        ({"variance": np.full(3, np.inf)}, "a variance is not within 0 to 1e"),
        ({"variance": np.array([1, 1e31, 1])}, "a variance is not within 0 to 1e"),
        ({"mean": np.array([0, 1e300, 0])}, "a mean is not within -1e"),
        ({"mean": np.array([0, -1e16, 0])}, "a mean is not within -1e"),
        ({"mean": np.array([0, np.nan, 0])}, "a mean is not within -1e"),
        ({"mean": np.zeros(10_000)}, "bytes; at most"),
    ):
        good = {"version": np.array([4]), "mean": np.zeros(3), "variance": np.ones(3)}
        with pytest.raises(MessageError, match=says):
            FeatureStatistics.from_bytes(serialise({**good, **change}), "a", 3)


def test_the_largest_statistics_of_one_site_leave_a_scale_for_all() -> None:
    """What is let through can be standardised with in float32."""
    largest = FeatureStatistics("a", 0, np.full(3, 1e15), np.full(3, 1e30))
    read = FeatureStatistics.from_bytes(largest.to_bytes(), "a", 3)
    scale = agree([(read.mean_D, read.variance_D), (np.zeros(3), np.ones(3))])
    assert np.isfinite(scale.centre_D).all()
    assert np.isfinite(scale.deviation_D).all()


@pytest.mark.parametrize("kept", ["site", "none"])
def test_a_site_that_shares_no_scale_tells_no_statistics(bag_root: Path, kept: str) -> None:
    site = planned(bag_root, f"model.standardise={kept}").site("north")
    scale = Standardisation(np.zeros(DIM, np.float32), np.full(DIM, 9, np.float32))
    before = site.data
    for request in (StatisticsRequest("north", 0, DIM), PrepareRequest("north", 0, scale)):
        event = read_answer(request, site.answer(request))
        assert isinstance(event, SiteLost)
        assert "refused the request" in event.reason
    assert site.data is before  # and its scale is still its own


def test_a_scale_is_settled_once(bag_root: Path) -> None:
    site = planned(bag_root).site("north")
    request = StatisticsRequest("north", 0, DIM)
    measured = read_answer(request, site.answer(request))
    assert isinstance(measured, FeatureStatistics)
    one, other = (
        Standardisation(np.zeros(DIM, np.float32), np.full(DIM, size, np.float32))
        for size in (2, 3)
    )
    first = PrepareRequest("north", 0, one)
    assert read_answer(first, site.answer(first)) == Prepared("north", 0)
    # A server that was started anew asks the same once more, and learns nothing that it did not.
    assert site.answer(request) == measured.to_bytes()
    same = PrepareRequest("north", 0, Standardisation(one.centre_D.copy(), one.deviation_D.copy()))
    assert read_answer(same, site.answer(same)) == Prepared("north", 0)
    changed = PrepareRequest("north", 0, other)
    assert isinstance(read_answer(changed, site.answer(changed)), SiteLost)
    assert site.data.train[0].standardisation is one


def test_what_is_released_without_noise_is_said(bag_root: Path) -> None:
    words = planned(bag_root).released_without_noise()
    assert any("mean and variance of every feature" in text for text in words)
    assert any("six candidate networks" in text for text in words)
    fewer = planned(bag_root, "model.standardise=site", "evaluation.readout=last")
    assert len(fewer.released_without_noise()) == len(words) - 2
