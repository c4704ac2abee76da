from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import SITES, make_train_run

from rayfed_hn.errors import DataError
from rayfed_hn.reporting.report import write_report
from rayfed_hn.reporting.site_map import CAUTION, TITLE, _sentence
from rayfed_hn.reporting.site_map_figures import distance_square, point_map

_SVG = "{http://www.w3.org/2000/svg}svg"
_LEARNED = {"learned": True, "by_chance": True, "equally_far": False}


def _pairwise(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def make_map(folder: Path, sites: Sequence[str] = SITES, **changes: Any) -> dict[str, Any]:
    """Sites on a line, every gap larger than the one before; embeddings fixed."""
    count = len(sites)
    points = np.zeros((count, 2))
    points[:, 0] = 0.01 * np.arange(count) ** 2
    equal = np.sqrt(2) * (1 - np.eye(count))
    fixed = {"learned": False, "by_chance": False, "equally_far": True}
    values = {
        "sites": list(sites),
        "mapped": list(sites),
        "mean_norm": 2.0,
        "personal": [0.02 * (i + 1) for i in range(count)],
        "distances": _pairwise(points).tolist(),
        "map": {"points": (points - points.mean(axis=0)).tolist(), "share": 0.75},
        "embeddings": {**fixed, "distances": equal.tolist()},
    }
    values |= changes
    (folder / "site_map.json").write_text(json.dumps(values), encoding="utf-8")
    return values


def _page(folder: Path) -> ET.Element:
    return ET.fromstring(write_report(folder).read_text(encoding="utf-8").split("\n", 1)[1])


def _words(folder: Path) -> str:
    page = _page(folder)
    labels = " ".join(picture.get("aria-label") or "" for picture in page.iter(_SVG))
    return " ".join(f"{' '.join(page.itertext())} {labels}".split())


def test_a_run_without_the_file_has_no_such_section(train_run: Path) -> None:
    found = _words(train_run)
    assert TITLE not in found
    assert CAUTION not in found


def test_the_section_says_who_is_near_whom(train_run: Path) -> None:
    make_map(train_run)
    found = _words(train_run)
    assert TITLE in found
    assert CAUTION in found
    assert f"To the server, {SITES[0]} and {SITES[1]} are the most alike" in found
    assert f"{SITES[4]} differs most from all others." in found
    assert f"{SITES[1]} {SITES[0]} 1 % 4 % 41" in found  # nearest, distance, personal, bags
    assert f"{SITES[4]} {SITES[3]} 7 % 10 % 44" in found
    assert "it keeps 75 % of the variance (equally distant sites: 50 %)" in found
    assert "1 to 16 % of the mean network's norm" in found
    assert f"Map of 5 sites; {SITES[0]} and {SITES[1]} have the smallest distance, 1 %" in found
    assert f"{SITES[2]} nearest to {SITES[1]}" in found
    assert "The noise that sites add" in found


def test_fixed_embeddings_are_said_to_say_nothing_and_are_not_drawn(train_run: Path) -> None:
    values = make_map(train_run)
    found = _words(train_run)
    assert "equally far apart (√2) by construction" in found
    assert "nearest by embedding" not in found
    assert "Distances between embeddings" not in found
    assert "happens where their slides teach similar things" in found
    assert "by chance" not in found
    make_map(train_run, embeddings=values["embeddings"] | _LEARNED | {"learned": False})
    found = _words(train_run)
    assert "fixed and drawn at random" in found
    assert "so from the start, by chance" in found
    assert "teach similar things" not in found
    make_map(train_run, embeddings=None)
    assert "This method has no embeddings" in _words(train_run)


def test_learned_embeddings_have_their_own_square_and_neighbours(train_run: Path) -> None:
    values = make_map(train_run)
    far = _pairwise(np.array([[0.0], [8.0], [1.0], [20.0], [30.0]])).tolist()
    make_map(train_run, embeddings=values["embeddings"] | _LEARNED | {"distances": far})
    found = _words(train_run)
    assert f"{SITES[0]} {SITES[1]} {SITES[2]} 1 % 2 % 40" in found
    assert "Distances between embeddings" in found
    assert "in this method can also be chance" in found


@pytest.mark.parametrize(
    ("personal", "words"),
    [(0.0, "one and the same network for all sites"), (None, "not finite numbers")],
)
def test_where_nothing_is_personal_there_is_no_map(
    train_run: Path, personal: float | None, words: str
) -> None:
    changes: dict[str, Any] = {"distances": None, "map": None, "embeddings": None}
    make_map(train_run, **changes, personal=[personal] * len(SITES))
    found = _words(train_run)
    assert words in found
    assert "Map of the sites" not in found


def test_one_site_has_no_map_and_isolated_ones_no_server(train_run: Path) -> None:
    alone = {"distances": None, "map": None, "personal": [0.0]}
    embedded = {"learned": False, "by_chance": False, "equally_far": True, "distances": [[0.0]]}
    make_map(train_run, ["alone"], **alone, embeddings=embedded)
    assert "one and the same network" in _words(train_run)
    make_map(train_run)
    summary = json.loads((train_run / "summary.json").read_text())
    (train_run / "summary.json").write_text(json.dumps(summary | {"method": "local"}))
    assert "What the server learned" not in _words(train_run)


def test_many_sites_are_a_sample_without_a_square_in_a_small_page(tmp_path: Path) -> None:
    sites = [f"hospital {i}" for i in range(250)]
    folder = make_train_run(tmp_path / "train", sites, num_bags=2)
    before = write_report(folder).stat().st_size
    values = make_map(folder, sites)
    some = list(range(0, 250, 5))
    changes = {"mapped": [sites[i] for i in some], "embeddings": None}
    changes["distances"] = np.array(values["distances"])[np.ix_(some, some)].tolist()
    changes["map"] = values["map"] | {"points": [values["map"]["points"][i] for i in some]}
    make_map(folder, sites, **changes)
    found = _words(folder)
    assert "A sample: 50 of 250 sites" in found
    assert "hospital 7 – – 16 % 47" in found  # measured, not mapped
    assert "Distances between networks" not in found
    assert (folder / "report.html").stat().st_size < before + 150_000


def test_pictures_are_in_the_theme_s_colours(tmp_path: Path) -> None:
    folder = make_train_run(tmp_path / "train", [f"hospital {i}" for i in range(30)])
    before = write_report(folder).stat().st_size
    make_map(folder, [f"hospital {i}" for i in range(30)])
    pictures = [ET.tostring(svg, encoding="unicode") for svg in _page(folder).iter(_SVG)]
    drawn = [text for text in pictures if "Map of" in text or "Square of" in text]
    assert len(drawn) == 2
    for text in drawn:
        assert not re.search(r"#[0-9a-f]{6}\b", text.replace("#000000", ""))
    assert (folder / "report.html").stat().st_size < before + 250_000


def test_sites_with_hostile_names_are_mapped(tmp_path: Path) -> None:
    names = ["$x^$", "_hidden", "病院", "a\u202eb", "q\"uo'te & <svg>", "long " * 30, "\\1 \\g<0>"]
    folder = make_train_run(tmp_path / "train", names)
    make_map(folder, names)
    found = _words(folder)
    assert "To the server, $x^$ and _hidden are the most alike" in found


def _drop(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {k: v for k, v in values.items() if k != name}


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: [],
        _drop("sites"),
        _drop("embeddings"),
        lambda values: values | {"distances": None},
        lambda values: values | {"distances": values["distances"][1:]},
        lambda values: values | {"distances": [[float("nan")] * 5] * 5},
        lambda values: values | {"distances": [[-1.0] * 5] * 5},
        lambda values: values | {"map": {"points": [[0, 0]] * 4, "share": 1}},
        lambda values: values | {"map": {"points": [[0, 0]] * 5, "share": "most"}},
        lambda values: values | {"mapped": ["elsewhere"]},
        lambda values: values | {"personal": [0.1]},
        lambda values: values | {"embeddings": {"learned": True}},
        lambda values: values | {"sites": [SITES[0]] * 5},
    ],
)
def test_a_damaged_file_is_named_with_a_remedy(
    train_run: Path, damage: Callable[[dict[str, Any]], Any]
) -> None:
    path = train_run / "site_map.json"
    path.write_text(json.dumps(damage(make_map(train_run))))
    with pytest.raises(DataError, match=r"cannot be used .*restore it or run again") as caught:
        write_report(train_run)
    assert str(path) in str(caught.value)
    assert not (train_run / "report.html").exists()


