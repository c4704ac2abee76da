"""Learning rates that fall over the versions, and options that are drawn by site and turn alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_site import ask
from tiny_federations import TASK_WORDS, assert_equal_outcomes, plan_of

from rayfed_hn.federation.experiment import finish, prepare, run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import Request
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.wire import Message
from rayfed_hn.models import cohort
from rayfed_hn.models.training import train_locally

FACTORS = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
}
ORDINAL = TASK_WORDS["ordinal"]
OPTIONS = (
    "training.schedule=cosine",
    "training.instance_dropout=0.4",
    "training.max_instances=3",
    "training.label_smoothing=0.1",
)


@pytest.mark.parametrize("schedule", FACTORS)
def test_a_version_is_trained_at_its_rate(tasks_root: Path, schedule: str) -> None:
    words = ["model.standardise=none", f"training.schedule={schedule}", "rounds.num_versions=4"]
    plan = plan_of(tasks_root, *ORDINAL, *words)
    site, theta = plan.site("a"), plan.initial()
    for version in range(4):
        by_hand = train_locally(
            plan.model(),
            theta,
            site.data.train,
            plan.config.training,
            task=plan.task,
            learning_rate=0.01 * FACTORS[schedule](version / 4),
            num_steps=2,
            seed=site._trainer._seed("local training", 7),
        ).parameters
        update = ask(site, 7, theta, version=version).update
        np.testing.assert_array_equal(update, (theta - by_hand).numpy())


def rates_of_a_run(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> list[float]:
    rates: list[float] = []

    def spy(*args: Any, **options: Any) -> Any:
        rates.append(options["learning_rate"])
        return train_locally(*args, **options)

    monkeypatch.setattr(cohort, "train_locally", spy)
    run_in_process(plan)
    return rates


@pytest.mark.parametrize("schedule", FACTORS)
@pytest.mark.parametrize("method", ["hypernetwork", "local"])
def test_a_run_takes_every_version_at_its_rate(
    tasks_root: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, method: str
) -> None:
    words = [f"training.schedule={schedule}", "rounds.num_versions=5", f"method.name={method}"]
    rates = rates_of_a_run(monkeypatch, plan_of(tasks_root, *ORDINAL, *words))
    expected = [0.01 * FACTORS[schedule](version / 5) for version in range(5) for _ in "abc"]
    np.testing.assert_allclose(rates, expected)


def test_a_late_site_trains_at_the_rate_of_the_version_that_it_has(
    tasks_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["training.schedule=linear", "rounds.buffer_size=1", "simulation.enabled=true"]
    plan = plan_of(tasks_root, *ORDINAL, *words, "rounds.num_versions=8", "method.name=fedavg")
    rates = rates_of_a_run(monkeypatch, plan)
    assert set(np.round(np.array(rates) / 0.01 * 8)) <= set(range(1, 9))
    assert rates[:3] == [0.01] * 3
    assert len(set(rates)) > 4


class Apart:
    """Every site in a host of its own, made when it is first asked."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.hosts = plan, dict[str, SiteHost]()

    def answer(self, request: Request) -> Message:
        if request.site not in self.hosts:
            self.hosts[request.site] = SiteHost(self.plan, [request.site])
        return self.hosts[request.site].answer(request)


class Reversed(InProcessExecutor):
    """Asks the last site first."""

    def submit(self, requests: Any) -> None:
        super().submit(list(reversed(requests)))


@pytest.mark.parametrize("unit", ["slide", "case"])
def test_options_do_not_depend_on_packing_or_order(tasks_root: Path, unit: str) -> None:
    plan = plan_of(tasks_root, *ORDINAL, *OPTIONS, f"task.unit={unit}")
    together = run_in_process(plan)
    server, executor = plan.server(), plan.executor(Reversed(Apart(plan)))
    torch.rand(3)  # nor on what else was drawn
    prepare(plan, server, executor)
    assert len(list(run_federation(server, executor))) == 2
    assert_equal_outcomes(finish(plan, server, executor), together)
    for left_out in range(4):
        words = OPTIONS[:left_out] + OPTIONS[left_out + 1 :]
        other = run_in_process(plan_of(tasks_root, *ORDINAL, *words, f"task.unit={unit}"))
        assert other.digest != together.digest, OPTIONS[left_out]
