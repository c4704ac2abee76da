from __future__ import annotations

import pytest
from cost_cells import cell

from rayfed_hn.evaluation.costs import costs_of
from rayfed_hn.evaluation.quantities import in_bytes, in_seconds, p_value


def test_means_over_cells_by_hand() -> None:
    (found,) = costs_of([cell(0, 100), cell(1, 200)])
    assert found == {
        "method": "fedavg",
        "num_cells": 2,
        "num_versions": 2,
        "bytes_down": pytest.approx(310),
        "bytes_up": pytest.approx(153),
        "bytes_down_per_version": pytest.approx(150),
        "bytes_up_per_version": pytest.approx(75),
        "site_seconds": pytest.approx(1.5),
        "seconds": pytest.approx(4),
        "time": None,
    }


def test_amounts_of_noise_are_apart_and_older_cells_left_out() -> None:
    older = {name: value for name, value in cell(2, 900, noise=0.1).items() if name != "costs"}
    cells = [cell(0, 100, 60.0, noise=0.1), cell(0, 200, noise=None), older]
    found = costs_of(cells)
    assert [(f["noise"], f["num_cells"], f["time"]) for f in found] == [
        (0.1, 1, 60), (None, 1, None)
    ]  # fmt: skip
    assert costs_of([older]) == []


def test_words() -> None:
    assert [in_bytes(v) for v in (None, 0, 999, 1000, 3.1549e6, 2e12, 999_600)] == [
        "–", "0 B", "999 B", "1 kB", "3.15 MB", "2 TB", "1 MB"
    ]  # fmt: skip
    assert [in_seconds(v) for v in (None, 0.1234, 60, 7200)] == ["–", "0.123 s", "60 s", "2.00 h"]
    assert [p_value(v) for v in (None, 0.0004, 0.0126, 1.0)] == ["–", "< 0.001", "0.013", "1.000"]