def test_a_file_cut_short_is_damaged_too(train_run: Path) -> None:
    make_map(train_run)
    path = train_run / "site_map.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DataError, match=r"site_map\.json cannot be used"):
        write_report(train_run)


def test_equally_distant_sites_are_no_groups() -> None:
    distances = 0.3 * (1 - np.eye(4))
    assert "sees no groups" in _sentence("abcd", distances, False)
    assert "a and b differ by 30 %" in _sentence("ab", distances[:2, :2], False)


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("size", [0.0, 1e-9, 1.0, 1e9])
def test_any_positions_are_drawn(count: int, size: float) -> None:
    points = size * np.random.default_rng(0).normal(size=(count, 2))
    names = [f"site {i}" for i in range(count)]
    for svg in (
        point_map("x", points, names, np.zeros(count), alt="a map"),
        distance_square("y", _pairwise(points), names, percent=True, alt="a square"),
    ):
        assert "nan" not in svg
        assert "inf" not in svg


def test_the_darkest_cell_is_the_closest_pair() -> None:
    distances = _pairwise(np.array([[0.0], [1.0], [5.0]]))
    svg = distance_square("x", distances, ["a", "b", "c"], percent=False, alt="a square")
    opacities = [float(o) for o in re.findall(r"series-1\); opacity: ([\d.]+)", svg)]
    assert max(opacities) == pytest.approx(0.6)
    assert len(opacities) == 2  # the largest distance is blank
    assert ">5.00<" in svg
