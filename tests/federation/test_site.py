"""What a site remembers, what never leaves it, and how it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from rayfed_hn.errors import DataError
from rayfed_hn.federation import site as site_module
from rayfed_hn.federation.data import SiteBag, halves
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, evaluate_sites, run_federation
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    EvaluateRequest,
    TrainRequest,
    Update,
    read_answer,
)
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site import Site
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.training import score_bags, train_locally

SHORT = [
    "rounds.num_versions=4",
    "training.steps=3",
    "training.learning_rate=0.01",
    "model.standardise=site",
]
RAW = "model.standardise=none"  # the networks in files are for features as they are


def plan(bag_root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), bag_root)


def ask(site: Site, turn: int, theta: Tensor, version: int | None = None) -> Update:
    at = turn if version is None else version
    request = TrainRequest(site.data.name, at, theta.numpy(), turn)
    event = read_answer(request, site.answer(request))
    assert isinstance(event, Update), event
    return event


def trained_by_hand(
    plan: Plan,
    site: Site,
    theta: Tensor,
    turn: int,
    purpose: str = "local training",
    **options: Any,
) -> Tensor:
    return train_locally(
        plan.model(),
        theta,
        site.data.train,
        plan.config.training,
        learning_rate=plan.learning_rate,
        num_steps=options.pop("num_steps", plan.config.training.steps),
        seed=site._seed(purpose, turn),
        **options,
    ).parameters


def classifier(plan: Plan) -> Tensor:
    mask = torch.zeros(plan.initial().numel(), dtype=torch.bool)
    for name, place in ParameterLayout.of(plan.model()).places():
        mask[place] = name.startswith("classifier.")
    return mask


# -- memory ------------------------------------------------------------------------------------


def known(value: float) -> dict[str, Tensor]:
    return {"private": torch.full((3,), value), "moment.step": torch.tensor(value)}


def value_of(memory: SiteMemory, turn: int) -> float | None:
    tensors = memory.before(turn)
    return float(tensors["private"][0]) if tensors else None


def filled(folder: Path | None, turns: range) -> SiteMemory:
    memory = SiteMemory(folder)
    for turn in turns:
        memory.after(turn, known(float(turn)))
    return memory


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_site_knows_what_the_turn_before_left(tmp_path: Path, on_disk: bool) -> None:
    memory = SiteMemory(tmp_path / "new" if on_disk else None)
    assert memory.before(0) == {}
    for turn in (0, 1, 4):  # turns 2 and 3 were lost on the way
        memory.after(turn, known(float(turn)))
        assert value_of(memory, turn + 1) == turn
        assert value_of(memory, turn + 3) == turn
    assert list(tmp_path.rglob("*")) == [] or on_disk


def test_a_site_that_starts_again_knows_what_it_knew_at_that_turn(tmp_path: Path) -> None:
    filled(tmp_path, range(6))
    for turn, expected in ((6, 5), (9, 5), (5, 4), (4, 3)):
        assert value_of(SiteMemory(tmp_path), turn) == expected
    found = SiteMemory(tmp_path).before(6)
    assert torch.equal(found["moment.step"], torch.tensor(5.0))


def test_the_turns_of_a_run_that_stopped_are_forgotten(tmp_path: Path) -> None:
    filled(tmp_path, range(6))
    memory = SiteMemory(tmp_path)
    assert value_of(memory, 4) == 3
    memory.after(4, known(40.0))
    assert value_of(memory, 5) == 40
    assert value_of(SiteMemory(tmp_path), 9) == 40  # and not 5
    memory.after(5, known(50.0))
    assert value_of(SiteMemory(tmp_path), 6) == 50


def test_a_turn_asked_again_finds_what_it_found(tmp_path: Path) -> None:
    memory = filled(tmp_path, range(3))
    assert value_of(memory, 3) == 2
    for _ in range(2):
        assert value_of(memory, 2) == 1
    assert value_of(memory, 1) == 0
    assert memory.before(0) == {}


def test_old_turns_do_not_pile_up(tmp_path: Path) -> None:
    filled(tmp_path, range(40))
    assert len(list(tmp_path.iterdir())) < 12


def test_what_was_remembered_does_not_follow_later_changes() -> None:
    memory, tensors = SiteMemory(None), known(1.0)
    memory.after(0, tensors)
    tensors["private"] = torch.zeros(3)
    assert value_of(memory, 1) == 1


def test_a_damaged_memory_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    filled(tmp_path, range(2))
    (tmp_path / "memory-1.safetensors").write_bytes(b"\x00" * 9)
    with pytest.raises(DataError, match="memory of a site is damaged"):
        SiteMemory(tmp_path).before(2)


def test_methods_that_leave_nothing_behind_write_nothing(bag_root: Path, tmp_path: Path) -> None:
    plain = plan(bag_root, "method.name=fedavg", "evaluation.readout=last")
    site = plain.site("north", tmp_path)
    ask(site, 0, plain.initial())
    assert not list(tmp_path.glob("memory-*"))


# -- private tensors ---------------------------------------------------------------------------


PRIVATE = pytest.mark.parametrize("method", ["fedper", "pfedhn_pc"])


@PRIVATE
def test_the_private_classifier_never_leaves(bag_root: Path, tmp_path: Path, method: str) -> None:
    private = plan(bag_root, f"method.name={method}", "privacy.noise_scale=0.1")
    mask, theta = classifier(private), private.initial()
    site = private.site("north", tmp_path)
    messages = []
    for turn in range(3):
        update = ask(site, turn, theta)
        assert (update.update[mask] == 0).all()
        assert (update.update[~mask] != 0).mean() > 0.9
        messages.append(update.to_bytes())
    shared = np.stack([theta.numpy()] * 3)
    judge = CandidatesRequest("north", 4, theta.numpy(), shared)
    messages.append(site.answer(judge))
    messages.append(site.answer(EvaluateRequest("north", 4, theta.numpy(), np.full(6, 0.5))))
    secrets = [m["private"] for m in map(load_file, tmp_path.glob("memory-*"))]
    assert len(secrets) == 3
    for secret in secrets:
        assert secret.numel() == int(mask.sum())
        assert not torch.equal(secret, theta[mask])
        # No single value of it is anywhere in what left.
        for value in secret.numpy():
            assert not any(value.tobytes() in message for message in messages)


@PRIVATE
def test_the_private_classifier_goes_on_from_turn_to_turn(
    bag_root: Path, tmp_path: Path, method: str
) -> None:
    private = plan(bag_root, f"method.name={method}", RAW)
    mask, site = classifier(private), private.site("north", tmp_path)
    sent = [private.initial() * scale for scale in (1.0, 1.1, 0.9)]  # whatever the server sends
    own = sent[0][mask]
    for turn, theta in enumerate(sent):
        received = theta.clone()
        received[mask] = own
        expected = trained_by_hand(private, site, received, turn)
        update = ask(site, turn, theta)
        assert np.array_equal(update.update[~mask], (received - expected)[~mask].numpy())
        own = expected[mask]
    # What is validated and scored is the site's own network, private classifier included.
    received = sent[2].clone()
    received[mask] = own
    judge = CandidatesRequest("north", 4, sent[2].numpy(), np.stack([sent[0].numpy()] * 3))
    site.answer(judge)
    scores = read_answer(
        request := EvaluateRequest("north", 4, sent[2].numpy(), np.full(6, 0.5)),
        site.answer(request),
    )
    expected_B = score_bags(private.model(), received, site.data.test).scores_B
    np.testing.assert_array_equal(scores.last_B, expected_B)  # type: ignore[union-attr]
    shared = load_file(tmp_path / "network_mixture.safetensors")["candidates"][:3]
    assert torch.equal(shared[:, mask], own.repeat(3, 1))
    assert torch.equal(shared[:, ~mask], sent[0][~mask].repeat(3, 1))


def test_other_methods_have_no_private_part(bag_root: Path) -> None:
    open_plan = plan(bag_root, "method.name=fedavg")
    mask = classifier(open_plan)
    update = ask(open_plan.site("north"), 0, open_plan.initial())
    assert (update.update[mask] != 0).all()


def test_the_server_never_learns_a_private_classifier(bag_root: Path) -> None:
    private = plan(bag_root, "method.name=fedper")
    server = run_in_process(private).server
    mask = classifier(private).numpy()
    for name in server.sites:
        moved = server.parameters_for(name) != private.initial().numpy()
        assert not moved[mask].any()
        assert moved[~mask].mean() > 0.9


# -- a site that goes on -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["method.name=fedper"],
        ["method.name=fedavg", "training.keep_optimiser=true"],
        ["method.name=fedper", "training.keep_optimiser=true", "training.optimiser=momentum"],
    ],
)
def test_a_site_that_was_interrupted_answers_as_an_undisturbed_one(
    bag_root: Path, tmp_path: Path, words: list[str]
) -> None:
    going = plan(bag_root, *words)
    theta = going.initial()
    straight, interrupted = going.site("north", tmp_path / "a"), None
    for turn in range(4):
        interrupted = going.site("north", tmp_path / "b")
        interrupted.resume()
        one, other = ask(straight, turn, theta), ask(interrupted, turn, theta)
        np.testing.assert_array_equal(one.update, other.update)
        again = ask(interrupted, turn, theta)  # as after a commit that was lost
        np.testing.assert_array_equal(again.update, one.update)
    judge = CandidatesRequest("north", 4, theta.numpy(), np.stack([theta.numpy()] * 3))
    score = EvaluateRequest("north", 4, theta.numpy(), np.full(6, 0.5))
    last = going.site("north", tmp_path / "b")
    last.resume()
    assert last.answer(judge) == straight.answer(judge)
    assert last.answer(score) == straight.answer(score)


# -- optimisers that go on ---------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adam", "momentum"])
def test_a_kept_optimiser_is_passed_from_turn_to_turn(bag_root: Path, optimiser: str) -> None:
    words = ["method.name=fedavg", f"training.optimiser={optimiser}"]
    keeping = plan(bag_root, *words, "training.keep_optimiser=true")
    site, fresh = keeping.site("north"), plan(bag_root, *words).site("north")
    theta, moments = keeping.initial(), None
    for turn in range(3):
        trained = train_locally(
            keeping.model(),
            theta,
            site.data.train,
            keeping.config.training,
            learning_rate=keeping.learning_rate,
            num_steps=3,
            seed=site._seed("local training", turn),
            moments=moments,
        )
        expected, moments = (theta - trained.parameters).numpy(), trained.moments
        np.testing.assert_array_equal(ask(site, turn, theta).update, expected)
        assert np.array_equal(ask(fresh, turn, theta).update, expected) == (turn == 0)
        theta = theta * 1.01


# -- fine-tuning -------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "words"), [(15, []), (7, ["training.fine_tuning_steps=7"])])
def test_fedavg_ft_is_fedavg_and_then_a_training_at_every_site(
    bag_root: Path, steps: int, words: list[str]
) -> None:
    tuning = plan(bag_root, "method.name=fedavg_ft", *words)
    shared = plan(bag_root, "method.name=fedavg")
    tuned, plain = run_in_process(tuning), run_in_process(shared)
    assert tuned.digest == plain.digest
    for one, other in zip(tuned.scores, plain.scores, strict=True):
        site = shared.site(one.site)
        theta = torch.from_numpy(plain.server.parameters_for(one.site))
        own = trained_by_hand(shared, site, theta, 0, "fine-tuning", num_steps=steps)
        last_B = score_bags(shared.model(), own, site.data.test).scores_B
        np.testing.assert_array_equal(one.last_B, last_B)
        assert not np.array_equal(one.last_B, other.last_B)


def test_no_steps_of_fine_tuning_are_no_fine_tuning(bag_root: Path) -> None:
    none = plan(bag_root, "method.name=fedavg_ft", "training.fine_tuning_steps=0")
    plain = plan(bag_root, "method.name=fedavg")
    for one, other in zip(run_in_process(none).scores, run_in_process(plain).scores, strict=True):
        np.testing.assert_array_equal(one.last_B, other.last_B)


def test_fine_tuning_keeps_a_hypernetworks_rule(bag_root: Path) -> None:
    methods = ("hypernetwork", "hypernetwork_ft", "pfedhn", "pfedhn_ft")
    digests = [run_in_process(plan(bag_root, f"method.name={m}")).digest for m in methods]
    assert digests[0] == digests[1] != digests[2] == digests[3]


# -- steps and halves --------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "steps"), [(2.0, 12), (0.5, 3), (0.01, 1)])
def test_epochs_are_passes_over_the_training_bags(
    bag_root: Path, epochs: float, steps: int
) -> None:
    passes = plan(bag_root, "method.name=fedavg", f"training.epochs={epochs}")
    assert passes.num_bags["north"][0] == 6
    assert ask(passes.site("north"), 0, passes.initial()).num_steps == steps
    pooled = plan(bag_root, "method.name=pooled", "training.epochs=2")
    assert ask(pooled.site("pooled"), 0, pooled.initial()).num_steps == 2 * 18


def labelled(labels: list[int]) -> list[SiteBag]:
    return [SiteBag(np.zeros((1, 1), np.float32), label, i, i) for i, label in enumerate(labels)]


@given(st.lists(st.integers(0, 1), min_size=2, max_size=30), st.integers(0, 2**62))
def test_halves_are_disjoint_and_stratified(labels: list[int], seed: int) -> None:
    one, other = halves(labelled(labels), seed)
    slides = [[bag.slide for bag in half] for half in (one, other)]
    assert not set(slides[0]) & set(slides[1])
    assert sorted(slides[0] + slides[1]) == list(range(len(labels)))
    assert abs(len(one) - len(other)) <= 1
    for label in (0, 1):
        counts = [sum(bag.label == label for bag in half) for half in (one, other)]
        assert abs(counts[0] - counts[1]) <= 1


def test_a_single_bag_is_both_halves() -> None:
    one, other = halves(labelled([1]), 0)
    assert [bag.slide for bag in one] == [bag.slide for bag in other] == [0]
    assert [bag.slide for bag in halves(labelled([0, 1, 0, 1, 1]), 3)[0]] == [
        bag.slide for bag in halves(labelled([0, 1, 0, 1, 1]), 3)[0]
    ]


def test_every_draw_has_a_seed_of_its_own(bag_root: Path) -> None:
    usual = plan(bag_root)
    seeds = {
        site._seed(purpose, turn)
        for site in map(usual.site, ("north", "south"))
        for purpose in ("local training", "halves", "paper noise", "fine-tuning")
        for turn in range(3)
    }
    assert len(seeds) == 2 * 4 * 3
    assert plan(bag_root, "run.seed=1").site("north")._seed("halves", 0) not in seeds


def seen_bags(
    monkeypatch: pytest.MonkeyPatch, site: Site, theta: Tensor, turns: range
) -> list[set[int]]:
    """The bags that a site trains on in every turn."""
    inner: Callable[..., Any] = site_module.train_locally
    found: list[set[int]] = []

    def spy(model: Any, parameters: Tensor, bags: tuple[SiteBag, ...], *rest: Any, **options: Any):
        found.append({bag.slide for bag in bags})
        return inner(model, parameters, bags, *rest, **options)

    monkeypatch.setattr(site_module, "train_locally", spy)
    for turn in turns:
        ask(site, turn, theta, version=min(turn, 3))
    return found


@pytest.mark.parametrize("estimate", ["rho", "kernel"])
def test_two_turns_of_a_pair_see_different_halves(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, estimate: str
) -> None:
    estimating = plan(bag_root, f"hypernetwork.estimate={estimate}")
    site = estimating.site("north")
    everything = {bag.slide for bag in site.data.train}
    seen = seen_bags(monkeypatch, site, estimating.initial(), range(8))
    for first in range(0, 8, 2):
        assert not seen[first] & seen[first + 1]
        assert seen[first] | seen[first + 1] == everything
    assert len({frozenset(seen[turn]) for turn in range(0, 8, 2)}) > 1  # divided anew every pair


@pytest.mark.parametrize("words", [[], ["method.name=fedavg", "hypernetwork.estimate=rho"]])
def test_without_an_estimate_every_turn_sees_everything(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    usual = plan(bag_root, *words)
    site = usual.site("north")
    seen = seen_bags(monkeypatch, site, usual.initial(), range(3))
    assert seen == [{bag.slide for bag in site.data.train}] * 3


# -- candidates --------------------------------------------------------------------------------


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
        odds = [score_bags(training.model(), one, test).logits_B for one in kept["candidates"]]
        mixed = kept["weights"].numpy()[0] @ np.stack(odds)
        np.testing.assert_allclose(found.mixture_B, 1 / (1 + np.exp(-mixed)), rtol=1e-5)


def average(values: list[np.ndarray]) -> np.ndarray:
    ages = np.arange(len(values))[::-1]
    return np.average(np.stack(values), axis=0, weights=0.8**ages)


def test_without_the_mixture_readout_it_is_the_last_network(bag_root: Path) -> None:
    last = plan(bag_root, "evaluation.readout=last")
    outcome = run_in_process(last)
    for scores in outcome.scores:
        theta = torch.from_numpy(outcome.server.parameters_for(scores.site))
        data = last.site(scores.site).data
        known, asked = (score_bags(last.model(), theta, b) for b in (data.validation, data.test))
        odds = asked.logits_B / known.logits_B.std()  # on the scale of the validation bags
        np.testing.assert_allclose(scores.mixture_B, 1 / (1 + np.exp(-odds)), rtol=1e-5)


def test_a_tuned_network_is_the_last_of_the_own_candidates(bag_root: Path, tmp_path: Path) -> None:
    tuning = plan(bag_root, "method.name=fedavg_ft", RAW)
    site, theta = tuning.site("north", tmp_path), tuning.initial()
    ask(site, 0, theta)
    judge = CandidatesRequest("north", 4, theta.numpy(), np.stack([theta.numpy()] * 3))
    site.answer(judge)
    site.answer(EvaluateRequest("north", 4, theta.numpy(), np.full(6, 0.5)))
    kept = load_file(tmp_path / "network_mixture.safetensors")["candidates"]
    own = trained_by_hand(tuning, site, theta, 0, "fine-tuning", num_steps=15)
    assert torch.equal(kept[-1], own)
    assert not torch.equal(kept[-2], own)


def test_a_site_that_was_never_asked_has_as_many_candidates(bag_root: Path) -> None:
    usual = plan(bag_root)
    site, theta = usual.site("north"), usual.initial()
    judge = CandidatesRequest("north", 4, theta.numpy(), np.stack([theta.numpy()] * 3))
    opinion = read_answer(judge, site.answer(judge))
    assert opinion.auc_OC.shape == (1, 6)  # type: ignore[union-attr]


def test_a_network_of_another_length_is_refused_everywhere(bag_root: Path) -> None:
    usual = plan(bag_root)
    theta = usual.initial().numpy()
    site, whole = usual.site("north"), np.stack([theta] * 3)
    bad = whole.copy()
    bad[1, 5] = np.nan
    for request in (
        TrainRequest("north", 0, theta[:-1], 0),
        CandidatesRequest("north", 4, theta[:-1], whole),
        CandidatesRequest("north", 4, theta, whole[:, :-1]),
        CandidatesRequest("north", 4, theta, bad),
        EvaluateRequest("north", 4, theta[1:], np.full(6, 0.5)),
    ):
        event = read_answer(request, site.answer(request))
        assert "refused the request" in event.reason  # type: ignore[union-attr]


def test_a_memory_that_is_gone_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path, kept_turns=2)
    for turn in range(6):
        memory.after(turn, {"x": torch.tensor([float(turn)])})
    assert float(SiteMemory(tmp_path, kept_turns=2).before(5)["x"]) == 4
    with pytest.raises(DataError, match="before its turn 2 is not kept"):
        SiteMemory(tmp_path, kept_turns=2).before(2)
