"""Losses, gradients and confidences that attacks are made of."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from audited_runs import attacked
from torch import nn
from torch.func import functional_call

from rayfed_hn.audit.alignment import alignments, cosine
from rayfed_hn.audit.inversion import one_step
from rayfed_hn.audit.probes import Probe, confidence
from rayfed_hn.federation.exchanges import Exchange
from rayfed_hn.models.parameters import ParameterLayout


def test_gradient_and_loss_are_those_of_automatic_differentiation(leaky_root: Path) -> None:
    run = attacked(leaky_root)
    plan, site = run.plan, run.sites["north"]
    bag, network_P = site.data.train[0], site.exchanges[1].received
    theta = torch.tensor(network_P).requires_grad_(True)
    tensors = ParameterLayout.of(plan.model()).unflatten(theta)
    logits, _ = functional_call(plan.model(), tensors, (bag.tensor(),))
    loss = nn.functional.cross_entropy(logits, torch.tensor(bag.label))
    (gradient,) = torch.autograd.grad(loss, theta)
    probe = Probe(plan, network_P)
    torch.testing.assert_close(probe.gradient(bag), gradient)
    torch.testing.assert_close(probe.gradient(bag), gradient)  # nothing is added up
    assert probe.loss(bag) == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("chance", [1e-4, 0.3, 0.5, 0.999])
def test_confidence_is_the_logit_of_the_true_class(chance: float) -> None:
    expected = math.log(chance / (1 - chance))
    assert confidence(-math.log(chance)) == pytest.approx(expected, abs=1e-6)


def test_certainty_has_a_finite_confidence() -> None:
    assert 20 < confidence(0.0) < 40


def test_one_step_on_a_bag_is_its_gradient_and_points_nowhere_else(leaky_root: Path) -> None:
    """u = received - trained, so that what was trained on aligns positively."""
    run = attacked(leaky_root)
    site = run.sites["south"]
    bag, received = site.data.train[3], site.exchanges[0].received
    update = one_step(run.plan, site, bag).numpy()
    exchange = Exchange("south", 0, 0, received, update, 1)
    own, *others = alignments(run.plan, [exchange], (bag, *site.data.test))
    assert own == pytest.approx(1, abs=1e-3)
    assert max(others) < 0.95


def test_the_cosine_of_nothing_is_none() -> None:
    assert cosine(torch.zeros(3), torch.ones(3)) == 0
