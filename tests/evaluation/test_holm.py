from __future__ import annotations

import numpy as np
import pytest

from rayfed_hn.evaluation.holm import corrected, holm


def test_by_hand() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1, and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_it_errs_anywhere_at_most_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    p_values = rng.uniform(size=(4000, 5))
    p_values[:, 0] = 1e-6  # one true difference among equal methods
    errs = [min(holm(list(row))[1:]) < 0.05 for row in p_values]
    assert 0.03 < np.mean(errs) < 0.06
    assert np.mean([min(row[1:]) < 0.05 for row in p_values]) > 0.15  # uncorrected


def test_families_are_corrected_apart_and_undefined_tests_do_not_count() -> None:
    def test(p: float | None, **changes: str) -> dict:
        about = {"readout": "last", "metric": "AUC", "scope": "pooled", "kind": "DeLong by case"}
        return about | changes | {"p": p}

    tests = [
        *(test(0.01), test(0.02), test(None)),
        *(test(0.01, readout="best"), test(0.01, metric="F1"), test(0.01, kind="bootstrap")),
    ]
    found = [one["p_holm"] for one in corrected(tests)]
    assert found == [0.02, 0.02, None, 0.01, 0.01, 0.01]
