"""A classifier that never leaves its site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from one_site import RAW, ask, classifier, plan, trained_by_hand
from safetensors.torch import load_file

from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.messages import CandidatesRequest, EvaluateRequest, read_answer
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.tasks import Binary

PRIVATE = pytest.mark.parametrize("method", ["fedper", "pfedhn_pc"])

BINARY = Binary(("normal", "tumour"))


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
    judge = CandidatesRequest("north", 4, theta.numpy(), shared, 3)
    messages.append(site.answer(judge))
    messages.append(site.answer(EvaluateRequest("north", 4, np.full(6, 0.5))))
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
    judge = CandidatesRequest("north", 4, sent[2].numpy(), np.stack([sent[0].numpy()] * 3), 3)
    site.answer(judge)
    scores = read_answer(
        request := EvaluateRequest("north", 4, np.full(6, 0.5)),
        site.answer(request),
    )
    expected_B = score_bags(private.model(), received, site.data.test, BINARY).evidence_BE
    np.testing.assert_array_equal(scores.last_BE, expected_B)  # type: ignore[union-attr]
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
