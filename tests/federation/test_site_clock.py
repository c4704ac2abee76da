"""How long sites take and when they are there, against hand computations and known means."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config import SimulationConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.site_clock import SiteClock, Work

SIZES = {"a": 30, "b": 5, "c": 12, "d": 8}
DRAWS = 8000


def clock(sizes: dict[str, int] = SIZES, seed: int = 0, **simulation: Any) -> SiteClock:
    return SiteClock(SimulationConfig(**simulation), sizes, seed)


def table(folder: Path, *lines: str) -> str:
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


# -- durations ---------------------------------------------------------------------------------


def test_constant_durations_are_the_mean_itself() -> None:
    per_bag = clock(duration="constant", seconds_per_bag=2.5)
    for turn in range(3):
        assert clock(duration="constant", seconds=7.0).duration("a", turn) == 7.0
        assert {s: per_bag.duration(s, turn) for s in SIZES} == {s: 2.5 * SIZES[s] for s in SIZES}


@pytest.mark.parametrize(
    ("duration", "spread"), [("lognormal", 0.3), ("lognormal", 0.8), ("pareto", 0.3)]
)
def test_durations_have_the_configured_mean(duration: str, spread: float) -> None:
    slow = clock(duration=duration, spread=spread, seconds=20.0)
    values = [slow.duration("b", turn) for turn in range(DRAWS)]
    assert fmean(values) == pytest.approx(20.0, rel=0.02)
    assert len(set(values)) == DRAWS


def test_lognormal_spread_is_its_sigma() -> None:
    one = clock(duration="lognormal", spread=0.5, seconds=3.0)
    logarithms = [math.log(one.duration("a", turn)) for turn in range(DRAWS)]
    assert stdev(logarithms) == pytest.approx(0.5, rel=0.03)
    assert fmean(logarithms) == pytest.approx(math.log(3.0) - 0.5**2 / 2, abs=0.02)


def test_pareto_has_the_shape_that_its_spread_says() -> None:
    shape = 1 + 1 / 0.5
    one = clock(duration="pareto", spread=0.5, seconds=3.0)
    values = [one.duration("a", turn) for turn in range(DRAWS)]
    lowest = 3.0 * (shape - 1) / shape
    assert lowest <= min(values) < 1.01 * lowest
    assert median(values) == pytest.approx(lowest * 2 ** (1 / shape), rel=0.02)
    tail = sum(value > 4 * lowest for value in values) / DRAWS
    assert tail == pytest.approx(4**-shape, rel=0.2)


def test_slowness_spreads_evenly_in_the_logarithm_whoever_is_slow() -> None:
    orders = set()
    for seed in range(8):
        one = clock(duration="constant", seconds=2.0, slowest=8.0, seed=seed)
        seconds = {site: one.duration(site, 0) for site in SIZES}
        assert sorted(seconds.values()) == pytest.approx([2.0, 4.0, 8.0, 16.0])
        orders.add(tuple(sorted(seconds, key=seconds.__getitem__)))
    assert len(orders) > 3  # not always the same one


def test_slowness_multiplies_the_seconds_of_the_bags() -> None:
    def seconds(**knobs: Any) -> dict[str, float]:
        one = clock(duration="constant", **knobs)
        return {site: one.duration(site, 0) for site in SIZES}

    slow, even = seconds(slowest=8.0, seconds=1.0), seconds(seconds_per_bag=0.5)
    both = seconds(slowest=8.0, seconds_per_bag=0.5)
    assert both == pytest.approx({site: slow[site] * even[site] for site in SIZES})


def test_a_single_site_is_the_fastest() -> None:
    assert clock({"a": 3}, duration="constant", seconds=5.0, slowest=9.0).duration("a", 0) == 5.0


def test_draws_depend_on_seed_site_and_turn_alone() -> None:
    few, many = clock({"b": 1, "d": 2}), clock()
    for site in ("d", "b"):
        for turn in (3, 0):
            assert few.duration(site, turn) == many.duration(site, turn)
    drawn = {many.duration(site, turn) for site in SIZES for turn in range(5)}
    assert len(drawn) == 20
    assert clock(seed=1).duration("a", 0) != many.duration("a", 0)


def test_a_trace_is_followed_in_turn_and_begins_again(tmp_path: Path) -> None:
    lines = table(tmp_path, "site,seconds", "a,3", "b,0.5", "a,1", "d,1", "a,2", "c,1")
    one = clock(durations=lines, duration="constant", seconds=60.0, slowest=9.0)
    assert [one.duration("a", turn) for turn in range(7)] == [3, 1, 2, 3, 1, 2, 3]
    assert [one.duration("b", turn) for turn in range(2)] == [0.5, 0.5]


# -- who is there ------------------------------------------------------------------------------


ABSENT = ("site,from,until", "a,30,35", "a,10,20", "b,0,4")  # out of order
WORK = [
    # site, sent at, what becomes of five seconds of work
    ("a", 0.0, Work(5)),
    ("a", 5.0, Work(5)),  # ends as the absence begins
    ("a", 6.0, Work(4, 20)),
    ("a", 10.0, Work(0, 20)),
    ("a", 18.5, Work(0, 20)),
    ("a", 20.0, Work(5)),  # it is back at that moment
    ("a", 25.5, Work(4.5, 35)),
    ("a", 35.0, Work(5)),
    ("b", 0.0, Work(0, 4)),
    ("b", 4.0, Work(5)),
    ("c", 12.0, Work(5)),
]


@pytest.mark.parametrize(("site", "now", "expected"), WORK)
def test_absences_are_a_table_written_by_hand(
    tmp_path: Path, site: str, now: float, expected: Work
) -> None:
    one = clock(duration="constant", seconds=5.0, absences=table(tmp_path, *ABSENT))
    assert one.work(site, 0, now) == expected


class Absent(SiteClock):
    """Spans given directly, and five seconds of work."""

    def __init__(self, spans: list[tuple[float, float]]) -> None:
        super().__init__(SimulationConfig(duration="constant", seconds=5.0), SIZES, 0)
        self._absent = {"a": spans}


@given(st.lists(st.integers(0, 60), unique=True, max_size=8), st.integers(0, 70))
def test_nobody_works_while_absent(edges: list[int], now: int) -> None:
    whole = sorted(edges)[: len(edges) // 2 * 2]
    spans = [(float(a), float(b)) for a, b in zip(whole[::2], whole[1::2], strict=True)]
    work = Absent(spans).work("a", 0, now)
    end = now + work.seconds
    worked_in = [span for span in spans if max(now, span[0]) < min(end, span[1])]
    assert not worked_in
    if work.back_at is None:
        assert work.seconds == 5
    else:  # it leaves as an absence begins, or is away already, and is back as it ends
        leaves = next(span for span in spans if span[1] > now)
        assert (end, work.back_at) == (max(now, leaves[0]), leaves[1])


def test_drop_out_has_its_chance_and_takes_a_part_of_the_time() -> None:
    one = clock(duration="constant", seconds=5.0, dropout=0.3, away_seconds=77.0)
    works = [one.work("a", turn, 0.0) for turn in range(DRAWS)]
    dropped = [work for work in works if work.back_at is not None]
    assert len(dropped) / DRAWS == pytest.approx(0.3, abs=0.02)
    assert {work.back_at for work in dropped} == {work.seconds + 77.0 for work in dropped}
    assert fmean(work.seconds for work in dropped) == pytest.approx(2.5, rel=0.05)
    assert all(0 < work.seconds < 5 for work in dropped)
    assert {work.seconds for work in works if work.back_at is None} == {5.0}


def test_drop_out_may_be_never() -> None:
    never = clock(dropout=0.0)
    assert all(never.work("a", turn, 0.0).back_at is None for turn in range(200))


# -- tables that cannot be used ----------------------------------------------------------------


BAD = [
    ("durations", ["site,minutes", "a,1"], "must have the columns site,seconds"),
    ("durations", ["site,seconds", "z,1"], "names z; the sites are a, b, c, d"),
    ("durations", ["site,seconds", "a,0"], "seconds of a are 0; they must be above 0"),
    ("durations", ["site,seconds", "a,nan"], "seconds of a are nan; they must be above 0"),
    ("durations", ["site,seconds", "b,2", "a,inf"], "seconds of a are inf; .* and finite"),
    ("durations", ["site,seconds", "a,1", "b,1", "d,1"], "has no line of c; add one"),
    ("durations", ["site,seconds", "a,soon"], "cannot be read as a table"),
    ("durations", ["site,seconds", "a"], "cannot be read as a table"),
    ("absences", ["site,seconds", "a,1"], "must have the columns site,from,until"),
    ("absences", ["site,from,until", "a,5,5"], "from must be before until"),
    ("absences", ["site,from,until", "a,-1,5"], "from must be before until"),
    ("absences", ["site,from,until", "a,1,nan"], "from must be before until"),
    ("absences", ["site,from,until", "a,4,9", "b,0,9", "a,1,5"], "absences of a overlap"),
    ("absences", ["site,from,until", "z,1,5"], "names z"),
]


@pytest.mark.parametrize(("key", "lines", "words"), BAD)
def test_a_bad_table_is_refused_by_its_key(
    tmp_path: Path, key: str, lines: list[str], words: str
) -> None:
    knobs: dict[str, Any] = {key: table(tmp_path, *lines)}
    with pytest.raises(ConfigError, match=words) as error:
        clock(**knobs)
    assert f"simulation.{key}" in str(error.value)


@given(st.floats(0, 10), st.floats(0.01, 10))
def test_who_is_back_is_not_absent_again_by_rounding(start: float, length: float) -> None:
    clock = Absent([(start, start + length)])
    back_at = clock.work("a", 0, start).back_at
    assert back_at is not None
    assert clock.work("a", 1, back_at).back_at is None


def test_a_table_that_is_not_there_is_named_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"missing\.csv does not exist; give a CSV .* site,seconds"
    ):
        clock(durations=str(tmp_path / "missing.csv"))
