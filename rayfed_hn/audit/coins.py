"""Whole sites as canaries: the release itself, put to the hardest test that it promises to pass.

``site_ldp`` hides all that a site has, whatever it is and whatever networks the server sends. So a
site may as well have data whose update points in one direction, or other data whose update points
in the opposite one; both are longer than the clip norm. A fair coin chooses, the site's own code
clips and adds noise, release after release, and the attacker, who knows both, guesses by the sum.

Nothing is trained, so that many sites can be played; that training itself adds no other way out is
what the other attacks are for.

Shapes: M plays, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from rayfed_hn.audit.canaries import Guessed
from rayfed_hn.federation.plan import Plan
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.privacy.mechanisms import SiteGaussian
from rayfed_hn.privacy.randomness import Seeded
from rayfed_hn.seeds import derive

REACH = 100.0  # length of an update in clip norms: clipping has to hold it


def play_sites(
    plan: Plan, mechanism: SiteGaussian, on_play: Callable[[], object] = lambda: None
) -> Guessed:
    """Play ``audit.coins`` sites, each with as many releases as the run has versions.

    Args:
        plan: Of the run.
        mechanism: What is put to the test.
        on_play: Called after every site.

    Returns:
        Coins, and scores that are above 0 where the attacker guesses heads.
    """
    knobs, run = plan.config.audit, plan.config
    places = list(ParameterLayout.of(plan.model()).places())
    received_P = plan.initial()
    seed = derive(run.run.seed, "coins of sites", knobs.seed)
    generator = torch.Generator().manual_seed(seed)
    direction_P = torch.randn(received_P.shape, generator=generator)
    direction_P /= direction_P.norm()
    step_P = REACH * mechanism.clip_norm * direction_P
    replaced = mechanism.neighbouring == "replace"
    tails_P = step_P if replaced else torch.zeros_like(step_P)
    coin_M = np.random.Generator(np.random.Philox(seed)).integers(2, size=knobs.coins) == 1
    score_M = np.zeros(knobs.coins)
    for play, heads in enumerate(coin_M):
        noise = Seeded(derive(seed, "noise", play))
        trained_P = received_P - step_P if heads else received_P + tails_P
        for _ in range(run.rounds.num_versions):
            released = mechanism.privatise(received_P, trained_P, places, noise)
            score_M[play] += float(released.update @ direction_P)
        on_play()
    middle = 0.0 if replaced else run.rounds.num_versions * mechanism.clip_norm / 2
    return Guessed(coin_M, score_M - middle)
