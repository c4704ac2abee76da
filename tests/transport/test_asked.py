"""What a site tells of networks is bounded, across its restarts, and whoever asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from apart import agent_of, config_of, stores
from puppets import RUN

from rayfed_hn.errors import MessageError
from rayfed_hn.federation.failures import read_failure
from rayfed_hn.federation.messages import CandidatesRequest, Request, TrainRequest
from rayfed_hn.federation.schedule import kept_turns, most_turns
from rayfed_hn.federation.wire import Message
from rayfed_hn.transport.agreement import settings
from rayfed_hn.transport.asked import Asked
from rayfed_hn.transport.frames import Frame, Kind
from rayfed_hn.transport.greetings import Welcome
from rayfed_hn.transport.requests import request_frame

WORDS = ("model.standardise=none",)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores(tmp_path_factory.mktemp("asked"))


class Site:
    """A site that has agreed, and what its operator was told."""

    def __init__(self, root: Path, folder: Path, *words: str) -> None:
        self.agent = agent_of(root, folder, "a", (*WORDS, *words))
        self.told: list[str] = []
        self.agent._tell = self.told.append
        welcome = Welcome(RUN, settings(config_of(*WORDS, *words))).to_bytes()
        assert self.agent.take(Frame(Kind.WELCOME, welcome)).error is None

    def ask(self, request: Request) -> Message | None:
        """Its answer; None where it refuses."""
        reply = self.agent.take(request_frame(request, 1))
        assert reply.frame is not None
        return None if read_failure(reply.frame.payload) else reply.frame.payload

    def network(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.normal(size=self.agent._shapes.num_parameters).astype(np.float32) * 0.1


@pytest.mark.parametrize("words", [(), ("privacy.noise_scale=0.1", "privacy.noise_source=os")])
def test_metrics_of_one_network_after_another_are_not_told(
    root: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    site = Site(root, tmp_path, *words)
    asked = [TrainRequest("a", 0, site.network(seed), 0) for seed in range(6)]
    first = [site.ask(one) for one in asked]
    assert [answer is not None for answer in first] == [True, True, False, False, False, False]
    assert (
        "asked to train 3 different networks for version 0; no server needs more" in site.told[-1]
    )
    log = (root / "a" / "site=a" / "site.log").read_text()
    assert "asked to train 3 different networks for version 0" in log
    again = Site(root, tmp_path, *words)  # another process
    assert again.ask(asked[5]) is None
    assert again.ask(asked[1]) == first[1] or not words
    assert again.ask(TrainRequest("a", 1, again.network(9), 1)) is not None


def test_noise_cannot_be_drawn_without_end(root: Path, tmp_path: Path) -> None:
    site = Site(root, tmp_path)
    limit = most_turns(config_of(*WORDS))
    network = site.network(0)
    answered = [site.ask(TrainRequest("a", 1, network, turn)) for turn in range(limit + 3)]
    assert sum(answer is not None for answer in answered) == limit
    assert f"asked to train {limit + 1} times in one run" in site.told[-1]


def test_what_is_asked_again_counts_once_its_answer_is_not_kept(tmp_path: Path) -> None:
    config = config_of("rounds.num_versions=9")
    notes, kept, most = Asked(tmp_path, config), kept_turns(config), most_turns(config)
    same = [TrainRequest("a", 1, np.zeros(3, np.float32), turn) for turn in range(kept + 1)]
    for _ in range(3):
        notes.check(same[0])
    for number in range(most):  # in a circle, so that none is kept
        notes.check(same[number % len(same)])
    with pytest.raises(MessageError, match=f"asked to train {most + 1} times"):
        notes.check(same[most % len(same)])


def test_a_fast_site_may_be_asked_often_while_others_are_waited_for(tmp_path: Path) -> None:
    config = config_of("rounds.buffer_size=3", "rounds.robust=median")
    notes = Asked(tmp_path, config)
    for turn in range(most_turns(config) + 1):
        notes.check(TrainRequest("a", 0, np.zeros(3, np.float32), turn))


def test_candidates_are_judged_twice_at_most(tmp_path: Path) -> None:
    none = np.zeros((0, 3), np.float32)
    asked = [CandidatesRequest("a", 2, np.full(3, n, np.float32), none, 1) for n in range(3)]
    for number, one in enumerate((*asked[:2], asked[0])):  # a server may go back and come again
        Asked(tmp_path, config_of()).check(one)
        assert len((tmp_path / "asked.jsonl").read_text().splitlines()) == min(number + 1, 2)
    with pytest.raises(MessageError, match="for the third time"):
        Asked(tmp_path, config_of()).check(asked[2])


@pytest.mark.parametrize(("words", "most"), [((), 2), (("rounds.buffer_size=3",), 4)])
def test_as_many_networks_as_a_version_may_need(
    tmp_path: Path, words: tuple[str, ...], most: int
) -> None:
    notes = Asked(tmp_path, config_of(*words))
    for turn in range(most):
        notes.check(TrainRequest("a", 1, np.full(3, turn, np.float32), turn))
    notes.check(TrainRequest("a", 1, np.zeros(3, np.float32), most))
    with pytest.raises(MessageError, match=f"{most + 1} different networks for version 1"):
        notes.check(TrainRequest("a", 1, np.full(3, 9, np.float32), most))
    notes.check(TrainRequest("a", 0, np.full(3, 9, np.float32), 0))
