"""Over many small federations the tests err as often as they say, and intervals hold the truth."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from scipy.stats import binom, norm
from simulated_scores import BINARY, binary_scores, held_out

from rayfed_hn.evaluation.bootstrap import KIND as BOOTSTRAP
from rayfed_hn.evaluation.bootstrap import MEAN, POOLED, bootstrap_tests
from rayfed_hn.evaluation.delong import KIND as DELONG
from rayfed_hn.evaluation.delong import SITE, delong_tests, paired, placements
from rayfed_hn.evaluation.measures import main_measure

FEDERATIONS = 200
BAND = binom.ppf([0.001, 0.999], FEDERATIONS, 0.05)  # of a test that errs in one of twenty
Found = dict[tuple[str, str], list[tuple[bool, bool]]]


def simulated(skill: dict[str, float], slides: int = 1) -> Found:
    """Of every federation and test: whether it rejects equality, and whether it holds the truth."""
    found: Found = defaultdict(list)
    # What methods share is part of a score's deviation.
    areas = [norm.cdf(gap / np.sqrt(2 * (1 + 1))) for gap in skill.values()]
    truth = float(areas[0] - areas[1])
    for number in range(FEDERATIONS):
        records = binary_scores(np.random.default_rng(number), skill, slides=slides)
        scores = held_out(records)
        tests = bootstrap_tests(scores, [main_measure(BINARY)], resamples=200, seed=number)
        for test in (*tests, *delong_tests(scores)):
            if test["site"] in (None, "site-2"):
                held = test["low"] <= truth <= test["high"]
                found[test["kind"], test["scope"]].append((test["p"] < 0.05, held))
    assert set(found) == {(BOOTSTRAP, MEAN), (BOOTSTRAP, POOLED), (DELONG, POOLED), (DELONG, SITE)}
    return found


@pytest.mark.parametrize("slides", [1, 2])
def test_equal_methods_are_told_apart_as_rarely_as_promised(slides: int) -> None:
    for name, outcomes in simulated({"fedavg": 1.5, "local": 1.5}, slides).items():
        assert BAND[0] <= sum(rejected for rejected, _ in outcomes) <= BAND[1], name
        missed = sum(not held for _, held in outcomes)
        assert BAND[0] <= missed <= BAND[1], name


def test_intervals_hold_a_true_difference_and_the_tests_see_it() -> None:
    for name, outcomes in simulated({"fedavg": 2.5, "local": 1.5}).items():
        assert BAND[0] <= sum(not held for _, held in outcomes) <= BAND[1], name
        least = 0.1 if name[1] == SITE else 0.4  # there are few cases at a site
        assert np.mean([rejected for rejected, _ in outcomes]) > least, name


def test_slides_taken_for_cases_would_be_seen() -> None:
    """The planted fault: slides as if they were independent reject too often."""
    rejected = 0
    for number in range(FEDERATIONS):
        rng = np.random.default_rng(number)
        label_C = np.arange(40) % 2
        places = []
        for _ in range(2):
            score_B = np.repeat(rng.normal(size=40) + label_C, 4) + 0.1 * rng.normal(size=160)
            place_B = placements(np.repeat(label_C, 4), score_B)
            assert place_B is not None
            places.append(place_B)
        found = paired(np.repeat(label_C, 4), places[0], places[1], np.arange(160))
        assert found is not None
        rejected += found["p"] < 0.05
    assert rejected > BAND[1]
