"""Was a slide trained on? Both attacks on all sites, pooled.

Shapes: B bags.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rayfed_hn.audit.alignment import alignments
from rayfed_hn.audit.measures import Measured, measure, standardised
from rayfed_hn.audit.members import Candidates, candidates
from rayfed_hn.audit.probes import Probe
from rayfed_hn.audit.run import AuditedRun, AuditedSite, spread
from rayfed_hn.audit.shadow import FEWEST, likelihood_ratios
from rayfed_hn.federation.exchanges import Exchange

ALIGNMENT = "alignment"  # of a slide's gradient with the updates
CONFIDENCE = "confidence"  # of the network released last
SHADOWS = "shadows"  # confidence beside that of shadow trainings


def membership(
    run: AuditedRun, on_piece: Callable[[], object] = lambda: None
) -> dict[str, Measured | None]:
    """Every attack by its name; None where no site has both members and others.

    Scores are standardised within each site, without a look at who was a member, and then judged
    together.

    Args:
        run: What is attacked.
        on_piece: Called ``num_pieces`` times.
    """
    pooled: dict[str, list[tuple[Candidates, np.ndarray]]] = {
        name: [] for name in (ALIGNMENT, CONFIDENCE, SHADOWS)
    }
    for site in run.sites.values():
        own = candidates(run.plan, site, site.exchanges)
        if own.tells:
            score_B = alignments(run.plan, site.exchanges, own.bags, on_piece)
            pooled[ALIGNMENT].append((own, score_B))
            last = Probe(run.plan, site.exchanges[-1].released)
            pooled[CONFIDENCE].append((own, last.confidences(own.bags)))
        some = shadowed(run, site)
        own = candidates(run.plan, site, some)
        if own.tells and len(own.bags) >= FEWEST:
            ratios = [likelihood_ratios(run, site, one, own.bags, on_piece) for one in some]
            pooled[SHADOWS].append((own, np.sum(ratios, axis=0)))
    level = run.plan.config.audit.level
    return {name: _judge(scored, level) for name, scored in pooled.items()}


def by_alignment(run: AuditedRun) -> Measured | None:
    """The attack that trains nothing; None where no site has both members and others."""
    scored = [
        (own, alignments(run.plan, site.exchanges, own.bags))
        for site in run.sites.values()
        if (own := candidates(run.plan, site, site.exchanges)).tells
    ]
    return _judge(scored, run.plan.config.audit.level)


def num_pieces(run: AuditedRun) -> int:
    """How often ``membership`` says that it is getting on, at most."""
    pairs = run.plan.config.audit.shadows // 2
    shadows = sum(2 * pairs * len(shadowed(run, site)) for site in run.sites.values())
    return run.num_exchanges + shadows


def shadowed(run: AuditedRun, site: AuditedSite) -> list[Exchange]:
    """The exchanges of a site that shadows are trained for."""
    chosen = spread(run.plan.config.audit.shadowed, len(site.exchanges))
    return [site.exchanges[i] for i in chosen]


def _judge(scored: list[tuple[Candidates, np.ndarray]], level: float) -> Measured | None:
    if not scored:
        return None
    return measure(
        np.concatenate([own.member_B for own, _ in scored]),
        np.concatenate([standardised(score_B) for _, score_B in scored]),
        np.concatenate([own.case_B for own, _ in scored]),
        level=level,
    )
