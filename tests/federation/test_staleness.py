"""How old updates are and what they count, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from simulated import VALUES, Shuffled, new_server

from rayfed_hn.config import RoundsConfig, SimulationConfig
from rayfed_hn.federation.loop import run_federation
from rayfed_hn.federation.site_clock import SiteClock
from rayfed_hn.federation.virtual_time import VirtualTime

FAST_AND_SLOW = ("a,1", "b,2.5")
STALENESS = [
    # durations; buffer, exponent, balanced, oldest; versions: (site, staleness, factor) of updates
    (
        FAST_AND_SLOW,
        (1, 0.5, False, None),
        [
            [("a", 0, 1)],
            [("a", 0, 1)],
            [("b", 2, 3**-0.5)],
            [("a", 1, 2**-0.5)],
            [("a", 0, 1)],
            [("b", 2, 3**-0.5)],  # both answer at 5; b was asked before
            [("a", 1, 2**-0.5)],
        ],
    ),
    (
        FAST_AND_SLOW,
        # Updates since a site was asked, over the number of sites; b has 3/2, and at most 1 counts.
        (1, 0.0, True, None),
        [[("a", 0, 1 / 2)], [("a", 0, 1 / 2)], [("b", 2, 1)], [("a", 1, 2 / 2)]],
    ),
    (
        FAST_AND_SLOW,
        (1, 2.0, True, None),
        [[("a", 0, 1 / 2)], [("a", 0, 1 / 2)], [("b", 2, 3 / 2 / 9)], [("a", 1, 1 / 4)]],
    ),
    (
        FAST_AND_SLOW,
        (1, 0.0, False, 1),  # what b sends at 2.5 and at 5 is too old
        [[("a", 0, 1)]] * 5,
    ),
    (
        ("a,1", "b,2.5", "c,4"),
        (2, 0.0, False, 1),  # c sends at 4 for version 0
        [
            [("a", 0, 1), ("a", 0, 1)],
            [("a", 0, 1), ("b", 1, 1)],
            [("a", 0, 1), ("b", 1, 1)],
        ],
    ),
    (
        ("a,1", "b,2.5", "c,4"),
        (2, 1.0, False, None),
        [
            [("a", 0, 1), ("a", 0, 1)],  # asked twice for the same version
            [("a", 0, 1), ("b", 1, 1 / 2)],
            [("a", 0, 1), ("c", 2, 1 / 3)],
            [("a", 0, 1), ("b", 2, 1 / 3)],
        ],
    ),
    (
        ("a,1", "a,3", "b,2"),  # a takes 1 and 3 seconds in turn
        (1, 2.0, False, None),
        # At 4 both answer, and both are asked again for the same version.
        [[("a", 0, 1)], [("b", 1, 1 / 4)], [("a", 1, 1 / 4)], [("b", 1, 1 / 4)], [("a", 0, 1)]],
    ),
]


@pytest.mark.parametrize(("lines", "knobs", "versions"), STALENESS)
def test_staleness_and_weights_are_a_table_written_by_hand(
    tmp_path: Path,
    lines: Sequence[str],
    knobs: tuple[int, float, bool, int | None],
    versions: list[list[tuple[str, int, float]]],
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["site,seconds", *lines]) + "\n")
    buffer_size, exponent, balanced, oldest = knobs
    rounds = RoundsConfig(
        num_versions=len(versions),
        buffer_size=buffer_size,
        staleness_exponent=exponent,
        balance_arrivals=balanced,
        max_staleness=oldest,
    )
    sites = "".join(sorted({line[0] for line in lines}))
    clock = SiteClock(SimulationConfig(durations=str(trace)), dict.fromkeys(sites, 1), 0)
    server = new_server(rounds, dict.fromkeys(sites, 1))
    theta = 0.0
    reports = run_federation(server, VirtualTime(Shuffled(3), clock))
    for report, expected in zip(reports, versions, strict=True):
        found = [(u.site, tau) for u, tau in zip(report.updates, report.staleness, strict=True)]
        assert found == [(site, tau) for site, tau, _ in expected]
        theta -= sum(factor * VALUES[site] for site, _, factor in expected) / buffer_size
        np.testing.assert_allclose(server.parameters_for("a"), theta, rtol=1e-6)
    assert server.num_refused == (0 if oldest is None else 4 - len(sites))
