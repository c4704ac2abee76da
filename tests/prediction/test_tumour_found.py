"""Slides of the demo's own generator, slide labels only: attention lies in the tumour.

Over eight held-out tumour slides of two folds the *mean* share of a slide's top 1 % of tiles that
is tumour must be 80 %; a single slide may have less. A tile is tumour if half of its area is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import demo_chain
import numpy as np
import pytest
import qupath_geojson

from rayfed_hn.models.attending import attention_of
from rayfed_hn.prediction import networks
from rayfed_hn.prediction.attended import heat_of
from rayfed_hn.prediction.finished import FinishedRun
from rayfed_hn.reporting.heat_files import write_geojson
from rayfed_hn.slides.synthetic_plan import GRID_UM
from rayfed_hn.slides.truth import tumour_shares

WANTED = 0.8
pytestmark = pytest.mark.timeout(900)  # a minute of one core, which a busy machine makes longer


class Chain:
    """The slides, their bags, and the runs of two folds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bags = demo_chain.draw_and_embed(root)
        self.runs = [demo_chain.train(root / f"run{n}", self.bags, n) for n in (0, 1)]
        self.tumours = [
            (run, *place)
            for run in self.runs
            for place in demo_chain.held_out_tumours(run, self.bags)
        ]

    def shares(self, run: FinishedRun, site: str, slide: str) -> tuple[float, float]:
        """How much is tumour of the tissue, and of the top 1 % by the file for QuPath."""
        heat, bag = heat_of(run, self.bags, site, slide)
        path = self.root / f"{slide}.geojson"
        write_geojson(path, heat)
        tiles = qupath_geojson.read(path)
        corners_N2 = np.array([tile.corner for tile in tiles], np.int64)
        assert bag.mpp is not None
        mask = demo_chain.truth(self.root, slide)
        share_N = tumour_shares(mask, corners_N2, bag.tile_size0, bag.mpp, GRID_UM)
        top_N = np.array([tile.measurements["attention percentile"] > 99 for tile in tiles])
        assert 0 < top_N.mean() <= 0.02
        return float(share_N.mean()), float((share_N[top_N] >= 0.5).mean())

    def found(self) -> list[tuple[float, float]]:
        return [self.shares(*tumour) for tumour in self.tumours]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("demo-chain"))


def test_the_top_of_the_attention_is_tumour(chain: Chain) -> None:
    tumours, tops = zip(*chain.found(), strict=True)
    assert len(tops) >= 8
    assert all(0.02 <= share <= 0.15 for share in tumours), tumours
    assert np.mean(tops) >= WANTED, tops


def _shuffled(attend: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    rng = np.random.default_rng(0)
    return lambda *asked: rng.permutation(attend(*asked))


def test_of_shuffled_attention_it_is_not(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "attention_of", _shuffled(attention_of))
    tops = [top for _, top in chain.found()]
    assert np.mean(tops) < WANTED / 2, tops
