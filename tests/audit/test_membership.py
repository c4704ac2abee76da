"""Attacks find what a site remembers, and nothing behind strong noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audited_runs import SITE_LDP, attacked

from rayfed_hn.audit.members import candidates
from rayfed_hn.audit.membership import (
    ALIGNMENT,
    CONFIDENCE,
    SHADOWS,
    membership,
    num_pieces,
)
from rayfed_hn.audit.shadow import likelihood_ratios, log_ratios, train_again


def test_an_overfitted_run_is_seen_through(leaky_root: Path) -> None:
    pieces: list[None] = []
    run = attacked(leaky_root)
    found = membership(run, lambda: pieces.append(None))
    assert len(pieces) == num_pieces(run)
    for attack, least in ((ALIGNMENT, 0.85), (CONFIDENCE, 0.75), (SHADOWS, 0.8)):
        measured = found[attack]
        assert measured is not None
        assert measured.auc > least, attack
        assert measured.auc_low > 0.5, attack


def test_strong_noise_leaves_chance(leaky_root: Path) -> None:
    """Of any seed, an interval in twenty would miss it."""
    for attack, measured in membership(attacked(leaky_root, *SITE_LDP, "run.seed=2")).items():
        assert measured is not None
        assert measured.auc_low < 0.5 < measured.auc_high, attack


def test_the_papers_noise_hides_nothing(leaky_root: Path) -> None:
    found = membership(attacked(leaky_root, "privacy.noise_scale=0.1"))[ALIGNMENT]
    assert found is not None
    assert found.auc_low > 0.5


def test_log_ratios_of_bags_with_centres_of_their_own() -> None:
    rng = np.random.default_rng(0)
    centre_B, inside_KB = rng.normal(scale=5, size=50), rng.random((16, 50)) < 0.5
    inside_KB[0], inside_KB[1] = True, False
    confidence_KB = centre_B + inside_KB * 2 + rng.normal(size=(16, 50))
    member_B = rng.random(50) < 0.5
    target_B = centre_B + member_B * 2
    found = log_ratios(target_B, confidence_KB, inside_KB)
    assert (found[member_B] > 0).mean() > 0.9
    assert (found[~member_B] < 0).mean() > 0.9
    # Of N(c + 1, 1) against N(c - 1, 1) at c + 1 it is 2.
    assert found[member_B].mean() == pytest.approx(2, abs=0.6)


def test_shadows_repeat_and_differ_by_seed_and_bags(leaky_root: Path) -> None:
    run = attacked(leaky_root)
    site = run.sites["north"]
    first, bags = site.exchanges[0], site.data.train
    one = train_again(run.plan, site, first, bags, 1)
    np.testing.assert_array_equal(train_again(run.plan, site, first, bags, 1), one)
    assert not np.array_equal(train_again(run.plan, site, first, bags, 2), one)
    assert not np.array_equal(train_again(run.plan, site, first, bags[:9], 1), one)


def test_ratios_do_not_depend_on_who_was_a_member(leaky_root: Path) -> None:
    """They come from messages and bags alone, in whatever order these are."""
    run = attacked(leaky_root)
    site = run.sites["south"]
    bags = candidates(run.plan, site, site.exchanges).bags
    found = likelihood_ratios(run, site, site.exchanges[0], bags)
    assert found.shape == (len(bags),)
    np.testing.assert_array_equal(likelihood_ratios(run, site, site.exchanges[0], bags), found)
