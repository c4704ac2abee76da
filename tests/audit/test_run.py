"""What an audit reads, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from audited_runs import SITE_LDP, attacked, plan_of, run_directory

from rayfed_hn.audit.run import KEPT, OTHER, SAME, on_scale, read_run, spread
from rayfed_hn.bags import store
from rayfed_hn.errors import ConfigError, DataError

SHORT = ("training.steps=2",)


@pytest.fixture(scope="module")
def runs(leaky_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs, to be looked at only."""
    folder = tmp_path_factory.mktemp("runs")
    run_directory(folder / "kept", plan_of(leaky_root, *SHORT), keep=True)
    run_directory(folder / "plain", plan_of(leaky_root, *SHORT), keep=False)
    real = plan_of(leaky_root, *SHORT, *SITE_LDP, "run.seed=3")
    run_directory(folder / "noisy", real, keep=False)
    summary = json.loads((folder / "noisy" / "summary.json").read_text())
    (folder / "noisy" / "summary.json").write_text(json.dumps({**summary, "digest": "another"}))
    return folder


@pytest.fixture
def own(runs: Path, tmp_path: Path) -> Path:
    """A run to be changed."""
    return Path(shutil.copytree(runs / "kept", tmp_path / "run"))


def test_kept_messages_and_those_that_are_made_again_are_the_same(runs: Path) -> None:
    kept, again = read_run(runs / "kept"), read_run(runs / "plain")
    assert (kept.source, again.source) == (KEPT, SAME)
    assert kept.sites.keys() == again.sites.keys()
    for name, site in kept.sites.items():
        for one, other in zip(site.exchanges, again.sites[name].exchanges, strict=True):
            np.testing.assert_array_equal(one.received, other.received)
            np.testing.assert_array_equal(one.update, other.update)
            assert (one.version, one.turn, one.num_steps) == (
                (other.version, other.turn, other.num_steps)
            )


def test_a_run_that_does_not_repeat_is_called_another(runs: Path) -> None:
    made: list[tuple[int, int]] = []
    found = read_run(runs / "noisy", on_version=lambda done, total: made.append((done, total)))
    assert found.source == OTHER
    assert made == [(1, 3), (2, 3), (3, 3)]


def test_bags_are_on_the_scale_that_networks_see(leaky_root: Path) -> None:
    data = on_scale(plan_of(leaky_root))
    tiles_ND = torch.cat([
        torch.cat([bag.tensor() for bag in own.train]) for own in data.values()
    ])  # fmt: skip
    assert abs(float(tiles_ND.mean())) < 0.1
    raw = on_scale(plan_of(leaky_root, "model.standardise=none"))
    assert raw["north"].train[0].standardisation is None
    apart = on_scale(plan_of(leaky_root, "model.standardise=site"))
    scales = [own.train[0].standardisation for own in apart.values()]
    assert scales[0] is not None
    assert scales[1] is not None
    assert scales[0].centre_D[0] < 0 < scales[1].centre_D[0]


def test_exchanges_are_spread_over_the_run(leaky_root: Path) -> None:
    run = attacked(leaky_root, "audit.exchanges=2")
    assert [e.version for e in run.sites["north"].exchanges] == [0, 2]
    long = attacked(leaky_root, "audit.exchanges=2", "rounds.num_versions=9", "training.steps=1")
    first, last = (e.version for e in long.sites["south"].exchanges)
    assert first == 0
    assert last >= 7
    assert spread(1, 5) == (4,)
    assert spread(3, 5) == (0, 2, 4)
    assert spread(9, 3) == (0, 1, 2)


def test_words_that_would_make_another_run_are_refused(runs: Path) -> None:
    for word in ("privacy.mechanism=none", "run.seed=1", "other.yaml"):
        with pytest.raises(ConfigError, match="attacks the run as it is"):
            read_run(runs / "kept", [word])
    with pytest.raises(ConfigError, match=r"did you mean audit\.shadows"):
        read_run(runs / "kept", ["audit.shadow=3"])
    with pytest.raises(ConfigError, match="west took no part in the run; it has north, south"):
        read_run(runs / "kept", ["audit.sites=west"])


def test_bags_that_have_moved_and_bags_that_have_changed(
    own: Path, leaky_root: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(leaky_root, tmp_path / "moved"))
    assert read_run(own, [f"data.bags={moved}"]).source == KEPT
    with pytest.raises(ConfigError, match="give the bag store of the run"):
        read_run(own, ["data.bags=nowhere"])
    store.SiteBags(moved, "north").entries[0].path.unlink()
    with pytest.raises(DataError, match="not what it was when the run began"):
        read_run(own, [f"data.bags={moved}"])


def test_what_is_no_finished_run(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config.yaml"):
        read_run(tmp_path / "nothing")
    (own / "summary.json").write_text(json.dumps({"verb": "compare"}))
    with pytest.raises(ConfigError, match="no run of train"):
        read_run(own)
    (own / "summary.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_run(own)
    (own / "summary.json").unlink()
    with pytest.raises(ConfigError, match="a train that has finished"):
        read_run(own)


def test_damaged_messages_are_said_to_be(own: Path) -> None:
    path = next((own / "messages" / "south").glob("turn-000001-*.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read as a kept message"):
        read_run(own)


def test_of_sites_without_messages_nothing_is_known(own: Path) -> None:
    shutil.rmtree(own / "messages" / "north")
    assert list(read_run(own).sites) == ["south"]
    with pytest.raises(DataError, match="no update of the attacked sites"):
        read_run(own, ["audit.sites=north"])
