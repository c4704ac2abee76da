"""A run that stopped after any version ends in the same bits as one that was never disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_runs import NUM_VERSIONS, SIMULATED, all_lines, go_on, left_behind, newest, plan_of

BUFFERED = (*SIMULATED, "rounds.buffer_size=2")
SETTINGS = {
    "synchronous": (),
    "synchronous clock": SIMULATED,
    "buffer 1": (*SIMULATED, "rounds.buffer_size=1"),
    "buffer 2": BUFFERED,
    "buffer 2, no clock": ("rounds.buffer_size=2",),
    "buffer 2, stale": (*BUFFERED, "rounds.max_staleness=0"),
    "buffer 5": (*SIMULATED, "rounds.buffer_size=5", "simulation.duration=constant"),
    "deadline": (*SIMULATED, "rounds.deadline=70"),
    "deadline, stale": (*SIMULATED, "rounds.deadline=50", "rounds.max_staleness=0"),
    "drop-out": (*BUFFERED, "simulation.dropout=0.3", "simulation.away_seconds=45"),
    "drop-out, waiting": (*SIMULATED, "simulation.dropout=0.3", "simulation.away_seconds=45"),
    "cohort": (*SIMULATED, "rounds.cohort_size=2", "simulation.dropout=0.2"),
    "cohort, buffer": (*BUFFERED, "rounds.cohort_size=2", "rounds.sampling=by_size"),
    "at once": (*BUFFERED, "simulation.duration=constant", "simulation.slowest=1"),
    "fedavg": (*BUFFERED, "method.name=fedavg"),
    "fedper": (*BUFFERED, "method.name=fedper", "simulation.dropout=0.2"),
    "pfedhn_pc": (*SIMULATED, "method.name=pfedhn_pc", "rounds.buffer_size=1"),
    "kept moments": (*BUFFERED, "training.keep_optimiser=true", "training.optimiser=adam"),
    "mixture": (*BUFFERED, "evaluation.readout=mixture", "method.name=fedavg"),
    "last": (*BUFFERED, "evaluation.readout=last"),
    "site_ldp": (*SIMULATED, "privacy.mechanism=site_ldp", "privacy.target_epsilon=8"),
    "paper noise": (*BUFFERED, "privacy.noise_scale=0.1"),
    "local": (*SIMULATED, "method.name=local"),
    "pooled": ("method.name=pooled",),
}
QUICK = ("synchronous clock", "fedper")  # the others are of `make test-faults`
MARKED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.faults)
    for name in (*SETTINGS, "absences")
]


@pytest.mark.parametrize("name", MARKED)
def test_cut_after_any_version(bag_root: Path, tmp_path: Path, name: str) -> None:
    words = SETTINGS.get(name) or ()
    if name == "absences":
        table = tmp_path / "absences.csv"
        table.write_text("site,from,until\nnorth,30,95\nsouth,100,160\nwest,10,20\n")
        words = (*BUFFERED, f"simulation.absences={table}")
    plan = plan_of(bag_root, *words)
    go_on(plan, tmp_path / "whole")
    expected = left_behind(tmp_path / "whole")
    folder = tmp_path / "cut"
    for version in range(1, NUM_VERSIONS + 1):
        assert go_on(plan, folder, stop_at=version) is None
        assert newest(folder)["version"] == version
    go_on(plan, folder)
    assert left_behind(folder) == expected
    marks = [x for x in all_lines(folder, "events.jsonl") if x["event"] == "resumed"]
    assert [mark["made"] for mark in marks] == list(range(1, NUM_VERSIONS + 1))
