"""p-values of several comparisons at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

FAMILY = ("readout", "metric", "scope", "kind")  # what tests of one family have in common


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979).

    Rejecting those below a level errs in any of them with at most that chance, however they depend
    on each other.
    """
    p_N = np.asarray(p_values, float)
    order = np.argsort(p_N, kind="stable")
    scaled_N = p_N[order] * np.arange(len(p_N), 0, -1)
    found_N = np.empty_like(p_N)
    found_N[order] = np.minimum(np.maximum.accumulate(scaled_N), 1.0)
    return found_N.tolist()


def corrected(tests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tests with ``p_holm``, each corrected over its family.

    A family is one question asked of all pairs of methods (and amounts of noise, and, by site, of
    all sites): the same metric, in the mean of sites, pooled or by site, of one readout and by one
    kind of test. Readouts, metrics and kinds are not corrected for: a claim should name the one
    that was chosen beforehand.
    """
    families: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for place, test in enumerate(tests):
        if test["p"] is not None:
            families[tuple(test[name] for name in FAMILY)].append(place)
    found: dict[int, float] = {}
    for places in families.values():
        found |= zip(places, holm([tests[place]["p"] for place in places]), strict=True)
    return [{**test, "p_holm": found.get(place)} for place, test in enumerate(tests)]
