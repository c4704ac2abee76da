"""Settings of rounds that cannot go together are refused by name."""

from __future__ import annotations

import pytest

from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load

ESTIMATE = "hypernetwork.estimate=rho"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([ESTIMATE, "rounds.buffer_size=2"], "leave rounds.buffer_size unset"),
        (["hypernetwork.estimate=kernel", "rounds.deadline=9"], "leave rounds.deadline unset"),
        (["simulation.durations=x.csv"], "simulation.durations: has no effect without"),
        (["simulation.absences=x.csv"], "simulation.absences: has no effect without"),
        (["simulation.seconds_per_bag=2"], "simulation.seconds_per_bag: has no effect without"),
        (["rounds.replay=e", "simulation.enabled=true"], "leave rounds.replay unset"),
        (["rounds.replay=e", "run.resume=true", "run.dir=r"], "rounds.replay: cannot be resumed"),
        (["rounds.min_sites=3", "rounds.cohort_size=2"], "more than rounds.cohort_size=2 that"),
        (["simulation.dropout=0.1"], "simulation.dropout: has no effect without"),
        ([ESTIMATE, "hypernetwork.features=mlp"], "hypernetwork.features=mlp: with hypernetwork.e"),
        (["hypernetwork.estimate=kernel", "hypernetwork.features=learned"], "leave it at fixed"),
        (["rounds.robust=median", "rounds.cohort_size=2"], "rounds.cohort_size=2: of fewer than 3"),
        (["rounds.robust=norm_bound", "rounds.buffer_size=2"], "rounds.buffer_size=2: of fewer"),
        ([ESTIMATE, "rounds.robust=trimmed_mean"], "set one of the two to none"),
        (["rounds.robust=median", "method.name=pfedhn_pc"], "use trimmed_mean or norm_bound"),
        (["rounds.norm_factor=1.5"], "rounds.norm_factor"),
        (["rounds.trim=0.5"], "rounds.trim"),
        (["rounds.max_refusals=0"], "rounds.max_refusals"),
    ],
)
def test_what_cannot_go_together_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, words)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        [ESTIMATE, "rounds.cohort_size=2"],
        ["simulation.enabled=true", "simulation.durations=x.csv", "simulation.seconds_per_bag=2"],
        ["rounds.min_sites=3", "rounds.deadline=60"],
        ["rounds.min_sites=3"],  # who is left counts without a deadline too
        ["rounds.min_sites=3", "rounds.cohort_size=3"],
        ["simulation.enabled=true", "simulation.dropout=0.1"],
        ["hypernetwork.features=mlp"],
        [ESTIMATE, "hypernetwork.features=fixed"],
        ["rounds.replay=events.jsonl"],
        ["rounds.robust=median", "rounds.cohort_size=3"],
        ["rounds.robust=trimmed_mean", "method.name=pfedhn"],
        ["rounds.norm_factor=null"],
    ],
)
def test_what_can_go_together_is_not(words: list[str]) -> None:
    assert load(None, words) != load()
