"""Actors that are killed at every named point: the run ends in the bits of an undisturbed one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from disturbed import SHARED, SIMULATED, assert_undisturbed, disturb, trained
from killing import hang, kill

from rayfed_hn import points
from rayfed_hn.errors import FederationError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SLOW = pytest.mark.faults
CENTRE = [point for point in points.ALL if point != points.SUMMARY]  # that one is the driver's
FEDPER = ("method.name=fedper", "training.keep_optimiser=true")  # sites remember, which crashes end


@pytest.mark.parametrize(
    ("point", "nth", "words"),
    [
        (points.SITE_TRAINED, 2, (SHARED,)),
        *(
            pytest.param(point, nth, words, marks=SLOW)
            for point in points.SITE
            for nth, words in ((1, ()), (3, (SHARED, *FEDPER)), (2, SIMULATED))
        ),
    ],
)
def test_a_site_that_is_killed_is_asked_again(
    bag_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    nth: int,
    words: tuple[str, ...],
) -> None:
    disturb(monkeypatch, "site", point, nth, tmp_path / "killed", kill, 2)
    summary, news = trained(bag_root, tmp_path / "run", *words)
    assert len(list((tmp_path / "killed").iterdir())) == 2
    assert_undisturbed(summary, bag_root, *words)
    assert sum(summary["restarts"].values()) in (2, 3, 4)  # of one site, or of two that share
    assert summary["centre_restarts"] == 0
    assert sum(news[-1].restarts.values()) <= sum(summary["restarts"].values())


@pytest.mark.faults
@pytest.mark.parametrize("nth", range(1, 20, 2))
def test_a_site_that_is_killed_while_it_is_scored(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    disturb(monkeypatch, "site", points.SITE_RECEIVED, nth, tmp_path / "killed")
    words = (SHARED, "evaluation.readout=mixture", "method.name=fedavg", "rounds.num_versions=1")
    summary, _ = trained(bag_root, tmp_path / "run", *words)
    assert_undisturbed(summary, bag_root, *words)


@pytest.mark.parametrize(
    ("point", "nth", "words"),
    [
        (points.POINTED, 2, (SHARED,)),
        *(
            pytest.param(point, nth, words, marks=SLOW)
            for point in CENTRE
            for nth, words in ((1, (SHARED,)), (2, SIMULATED))
            if (point, nth) != (points.EVALUATION, 2)
        ),
    ],
)
def test_a_central_actor_that_is_killed_goes_on(
    bag_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    nth: int,
    words: tuple[str, ...],
) -> None:
    disturb(monkeypatch, "centre", point, nth, tmp_path / "killed")
    summary, _ = trained(bag_root, tmp_path / "run", *words)
    assert (tmp_path / "killed" / "0").exists()
    assert_undisturbed(summary, bag_root, *words)
    assert summary["centre_restarts"] == 1
    # To begin again would end in the same bits; only before the first commit nothing else is left.
    begins = (point, nth) in ((points.TENSORS, 1), (points.DESCRIBED, 1))
    assert len(summary["resumed_from"]) == (not begins)


@pytest.mark.faults
def test_a_central_actor_that_always_dies_ends_the_run(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, "centre", points.APPLIED, 1, tmp_path / "killed", kill, 99)
    with pytest.raises(FederationError, match="the central actor died"):
        trained(bag_root, tmp_path / "run", "resources.centre_restarts=1")
    assert len(list((tmp_path / "killed").iterdir())) == 2
    assert (tmp_path / "run" / "checkpoints" / "LATEST").read_text() == "00000000\n"


@pytest.mark.faults
def test_a_site_that_hangs_is_ended_and_started_anew(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, "site", points.SITE_TRAINED, 2, tmp_path / "hung", hang)
    summary, _ = trained(bag_root, tmp_path / "run", "rounds.answer_timeout=15")
    assert (tmp_path / "hung" / "0").exists()
    assert_undisturbed(summary, bag_root)
    assert summary["restarts"]


@pytest.mark.faults
def test_a_site_that_always_hangs_is_lost_and_said_to_be(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, "site", points.SITE_RECEIVED, 2, tmp_path / "hung", hang, 1)
    words = ("rounds.answer_timeout=1.5", "resources.site_restarts=0", "rounds.num_versions=4")
    begun = time.monotonic()
    summary, _ = trained(bag_root, tmp_path / "run", *words)
    assert time.monotonic() - begun < 60
    assert (summary["status"], summary["exit_code"]) == ("degraded", 3)
    reasons = {loss["reason"] for loss in summary["lost_sites"]}
    assert reasons == {"it did not answer within 1.5 s"}
    assert summary["num_versions"] == 4


@pytest.mark.faults
def test_a_slow_site_is_waited_for(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dawdle() -> None:
        time.sleep(1.5)

    disturb(monkeypatch, "site", points.SITE_TRAINED, 2, tmp_path / "slow", dawdle, 2)
    summary, _ = trained(bag_root, tmp_path / "run", "rounds.answer_timeout=20")
    assert (tmp_path / "slow" / "0").exists()
    assert_undisturbed(summary, bag_root)
    assert not summary["restarts"]


@pytest.mark.faults
def test_a_deadline_comes_though_nobody_says_anything(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two actors hangs at its first request of all: no further message ever comes."""
    disturb(monkeypatch, "site", points.SITE_RECEIVED, 1, tmp_path / "hung", hang, 1)
    words = ("rounds.deadline=2", "rounds.num_versions=2", "resources.sites_per_actor=1")
    words += ("rounds.answer_timeout=8", "resources.site_restarts=0", "model.standardise=none")
    summary, news = trained(bag_root, tmp_path / "run", *words)
    assert summary["num_versions"] == 2
    assert news[0].num_alive == 3  # made without it, while it was still hoped for
    assert summary["exit_code"] == 3


@pytest.mark.faults
def test_fewer_sites_than_are_needed_end_the_run_and_keep_what_is_committed(
    bag_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(monkeypatch, "site", points.SITE_TRAINED, 4, tmp_path / "killed")
    words = ("resources.site_restarts=0", "rounds.min_sites=3", "rounds.num_versions=4")
    with pytest.raises(FederationError, match=r"rounds\.min_sites is 3.*its actor died"):
        trained(bag_root, tmp_path / "run", *words)
    monkeypatch.undo()
    words = (*words, "run.resume=true")
    summary, news = trained(bag_root, tmp_path / "run", *words)
    assert news
    assert news[0].version > 1  # from the last commit, which was whole
    assert len(news) < 4
    assert summary["num_versions"] == 4
