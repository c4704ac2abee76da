"""Knobs of the attacks on a finished run."""

from __future__ import annotations

from dataclasses import dataclass

from rayfed_hn.config.knob import knob

ATTACKS = ("membership", "inversion", "canaries", "property")


@dataclass(frozen=True)
class AuditConfig:
    """What ``audit`` tries, and how hard."""

    attacks: list[str] = knob(
        list(ATTACKS),
        "membership: was this slide trained on? inversion: can features of tiles be read off an "
        "update? canaries: made-up bags and updates, put in by fair coins, which give a lower "
        "bound on epsilon; property: which site is a slide from that nobody trained on?",
        each_of=ATTACKS,
    )
    sites: list[str] = knob([], "sites that are attacked (default: all)")
    exchanges: int = knob(
        20,
        "messages of every site that are attacked (a network sent and the update that came back), "
        "spread evenly over the run; each is held in memory, 8 bytes a parameter",
        at_least=1,
    )
    shadows: int = knob(
        16,
        "membership: trainings of a site on random halves of its bags, for every exchange that has "
        "some; an even number",
        at_least=4,
    )
    shadowed: int = knob(
        3, "membership: exchanges of every site that have shadow trainings", at_least=1
    )
    canaries: int = knob(
        100,
        "made-up bags over all sites, each put into a run of its own by a fair coin; a bound on "
        "epsilon is at most about log(canaries / 3)",
        at_least=2,
    )
    repeats: int = knob(
        1, "runs with canaries, each with coins and noise of its own", at_least=1, at_most=1000
    )
    coins: int = knob(
        1000,
        "site_ldp: sites that are played, each of which releases, by a fair coin, the one or the "
        "other of two updates that differ as much as they can",
        at_least=10,
    )
    level: float = knob(
        0.95,
        "level of all intervals, and of the lower bound on epsilon",
        at_least=0.5,
        at_most=0.9999,
    )
    seed: int = knob(0, "with run.seed, seed of everything random in the audit", at_least=0)
