"""Maps of attention: what they show, where they lie, and what is in none of them."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_federations import create, write_placed

from rayfed_hn.config import Config
from rayfed_hn.federation import attention_maps
from rayfed_hn.federation.attention_maps import BLANK, CELL_PX, HIGH, MAX_SIDE, draw
from rayfed_hn.federation.cell import fingerprint
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.experiment import Outcome, finish
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load

WORDS = ("rounds.num_versions=2", "training.steps=2", "model.standardise=none")


def bag_of(places: list[list[int]], tile_size0: float = 100.0) -> SiteBag:
    features_ND = np.zeros((len(places), 2), np.float32)
    coords_N2 = np.array(places, np.int64)
    return SiteBag(features_ND, 1, 0, 0, coords_N2=coords_N2, tile_size0=tile_size0)


def test_a_cell_is_a_tile_and_dark_where_attention_is_high() -> None:
    bag = bag_of([[500, 300], [700, 300], [500, 400]])
    drawn = draw(bag, np.array([0.1, 0.7, 0.2]))
    assert drawn is not None
    cells = drawn[::CELL_PX, ::CELL_PX].astype(int)
    assert cells.shape == (2, 3, 3)  # two rows, three columns
    assert (cells[0, 2] == HIGH.astype(int)).all()
    assert cells[0, 2].sum() < cells[1, 0].sum() < cells[0, 0].sum()
    for row, column in ((0, 1), (1, 1), (1, 2)):
        assert (cells[row, column] == BLANK).all()


def test_large_slides_share_cells_and_the_highest_counts() -> None:
    side = 3 * MAX_SIDE
    bag = bag_of([[x, 0] for x in range(side)], 1.0)
    attention = np.linspace(0, 1, side)[::-1]
    drawn = draw(bag, attention)
    assert drawn is not None
    assert drawn.shape == (CELL_PX, CELL_PX * MAX_SIDE, 3)
    assert (drawn[0, 0] == HIGH.astype(int)).all()


def test_tiles_without_places_are_not_drawn() -> None:
    assert draw(bag_of([[0, 0], [0, 0]]), np.array([0.5, 0.5])) is None
    assert draw(bag_of([[7, 7]]), np.array([1.0])) is not None
    pooled = replace(bag_of([[0, 0]]), coords_N2=None)
    assert draw(pooled, np.array([1.0])) is None


def run(plan: Plan, folder: Path) -> Outcome:
    server = plan.server()
    host = SiteHost(plan, plan.participants, folder)
    executor = plan.executor(InProcessExecutor(host, plan.read))
    list(run_federation(server, executor))
    outcome = finish(plan, server, executor)
    assert not outcome.lost
    return outcome


def planned(root: Path, *words: str, real: bool = False) -> Plan:
    config: Config = load(None, [*WORDS, *words])
    plan = make_plan(config, root)
    return replace(plan, run_id="f" * 32) if real else plan


@pytest.fixture
def placed_root(tmp_path: Path) -> Path:
    """Bags whose tiles lie side by side."""
    root = create(tmp_path / "bags")
    for site in ("north", "south"):
        for number in range(10):
            write_placed(root, site, f"jane-doe-{site}-{number}", "01"[number % 2])
    return root


def pictures(folder: Path) -> dict[str, tuple[int, int]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    shown = {}
    for tag in found.Tags()["images"]:
        (event,) = found.Images(tag)
        assert event.step == 2
        shown[tag] = Image.open(BytesIO(event.encoded_image_string)).size
    return shown


def test_in_a_simulation_maps_are_with_what_a_site_keeps_of_the_run(
    placed_root: Path, tmp_path: Path
) -> None:
    run(planned(placed_root, "evaluation.attention_maps=2"), tmp_path / "run")
    for site in ("north", "south"):
        shown = pictures(tmp_path / "run" / "sites" / site / "tensorboard")
        assert len(shown) == 2
        assert all(t.startswith("attention of the last network/test bag ") for t in shown)
        assert set(shown.values()) == {(2 * CELL_PX, 2 * CELL_PX)}
        assert not list((placed_root / f"site={site}").rglob("events.*"))
    written = list((tmp_path / "run").rglob("events.*"))
    assert written
    assert not any(b"jane" in path.read_bytes() for path in written)


@pytest.mark.parametrize(
    ("words", "real"),
    [([], True), (["privacy.metrics=withheld"], False)],
)
def test_maps_lie_beside_the_bags_in_a_real_run_and_where_metrics_are_withheld(
    placed_root: Path, tmp_path: Path, words: list[str], real: bool
) -> None:
    run(planned(placed_root, *words, real=real), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("events.*"))
    for site in ("north", "south"):
        name = "f" * 32 if real else "simulated"
        assert pictures(placed_root / f"site={site}" / "tensorboard" / name)


@pytest.mark.parametrize("word", ["evaluation.attention_maps=0", "model.name=mean"])
def test_nothing_is_drawn_that_was_not_asked_for_or_does_not_attend(
    placed_root: Path, tmp_path: Path, word: str
) -> None:
    run(planned(placed_root, word), tmp_path / "run")
    assert not list(tmp_path.rglob("events.*"))


def test_a_place_that_cannot_be_written_costs_no_scores(placed_root: Path, tmp_path: Path) -> None:
    (placed_root / "site=north" / "tensorboard").write_text("in the way")
    run(planned(placed_root, real=True), tmp_path / "run")
    assert list((placed_root / "site=south").rglob("events.*"))


def test_a_map_that_cannot_be_drawn_costs_no_scores(
    placed_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("bag jane-doe-north-1 takes too much memory")

    made = planned(placed_root)
    whole = run(made, tmp_path / "whole").scores
    monkeypatch.setattr(attention_maps, "attention_of", broken)
    for one, other in zip(run(made, tmp_path / "run").scores, whole, strict=True):
        np.testing.assert_array_equal(one.last_BE, other.last_BE)


def test_finished_cells_are_kept_whatever_maps_are_asked_for() -> None:
    """A comparison that goes on may ask for others, and draws none."""
    asked = [load(None, [f"evaluation.attention_maps={number}"]) for number in (0, 3)]
    assert len({fingerprint(config, "") for config in asked}) == 1
