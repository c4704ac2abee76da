"""Who counts as trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from audited_runs import DPSGD, attacked

from rayfed_hn.audit.members import ALL, DRAWN, candidates, told, trained_on
from rayfed_hn.audit.run import AuditedSite
from rayfed_hn.models.training import draw_bags
from rayfed_hn.seeds import derive


def few_steps(root: Path, *words: str) -> tuple[AuditedSite, set[int]]:
    """A run of few steps, and the slides that its site drew, by hand."""
    run = attacked(root, "training.steps=4", *words)
    site, plan = run.sites["north"], run.plan
    drawn: set[int] = set()
    for exchange in site.exchanges:
        order = draw_bags(
            [bag.label for bag in site.data.train],
            4,
            class_balanced=True,
            seed=derive(plan.config.run.seed, "local training", "north", exchange.turn),
        )
        drawn |= {site.data.train[i].slide for i in order}
    return site, drawn


def test_members_are_the_bags_that_were_drawn(leaky_root: Path) -> None:
    site, drawn = few_steps(leaky_root)
    plan = attacked(leaky_root, "training.steps=4").plan
    assert trained_on(plan, site, site.exchanges) == drawn
    assert len(drawn) < len(site.data.train)
    found = candidates(plan, site, site.exchanges)
    assert {bag.slide for bag in found.bags[: found.member_B.sum()]} == drawn
    never = {bag.slide for bag in (*site.data.validation, *site.data.test)}
    assert {bag.slide for bag in found.bags[found.member_B.sum() :]} == never
    assert told(plan) == DRAWN


def test_of_fewer_exchanges_and_of_steps_that_were_not_taken(leaky_root: Path) -> None:
    site, drawn = few_steps(leaky_root)
    plan, first = attacked(leaky_root, "training.steps=4").plan, site.exchanges[0]
    assert trained_on(plan, site, [first]) < drawn
    stopped = replace(first, num_steps=1)
    assert len(trained_on(plan, site, [stopped])) == 1


def test_private_steps_are_not_written_down(leaky_root: Path) -> None:
    run = attacked(leaky_root, *DPSGD, "training.steps=4")
    site = run.sites["north"]
    everybody = {bag.slide for bag in site.data.train}
    assert trained_on(run.plan, site, site.exchanges) == everybody
    assert told(run.plan) == ALL


def test_validation_bags_that_decide_when_to_stop_are_no_strangers(leaky_root: Path) -> None:
    run = attacked(leaky_root, "training.patience=9")
    site = run.sites["south"]
    found = candidates(run.plan, site, site.exchanges)
    assert (~found.member_B).sum() == len(site.data.test)


def test_halves_that_rho_is_estimated_on(leaky_root: Path) -> None:
    run = attacked(leaky_root, "hypernetwork.estimate=rho", "rounds.num_versions=2")
    site = run.sites["north"]
    one, other = (trained_on(run.plan, site, [exchange]) for exchange in site.exchanges)
    assert one
    assert other
    assert not one & other
