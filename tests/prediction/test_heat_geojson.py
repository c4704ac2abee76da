"""GeoJSON of a heatmap, read as QuPath reads it; and that the reader refuses what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qupath_geojson

from rayfed_hn.prediction.heat import Heat
from rayfed_hn.reporting.heat_files import write_geojson


def heat(corners: list[tuple[int, int]], attention: list[float], side: float) -> Heat:
    return Heat(
        *("s", "a", "run", "personal", "1", np.array(corners, np.int64), side),
        np.array(attention, float),
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "s.heatmap.geojson"
    write_geojson(path, heat([(0, 0), (37, 0), (0, 37)], [0.2, 0.7, 0.1], 73.14286))
    return path


def test_tiles_lie_where_they_lie_on_the_slide(written: Path) -> None:
    objects = qupath_geojson.read(written)
    assert [found.corner for found in objects] == [(0, 0), (37, 0), (0, 37)]
    for found in objects:
        xs, ys = zip(*found.ring, strict=True)
        assert max(xs) - min(xs) == pytest.approx(73.143)  # overlapping tiles keep their side
        assert max(ys) - min(ys) == pytest.approx(73.143)
        assert found.object_type == "tile"
    assert [found.measurements["attention"] for found in objects] == [0.2, 0.7, 0.1]
    percentiles = [found.measurements["attention percentile"] for found in objects]
    assert percentiles == pytest.approx([200 / 3, 100, 100 / 3])


def test_classes_can_be_told_apart_by_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "many.geojson"
    write_geojson(path, heat([(i, 0) for i in range(200)], list(np.arange(200) / 19900), 1.0))
    colours = {one.classification: one.colour for one in qupath_geojson.read(path)}
    assert set(colours) == {
        f"attention: {name}" for name in ("top 1 %", "top 10 %", "upper half", "lower half")
    }
    for name, colour in colours.items():
        others = [np.array(other) for key, other in colours.items() if key != name]
        assert min(np.abs(other - np.array(colour)).max() for other in others) > 60


@pytest.mark.parametrize("side", [1e-3, 0.5, 256, 1e6 / 3])
def test_one_tile_of_any_side_has_a_closed_ring(side: float, tmp_path: Path) -> None:
    path = tmp_path / "one.geojson"
    write_geojson(path, heat([(5, 7)], [1.0], side))
    (found,) = qupath_geojson.read(path)
    assert found.corner == (5, 7)
    assert found.classification == "attention: top 1 %"


def _reversed(feature: dict[str, Any]) -> None:
    feature["geometry"]["coordinates"][0].reverse()


def _open(feature: dict[str, Any]) -> None:
    feature["geometry"]["coordinates"][0].pop()


def _nearly_closed(feature: dict[str, Any]) -> None:
    feature["geometry"]["coordinates"][0][-1] = [1e-9, 0]


def _without_colour(feature: dict[str, Any]) -> None:
    feature["properties"]["classification"]["color"] = []


def _with_text(feature: dict[str, Any]) -> None:
    feature["properties"]["measurements"]["attention"] = "0.2"


def _nan(feature: dict[str, Any]) -> None:
    feature["properties"]["measurements"]["attention"] = float("nan")


def _other_type(feature: dict[str, Any]) -> None:
    feature["properties"]["objectType"] = "patch"


@pytest.mark.parametrize(
    "spoil",
    [_reversed, _open, _nearly_closed, _without_colour, _with_text, _nan, _other_type],
)
def test_the_reader_refuses_what_is_wrong(spoil: Any, written: Path) -> None:
    whole = json.loads(written.read_text())
    spoil(whole["features"][0])
    written.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r"."):
        qupath_geojson.read(written)


def test_the_reader_refuses_a_reference_system(written: Path) -> None:
    whole = json.loads(written.read_text())
    written.write_text(json.dumps({**whole, "crs": {"type": "name"}}))
    with pytest.raises(ValueError, match="crs"):
        qupath_geojson.read(written)
