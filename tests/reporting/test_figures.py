from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config import METHODS
from rayfed_hn.reporting.figures import Dot, Line, bar_chart, dot_plot, line_chart, spread
from rayfed_hn.reporting.theme import (
    INK,
    MARKERS,
    RULE,
    SERIES,
    Look,
    css_variables,
    look,
    printable,
)

_X = np.arange(5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10).map(sorted))
def test_labels_are_moved_apart_and_keep_their_order(positions: list[float]) -> None:
    moved = spread(positions, 0.08)
    assert all(b - a >= 0.08 - 1e-9 for a, b in itertools.pairwise(moved))
    assert min(moved) >= -1e-9
    assert max(moved) <= 1 + 1e-9


def test_labels_with_room_stay_where_they_are() -> None:
    assert spread([0.1, 0.5, 0.9], 0.08) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


def test_every_method_has_a_look_of_its_own_and_keeps_it() -> None:
    assert len({look(name, 0) for name in METHODS}) == len(METHODS)
    assert all(look(name, 0) == look(name, 3) for name in METHODS)
    four = [look(name, 0) for name in ("hypernetwork", "local", "fedavg", "pooled")]
    assert len({found.colour for found in four}) == len({found.marker for found in four}) == 4
    assert look("fedavg_ft", 0).colour == look("fedavg", 0).colour
    assert len(MARKERS) == len(SERIES)


def _luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_is_that_of_wcag_in_both_themes(theme: str) -> None:
    light, dark = css_variables().split("@media")
    values = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", light if theme == "light" else dark))

    def contrast(name: str, ground: str) -> float:
        pair = sorted((_luminance(values[name]), _luminance(values[ground])))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    for ground in ("paper", "panel"):
        assert all(contrast(text, ground) >= 4.5 for text in ("ink", "muted"))
    assert all(contrast(f"series-{i}", "paper") >= 3 for i in range(len(SERIES)))


def test_the_interval_is_drawn_where_it_is() -> None:
    def ends(low: float, high: float) -> float:
        dots = [Dot("a", 0.5, low, high, Look(SERIES[2])), Dot("b", 0.0), Dot("c", 1.0)]
        svg = dot_plot("x", dots, xlabel="AUC", alt="three dots")
        path = re.search(r'd="M ([\d.]+) ([\d.]+)\s*L ([\d.]+) \2\s*"[^>]*series-2', svg)
        assert path is not None
        return float(path[3]) - float(path[1])

    assert ends(0.4, 0.6) == pytest.approx(2 * ends(0.45, 0.55), rel=1e-3)


def test_bars_are_as_high_as_their_counts() -> None:
    svg = bar_chart("x", {"0": 6, "1": 3, "2+": 0}, xlabel="late", ylabel="updates", alt="bars")
    tops = re.findall(r'd="M [\d.]+ ([\d.]+)\s*L [\d.]+ \1\s*L [\d.]+ ([\d.]+)[^"]*z', svg)
    heights = [float(base) - float(top) for base, top in tops][-3:]
    assert heights[0] == pytest.approx(2 * heights[1], rel=1e-3)
    assert heights[2] == 0
    assert all(f">{label}<" in svg for label in ("2+", "6", "3"))


def test_a_crowd_of_lines_names_its_median_and_its_ends_only() -> None:
    lines = [Line(f"site-{i:02}", _X, np.full(5, 0.5 + i / 100)) for i in range(20)]
    svg = line_chart("x", lines, ylabel="AUC", alt="twenty lines")
    assert set(re.findall(r"site-\d\d", svg)) == {"site-00", "site-19"}
    assert "median of 20" in svg


def test_undefined_stretches_are_gaps_and_an_undefined_line_has_no_name() -> None:
    gap = np.array([0.5, np.nan, 0.7, 0.8, np.nan])
    lines = [Line("gap", _X, gap), Line("nothing", _X, np.full(5, np.nan))]
    svg = line_chart("x", lines, ylabel="AUC", alt="a line")
    assert ">gap<" in svg
    assert "nothing" not in svg
    assert "nan" not in svg


def test_log_axes_have_plain_numbers() -> None:
    svg = line_chart("x", [Line("a", _X, 10.0**-_X)], ylabel="norm", alt="a line", log=True)
    assert "mathdefault" not in svg
    assert ">0.01<" in svg


def test_colours_become_variables_and_alt_texts_are_escaped() -> None:
    svg = dot_plot("x", [Dot("<i>$a$</i>", 0.7)], xlabel="AUC", alt='a "dot" \\1 <i>')
    assert INK not in svg
    assert RULE not in svg
    assert "var(--series-1)" in svg
    assert 'aria-label="a &quot;dot&quot; \\1 &lt;i&gt;"' in svg
    assert "&lt;i&gt;$a$&lt;/i&gt;" in svg


def test_printable_is_one_short_line() -> None:
    assert printable("a\nb\x00c") == "a b c"
    assert printable("") == "?"
    assert len(printable("x" * 100)) == 40
