"""A run with a formal guarantee, on actors: what it says while it runs, and at its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayfed_hn.errors import BudgetSpent, FederationError
from rayfed_hn.federation.privacy_record import privacy_record
from rayfed_hn.loading import load, to_yaml
from rayfed_hn.orchestration.actors import Progress
from rayfed_hn.orchestration.train import train
from rayfed_hn.reporting.report import write_report

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
WORDS = [
    *("rounds.num_versions=3", "training.steps=2", "resources.sites_per_actor=9"),
    *("privacy.mechanism=site_ldp", "privacy.target_epsilon=8"),
]


def run(bags: Path, folder: Path, *words: str) -> tuple[Mapping[str, Any], list[Progress]]:
    news: list[Progress] = []
    return train(load(None, [*WORDS, *words]), bags, folder, news.append), news


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def own_bags(bag_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose ledgers nobody else writes."""
    return shutil.copytree(bag_root, tmp_path_factory.mktemp("own") / "bags")


@pytest.fixture(scope="module")
def finished(
    own_bags: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> tuple[Path, Mapping[str, Any], list[Progress]]:
    folder = tmp_path_factory.mktemp("private")
    return folder, *run(own_bags, folder)


def test_privacy_json_is_what_the_run_directory_says(
    finished: tuple[Path, Mapping[str, Any], list[Progress]],
) -> None:
    folder, summary, _ = finished
    found = json.loads((folder / "privacy.json").read_text())
    assert found == privacy_record(summary, lines(folder))
    assert found["noise_source"] == "os"
    assert found["formal_guarantee"] == summary["privacy"]["formal_guarantee"]
    assert found["formal_guarantee"].startswith("(8, 1e-05)-DP of every site after 3 releases")
    for site in found["sites"]:
        assert (site["updates"], site["releases"], site["not_used"]) == (3, 3, 0)
        assert site["epsilon"] == pytest.approx(8, rel=1e-6)
        assert 0 < site["num_training_cases"] <= 10
    (folder / "config.yaml").write_text(to_yaml(load(None, WORDS)))
    assert found["in_words"][0] in write_report(folder).read_text()


def test_progress_tells_signal_to_noise(
    finished: tuple[Path, Mapping[str, Any], list[Progress]],
) -> None:
    folder, _, news = finished
    for one in news:
        own = [r["signal_to_noise"] for r in lines(folder) if r["made"] == one.version]
        assert len(own) == 3
        assert one.signal_to_noise == pytest.approx(np.mean(own))


def test_tensorboard_has_signal_to_noise_and_epsilon_of_every_site(
    finished: tuple[Path, Mapping[str, Any], list[Progress]],
) -> None:
    (events,) = (finished[0] / "tensorboard").glob("events.*")
    content = events.read_bytes()
    for site in ("north", "south", "west"):
        for name in ("signal_to_noise", "epsilon"):
            assert content.count(f"{name}/{site}".encode()) == 3


def test_a_site_whose_budget_is_spent_has_stopped(bag_root: Path, tmp_path: Path) -> None:
    """Another run on the same bags has no budget left; the first had all of it."""
    bags = shutil.copytree(bag_root, tmp_path / "bags")
    for ledger in bags.glob("site=*/privacy"):  # of other tests
        shutil.rmtree(ledger)
    words = ["privacy.budget=10"]
    run(bags, tmp_path / "first", *words)
    shutil.rmtree(bags / "site=west" / "privacy")  # as if it had taken no part
    summary, _ = run(bags, tmp_path / "second", *words)
    stopped = [loss["site"] for loss in summary["lost_sites"]]
    assert sorted(stopped) == ["north", "south"]
    assert all(loss["reason"].startswith(BudgetSpent.told) for loss in summary["lost_sites"])
    found = json.loads((tmp_path / "second" / "privacy.json").read_text())
    at = {site["site"]: site["stopped_at"] for site in found["sites"]}
    assert at == {
        "west": None,
        **{loss["site"]: loss["version"] for loss in summary["lost_sites"]},
    }


def test_a_run_that_nobody_has_a_budget_for_leaves_a_page(bag_root: Path, tmp_path: Path) -> None:
    bags, words = shutil.copytree(bag_root, tmp_path / "bags"), ["privacy.budget=10"]
    for ledger in bags.glob("site=*/privacy"):  # of other tests
        shutil.rmtree(ledger)
    run(bags, tmp_path / "first", *words)
    folder = tmp_path / "second"
    with pytest.raises(FederationError, match="privacy budget does not allow it"):
        run(bags, folder, *words)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"]) == ("failed", 1)
    assert "privacy budget does not allow it" in summary["reason"]
    assert summary["privacy"]["formal_guarantee"].startswith("(8, 1e-05)-DP of every site")
    (folder / "config.yaml").write_text(to_yaml(load(None, WORDS)))
    assert "privacy budget does not allow it" in write_report(folder).read_text()
