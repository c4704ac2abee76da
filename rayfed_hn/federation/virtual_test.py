"""How good the last networks of virtual sites are, on bags of cases that no site trained on."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from rayfed_hn.evaluation.many_sites import spread
from rayfed_hn.federation.experiment import fits
from rayfed_hn.federation.loop import Executor, evaluate_sites
from rayfed_hn.federation.messages import Scores
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.virtual_plan import VirtualPlan


def score_sites(plan: VirtualPlan, server: Server, executor: Executor) -> dict[str, Any] | None:
    """Test the sites that the plan names, as a finished run of ``train`` tests all; JSON-ready.

    Returns:
        ``mean``, ``worst`` and ``lowest_tenth`` over sites where the metric is defined, of which
        there are ``scored`` of ``sites``, of which ``unanswered`` were lost; ``trained``: of how
        many an update was taken, the others have networks of what others learned; ``bags``: test
        bags of a site, the median. None where no site is to be tested.
    """
    if not plan.tested:
        return None
    begun = time.monotonic()
    answers, lost = evaluate_sites(server, executor, frozenset(plan.tested))
    by_site = [_site(plan, server, answer) for answer in answers if fits(plan, answer)]
    found = [site["value"] for site in by_site if site["value"] is not None]
    return {
        "metric": plan.task.judge.name,
        "readout": plan.config.evaluation.readout,
        **spread(found),
        "sites": len(plan.tested),
        "scored": len(found),
        "trained": sum(site["updates"] > 0 for site in by_site),
        "bags": median(site["bags"] for site in by_site) if by_site else 0,
        "lost": len(lost) + len(answers) - len(by_site),  # now, and not in training
        "unanswered": len(plan.tested) - len(by_site),
        "seconds": round(time.monotonic() - begun, 2),
        "by_site": by_site,
    }


def _site(plan: VirtualPlan, server: Server, answer: Scores) -> dict[str, Any]:
    evidence_BE = getattr(answer, f"{plan.config.evaluation.readout}_BE")
    value = plan.task.judge.value(answer.truth, plan.task.predict(evidence_BE))
    return {
        "site": answer.site,
        "value": value,
        "bags": len(answer.label_B),
        "updates": server.num_updates.get(answer.site, 0),
    }
