"""How updates leave a site: noised, charged at the site, and never for free."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_site import ask, plan

from rayfed_hn.errors import BudgetSpent, ConfigError
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.messages import (
    CandidateMetrics,
    CandidatesRequest,
    Refused,
    SiteLost,
    TrainRequest,
    Update,
    read_answer,
)
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.promises import make_subspace
from rayfed_hn.federation.site import Site
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.privacy.accounting import Spent, epsilon_of

LDP = ["privacy.mechanism=site_ldp", "privacy.target_epsilon=8"]
SGD = [
    "privacy.mechanism=slide_dpsgd",
    "privacy.target_epsilon=8",
    "training.class_balanced=false",
    "model.standardise=none",
]
FORMAL = [LDP, SGD]


@pytest.fixture
def own_root(bag_root: Path, tmp_path: Path) -> Path:
    """Bags whose ledgers are of one test alone."""
    return Path(shutil.copytree(bag_root, tmp_path / "bags"))


def real(own_root: Path, *words: str, run: str = "a run") -> Plan:
    """As ``train`` in real time makes it: noise of the machine, ledgers beside the bags."""
    return replace(plan(own_root, *words), run_id=run)


def request(made: Plan, version: int = 0, theta: torch.Tensor | None = None) -> TrainRequest:
    network = made.initial() if theta is None else theta
    return TrainRequest("north", version, network.numpy(), version)


def answered(site: Site, asked: TrainRequest) -> Update | SiteLost:
    event = read_answer(asked, site.answer(asked))
    assert isinstance(event, Update | SiteLost)
    return event


def ledger(own_root: Path) -> list[dict[str, Any]]:
    path = own_root / "site=north" / "privacy" / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("words", FORMAL)
def test_a_site_that_is_asked_again_sends_the_same_bytes_even_after_a_restart(
    own_root: Path, words: list[str]
) -> None:
    made = real(own_root, *words)
    asked = request(made)
    site = made.site("north")
    first = site.answer(asked)
    assert site.answer(asked) == first
    assert made.site("north").answer(asked) == first  # the site was restarted
    assert len(ledger(own_root)) == 1
    other = made.site("north").answer(request(made, theta=made.initial() * 1.01))
    assert other != first
    assert len(ledger(own_root)) == 2
    assert real(own_root, *words, run="another run").site("north").answer(asked) != first
    assert len(ledger(own_root)) == 3


@pytest.mark.parametrize("words", FORMAL)
def test_every_update_says_what_was_spent_and_the_last_one_what_was_planned(
    own_root: Path, words: list[str]
) -> None:
    made = real(own_root, *words)
    site = made.site("north")
    updates = [answered(site, request(made, version)) for version in range(4)]
    spent = [update.epsilon for update in updates if isinstance(update, Update)]
    assert [update.releases for update in updates if isinstance(update, Update)] == [1, 2, 3, 4]
    assert spent == sorted(spent)  # type: ignore[type-var]
    assert spent[-1] == pytest.approx(8, rel=1e-3)
    assert made.promise()["epsilon"] == pytest.approx(spent[-1], rel=1e-9)
    beyond = answered(site, request(made, 4))
    assert isinstance(beyond, SiteLost)
    assert BudgetSpent.is_told_by(beyond.reason)
    assert len(ledger(own_root)) == 4


def test_a_budget_is_over_all_runs(own_root: Path) -> None:
    first = real(own_root, *LDP)
    for version in range(4):
        answered(first.site("north"), request(first, version))
    spent = epsilon_of([Spent("site", "replace", first.noise_multiplier or 0.0)] * 8, 1e-5)
    for budget, kind in ((spent * 0.999, SiteLost), (spent * 1.001, Update)):
        made = real(own_root, *LDP, f"privacy.budget={budget}", run=kind.__name__)
        assert isinstance(answered(made.site("north"), request(made)), kind)


def test_papers_noise_of_the_machine_is_not_drawn_twice_for_one_request(own_root: Path) -> None:
    made = real(own_root, "privacy.noise_scale=.1")
    asked = request(made)
    assert made.site("north").answer(asked) == made.site("north").answer(asked)
    update = answered(made.site("north"), asked)
    assert isinstance(update, Update)
    assert update.epsilon is None  # infinite is no number to be proud of
    assert [line["spent"] for line in ledger(own_root)] == [None]


def test_simulations_repeat_and_leave_nothing_beside_the_bags(own_root: Path) -> None:
    for words in (*FORMAL, ["privacy.noise_scale=.1"]):
        made = plan(own_root, *words)
        assert made.noise_source == "seeded"
        one, other = (made.site("north").answer(request(made)) for _ in range(2))
        first, second = (read_answer(request(made), message) for message in (one, other))
        assert isinstance(first, Update)
        assert isinstance(second, Update)
        np.testing.assert_array_equal(first.update, second.update)
    assert not ledger(own_root)


@pytest.mark.parametrize("words", [[], ["privacy.mechanism=none"]])
def test_what_leaves_without_noise_is_written_down_too(own_root: Path, words: list[str]) -> None:
    made = real(own_root, *words)
    for _ in range(2):  # asked again, it is the same release
        update = answered(made.site("north"), request(made))
        assert isinstance(update, Update)
        assert (update.releases, update.epsilon, update.signal_to_noise) == (1, None, None)
    assert [line["spent"] for line in ledger(own_root)] == [None]
    assert not (own_root / "site=north" / "privacy" / "outbox").exists()  # it can be made again
    bounded = real(own_root, *LDP, "privacy.budget=100", run="tomorrow")
    assert isinstance(answered(bounded.site("north"), request(bounded)), SiteLost)


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["privacy.noise_source=seeded"], True),  # there is no noise, whatever its source
        (["simulation.enabled=true"], False),
        (["simulation.enabled=true", "privacy.noise_source=os"], False),
        (["method.name=local"], False),
    ],
)
def test_only_what_leaves_in_a_real_run_is_written_down(
    own_root: Path, words: list[str], written: bool
) -> None:
    made = real(own_root, *words)
    answered(made.site("north"), request(made))
    assert len(ledger(own_root)) == written


def test_without_noise_a_place_that_cannot_be_written_is_no_reason_to_stay_out(
    own_root: Path,
) -> None:
    (own_root / "site=north" / "privacy").write_text("in the way")
    made = real(own_root)
    for version in range(2):
        update = answered(made.site("north"), request(made, version))
        assert isinstance(update, Update)
        assert update.releases == 0
    noised = real(own_root, *LDP)
    assert isinstance(answered(noised.site("north"), request(noised)), SiteLost)


def test_a_budget_too_small_for_the_whole_run_is_not_begun(own_root: Path) -> None:
    whole = real(own_root, *LDP)
    answered(whole.site("north"), request(whole))  # one of four releases
    more = real(own_root, *LDP, "privacy.budget=8.5", run="tomorrow")
    assert isinstance(answered(more.site("north"), request(more)), SiteLost)
    assert len(ledger(own_root)) == 1
    told = (own_root / "site=north" / "site.log").read_text()
    assert "4 more releases would bring epsilon from 3." in told
    fewer = real(own_root, *LDP, "privacy.budget=9.5", run="on monday")
    assert isinstance(answered(fewer.site("north"), request(fewer)), Update)


@pytest.mark.parametrize("words", FORMAL)
@pytest.mark.parametrize("method", ["hypernetwork", "fedper", "fedavg"])
def test_runs_repeat_to_the_bit_and_keep_their_promise(
    own_root: Path, words: list[str], method: str
) -> None:
    made = plan(own_root, *words, f"method.name={method}")
    updates: list[Update] = []
    digest = run_in_process(made, lambda report: updates.extend(report.updates)).digest
    assert digest == run_in_process(made).digest
    assert digest != run_in_process(plan(own_root, f"method.name={method}")).digest
    assert max(update.epsilon or 0.0 for update in updates) == pytest.approx(8, rel=1e-3)
    assert {update.releases for update in updates} == {1, 2, 3, 4}


def test_only_who_shares_has_anything_to_hide(own_root: Path) -> None:
    for method in ("local", "pooled"):
        alone = plan(own_root, *LDP, f"method.name={method}")
        assert alone.promise() == {"mechanism": "none", "formal_guarantee": "none"}


@pytest.mark.parametrize("words", [*FORMAL, ["privacy.noise_scale=.1"]])
def test_withheld_metrics_do_not_leave(own_root: Path, words: list[str]) -> None:
    told, kept = (
        ask(plan(own_root, *words, f"privacy.metrics={how}").site("north"), 0,
            plan(own_root).initial())
        for how in ("released", "withheld")
    )  # fmt: skip
    assert math.isfinite(told.train_loss)
    assert told.signal_to_noise is not None
    assert math.isnan(kept.train_loss)
    assert math.isnan(kept.validation_loss)
    assert (kept.validation_metric, kept.signal_to_noise, kept.clipped) == (None, None, None)
    assert told.seconds > kept.seconds == 0  # private steps take as long as who takes part
    np.testing.assert_array_equal(told.update, kept.update)


@pytest.mark.parametrize("words", FORMAL)
def test_the_same_bags_in_another_store_are_drawn_alike(
    bag_root: Path, tmp_path: Path, words: list[str]
) -> None:
    one, other = (shutil.copytree(bag_root, tmp_path / name) for name in ("one", "other"))
    updates = []
    for root in (one, other):
        for salt in root.rglob("salt"):
            salt.unlink()
        made = plan(root, *words)
        updates.append(ask(made.site("north"), 0, made.initial()).update)
    salts = [{path.read_bytes() for path in root.rglob("salt")} for root in (one, other)]
    assert all(salts)
    assert not salts[0] & salts[1]
    np.testing.assert_array_equal(*updates)


def test_a_network_that_has_grown_too_much_is_refused(own_root: Path) -> None:
    made = plan(own_root, "privacy.max_growth=3")
    site, theta = made.site("north"), made.initial()
    first = answered(made.site("north"), request(made, 0, theta * 3.1))  # no baseline of its own
    assert isinstance(first, SiteLost)
    assert isinstance(answered(site, request(made, 0)), Update)
    assert isinstance(answered(site, request(made, 1, theta * 2.9)), Update)
    lost = answered(site, request(made, 2, theta * 3.1))
    assert isinstance(lost, SiteLost)
    assert "refused the request" in lost.reason


def test_who_trains_together_goes_the_same_way_out(own_root: Path) -> None:
    made = real(own_root, "resources.train_together=true", *LDP, "method.name=fedavg")
    host = SiteHost(made, made.participants, device="cpu")
    host._alone = False
    asked = [replace(request(made), site=site) for site in made.participants]
    first = host._group(asked)
    assert host._group(asked) == first
    assert len(ledger(own_root)) == 1


def test_the_noise_follows_from_the_epsilon_and_the_number_of_versions(own_root: Path) -> None:
    few, many = (plan(own_root, *LDP, f"rounds.num_versions={n}") for n in (1, 50))
    assert few.promise()["noise_multiplier"] == pytest.approx(0.600, rel=2e-3)
    assert many.promise()["noise_multiplier"] == pytest.approx(4.244, rel=1e-3)
    assert many.promise()["sensitivity"] == 2.0
    size = len(many.initial())
    limit = many.promise()["signal_to_noise_at_most"]
    assert limit == pytest.approx(1 / (2 * 4.244 * math.sqrt(size)), rel=1e-3)


def test_how_long_the_noise_of_a_step_is_beside_its_patients(own_root: Path) -> None:
    made = plan(own_root, *SGD, "privacy.sampling_rate=0.5")
    cases = dict.fromkeys(made.num_cases, 4)  # of more slides
    told = replace(made, num_cases=cases).promise()
    length = told["noise_multiplier"] * math.sqrt(len(made.initial()))
    assert told["signal_to_noise_at_most"] == pytest.approx(0.5 * 4 / length)
    slides = plan(own_root, *SGD, "privacy.sampling_rate=0.5", "privacy.unit=slide")
    bags = max(slides.num_training_bags().values())
    told = replace(slides, num_cases=cases).promise()
    assert told["signal_to_noise_at_most"] == pytest.approx(0.5 * bags / length)


def test_a_budget_below_the_epsilon_of_the_run_is_refused_before_anything_starts(
    own_root: Path,
) -> None:
    words = ["privacy.mechanism=site_ldp", "privacy.noise_multiplier=1", "privacy.budget=1"]
    with pytest.raises(ConfigError, match=r"privacy\.budget: got 1, less than the epsilon of "):
        plan(own_root, *words)


def test_an_epsilon_that_cannot_be_had_is_refused_before_anything_starts(own_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.target_epsilon: got 1e-08"):
        plan(own_root, *LDP[:1], "privacy.target_epsilon=1e-8", "privacy.target_delta=1e-15")


@pytest.mark.parametrize("words", FORMAL)
def test_few_numbers_leave_a_site_and_networks_stay_in_their_subspace(
    own_root: Path, words: list[str]
) -> None:
    few = plan(own_root, *words, "privacy.release_dim=7", "method.name=fedavg")
    space = make_subspace(few.config, len(few.initial()))
    assert space is not None
    message = few.site("north").answer(request(few))
    assert len(message) < 7 * 4 + 500
    event = few.read(request(few), message)
    assert isinstance(event, Update)
    update = torch.tensor(event.update)
    torch.testing.assert_close(space.lift(space.project(update)), update, rtol=1e-3, atol=1e-5)
    outcome = run_in_process(few)
    moved = torch.from_numpy(outcome.server.parameters_for("north")) - few.initial()
    torch.testing.assert_close(space.lift(space.project(moved)), moved, rtol=1e-3, atol=1e-4)
    assert outcome.digest == run_in_process(few).digest


def test_a_message_of_all_parameters_is_refused_where_few_are_expected(own_root: Path) -> None:
    few, all_ = (plan(own_root, *LDP, *more) for more in (["privacy.release_dim=7"], []))
    event = few.read(request(all_), all_.site("north").answer(request(all_)))
    assert isinstance(event, Refused)


def test_fewer_numbers_are_shorter_noise(own_root: Path) -> None:
    few, all_ = (plan(own_root, *LDP, *more) for more in (["privacy.release_dim=9"], []))
    ratio = few.promise()["signal_to_noise_at_most"] / all_.promise()["signal_to_noise_at_most"]
    assert ratio == pytest.approx(math.sqrt(len(all_.initial()) / 9))


def test_more_numbers_than_parameters_are_refused(own_root: Path) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.release_dim: got 9,999,999, but the network"):
        plan(own_root, *LDP, "privacy.release_dim=9999999")


@pytest.mark.parametrize("words", [*FORMAL, ["privacy.noise_scale=.1"]])
def test_real_noise_is_not_that_of_the_seed(own_root: Path, words: list[str]) -> None:
    """The same bags, settings and seed; two runs, of which neither can be drawn again."""
    seeded, *secret = (
        answered(made.site("north"), request(made))
        for made in (plan(own_root, *words), *(real(own_root, *words, run=run) for run in "ab"))
    )
    assert isinstance(seeded, Update)
    updates = [seeded.update, *(one.update for one in secret if isinstance(one, Update))]
    assert len({update.tobytes() for update in updates}) == 3


@pytest.mark.parametrize(("unit", "records"), [("patient", 2), ("slide", 6)])
def test_a_record_is_a_patient_or_a_slide(own_root: Path, unit: str, records: int) -> None:
    site = plan(own_root, *SGD, f"privacy.unit={unit}").site("north")
    bags = tuple(replace(bag, case=i % 2) for i, bag in enumerate(site.data.train[:6]))
    site._trainer.use(replace(site.data, train=bags))
    private = site._trainer._private_steps(0)
    assert private is not None
    assert len(private.patients) == records
    kept = [id(bag) for own in private.patients.values() for bag in own]
    assert sorted(kept) == sorted(map(id, bags))


def candidates(made: Plan, version: int = 4, factor: float = 1.0) -> CandidatesRequest:
    theta = factor * made.initial().numpy()
    return CandidatesRequest("north", version, theta, np.stack([theta] * 3), 0)


def judged(site: Site, asked: CandidatesRequest) -> CandidateMetrics | SiteLost:
    event = read_answer(asked, site.answer(asked))
    assert isinstance(event, CandidateMetrics | SiteLost)
    return event


def test_candidates_are_judged_once_and_at_the_end(bag_root: Path) -> None:
    made = plan(bag_root)
    site = made.site("north")
    assert isinstance(judged(site, candidates(made, version=2)), SiteLost)
    first = judged(site, candidates(made))
    again = judged(site, candidates(made))
    assert isinstance(first, CandidateMetrics)
    assert isinstance(again, CandidateMetrics)
    np.testing.assert_array_equal(first.metric_OC, again.metric_OC)
    assert isinstance(judged(site, candidates(made, factor=1.01)), SiteLost)


def test_a_network_that_has_grown_is_not_scored_either(bag_root: Path) -> None:
    made = plan(bag_root, "privacy.max_growth=2")
    assert isinstance(judged(made.site("north"), candidates(made, factor=1.9)), CandidateMetrics)
    assert isinstance(judged(made.site("north"), candidates(made, factor=2.1)), SiteLost)


def test_withheld_metrics_stay_at_the_site_at_the_end_too(bag_root: Path) -> None:
    open_, closed = (plan(bag_root, f"privacy.metrics={m}") for m in ("released", "withheld"))
    told, kept = (run_in_process(made) for made in (open_, closed))
    assert all(scores.validation_metric is not None for scores in told.scores)
    assert all(scores.validation_metric is None for scores in kept.scores)
    opinion = judged(closed.site("north"), candidates(closed))
    assert isinstance(opinion, CandidateMetrics)
    assert np.isnan(opinion.metric_OC).all()
    assert opinion.metric_OC.shape == (1, 6)
    # The site goes on from what it has measured; only the word of the others is missing.
    assert all(np.isfinite(scores.mixture_BE).all() for scores in kept.scores)


@pytest.mark.parametrize(("words", "stays"), [(SGD, True), (LDP, False), ([], False)])
def test_by_default_metrics_stay_where_they_would_tell_who_took_part(
    bag_root: Path, words: list[str], stays: bool
) -> None:
    made = plan(bag_root, *words)
    update = ask(made.site("north"), 0, made.initial())
    assert math.isnan(update.train_loss) == stays
    assert (update.validation_metric is None) == stays
    assert ("training loss" in " ".join(made.released_without_noise())) != stays
    told = plan(bag_root, *words, "privacy.metrics=released")
    assert math.isfinite(ask(told.site("north"), 0, told.initial()).train_loss)
