from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rayfed_hn.bags import store
from rayfed_hn.bags.bag import ARTEFACTS
from rayfed_hn.bags.tile_filter import TileFilter, tile_filter
from rayfed_hn.config import DataConfig

shares = st.one_of(st.just(np.nan), st.floats(0, 1, width=32))


@given(
    hnp.arrays(np.float32, (6, 4), elements=shares),
    st.lists(st.none() | st.floats(0, 1), min_size=4, max_size=4),
)
def test_a_tile_stays_unless_a_known_share_is_above_its_limit(
    artefacts_N4: np.ndarray, limits: list[float | None]
) -> None:
    keeps = TileFilter(tuple(limits)).keeps(artefacts_N4)
    for row, kept in zip(artefacts_N4, keeps, strict=True):
        broken = [
            limit is not None and not np.isnan(share) and float(share) > limit
            for share, limit in zip(row, limits, strict=True)
        ]
        assert kept == (not any(broken))


def test_every_artefact_has_its_knob() -> None:
    config = DataConfig(max_blur=0.1, max_pen=0.2, max_black=0.3, max_white=0.4)
    assert tile_filter(config).limits == (0.1, 0.2, 0.3, 0.4)
    assert dict(zip(ARTEFACTS, tile_filter(config).limits, strict=True))["pen"] == 0.2
    assert not tile_filter(DataConfig())


def test_bags_without_the_tiles_that_do_not_count(tmp_path: Path, bag_root: Path) -> None:
    bag = store.SiteBags(bag_root, "north").load(1)
    artefacts_N4 = np.zeros((len(bag), 4), np.float32)
    artefacts_N4[::2, 1] = 0.5
    store.create(tmp_path, {"feature_dim": 12})
    store.write(tmp_path, replace(bag, artefacts_N4=artefacts_N4))
    spoilt = replace(bag, slide_id="spoilt", artefacts_N4=np.ones_like(artefacts_N4))
    store.write(tmp_path, spoilt)
    whole = store.SiteBags(tmp_path, "north")
    assert [entry.num_tiles for entry in whole.entries] == [len(bag), len(bag)]
    site = store.SiteBags(tmp_path, "north", tile_filter(DataConfig(max_pen=0.4)))
    assert [entry.num_tiles for entry in site.entries] == [len(bag.tissue_N[1::2])]
    assert np.array_equal(site.load(0).features_ND, bag.features_ND[1::2])
    assert np.array_equal(site.load(0).tissue_N, bag.tissue_N[1::2])
    (why,) = site.unusable
    assert "no tile is left" in why
    assert "max_pen" in why


def test_a_filter_that_leaves_all_tiles_copies_nothing(bag_root: Path) -> None:
    site = store.SiteBags(bag_root, "north", tile_filter(DataConfig(max_blur=0.0)))
    assert not site.load(0).features_ND.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        site.load(0).features_ND[0, 0] = 1
