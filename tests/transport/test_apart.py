"""The same sites and server, apart: the same digest, whatever happens to the streams."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from apart import SITES, agent_of, config_of, serve, stores, together
from cables import Cables
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfed_hn.errors import ConfigError, DataError, FederationError
from rayfed_hn.federation.wire import Message
from rayfed_hn.transport.frames import Frame, Kind
from rayfed_hn.transport.site_agent import SiteAgent

MODES = {
    "synchronous": (),
    "simulated time": (
        *("simulation.enabled=true", "simulation.slowest=3", "rounds.buffer_size=1"),
        "simulation.dropout=0.2",
    ),
    "shared scale": ("model.standardise=shared",),
    "paper noise": ("privacy.noise_scale=0.1", "privacy.noise_source=seeded"),
    "pfedhn": ("method.name=pfedhn",),
    "fedavg, no averages": ("method.name=fedavg", "evaluation.readout=last"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores(tmp_path_factory.mktemp("apart"))


def all_join(root: Path, folder: Path, cables: Cables, *words: str) -> None:
    for site in reversed(SITES):  # who comes first does not matter
        cables.connect(site, agent_of(root, folder, site, words))


@pytest.mark.parametrize("mode", MODES)
def test_apart_is_as_together(root: Path, tmp_path: Path, mode: str) -> None:
    words = MODES[mode]
    cables = Cables()
    all_join(root, tmp_path, cables, *words)
    summary = serve(cables, tmp_path, words)
    outcome = together(root, *words)
    assert summary["digest"] == outcome.digest
    assert (summary["status"], summary["exit_code"]) == ("complete", 0)
    for reply in (cables.ended[site] for site in SITES):
        assert reply.ended
        assert reply.error is None
    for site in SITES:  # each has its own networks, and the server has none of them
        assert (tmp_path / f"run-{site}" / "sites" / site / "network_last.safetensors").exists()
        assert not (tmp_path / "run" / "sites" / site / "network_last.safetensors").exists()
        assert (tmp_path / "run" / "sites" / site / "scores.parquet").exists()


def test_what_leaves_a_site_is_charged_though_time_is_simulated(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "stores")
    words = ("simulation.enabled=true", "privacy.mechanism=site_ldp", "privacy.target_epsilon=8")
    cables = Cables()
    all_join(tmp_path / "stores", tmp_path, cables, *words)
    summary = serve(cables, tmp_path, words)
    assert summary["privacy"]["noise_source"] == "os"
    for site in SITES:
        ledger = tmp_path / "stores" / site / f"site={site}" / "privacy" / "ledger.jsonl"
        assert (tmp_path / "run" / "run_id").read_text() in ledger.read_text()


FAULTS = ("none", "cut before", "cut after", "died before", "died after")


class Faulty(Cables):
    """Cables on which something happens at given frames; a site is back at once."""

    def __init__(self, root: Path, folder: Path, faults: list[str], words: tuple[str, ...]) -> None:
        super().__init__(self.before, self.afterwards)
        self.root, self.folder, self.faults, self.words = root, folder, iter(faults), words
        self.present = "none"
        self.happened = 0

    def before(self, cables: Cables, site: str, frame: Frame) -> bool:
        self.present = "none" if frame.kind < Kind.TRAIN else next(self.faults, "none")
        return self.happens(site, " before")

    def afterwards(self, cables: Cables, site: str, frame: Frame) -> bool:
        return self.happens(site, " after")

    def happens(self, site: str, when: str) -> bool:
        what = self.present.split()[0]
        if not self.present.endswith(when):
            return False
        self.happened += 1
        same = self.agents[site] if what == "cut" else None
        self.cut(site)
        self.connect(site, same or agent_of(self.root, self.folder, site, self.words))
        return True


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.sampled_from(FAULTS), max_size=8),
    st.sampled_from(["shared scale", "simulated time", "paper noise"]),
)
def test_a_stream_that_breaks_and_a_process_that_dies_change_nothing(
    root: Path, faults: list[str], mode: str
) -> None:
    words = (*MODES[mode], "model.standardise=shared", "resources.site_restarts=20")
    with TemporaryDirectory() as name:
        folder = Path(name)
        cables = Faulty(root, folder, faults, words)
        all_join(root, folder, cables, *words)
        summary = serve(cables, folder, words)
        assert summary["digest"] == together(root, *words).digest
        assert summary["exit_code"] == 0
        died = sum(fault.startswith("died") for fault in faults)
        assert sum(summary["restarts"].values()) <= died
        if len(faults) <= 2:
            assert sum(summary["restarts"].values()) == died


def test_an_answer_that_was_lost_is_sent_again_to_the_byte(root: Path, tmp_path: Path) -> None:
    answers: list[tuple[int, bytes]] = []

    class Noted(SiteAgent):
        def _answer(self, frame: Frame, host: object) -> Message:
            message = super()._answer(frame, host)  # type: ignore[arg-type]
            answers.append((frame.number, bytes(message)))
            return message

    words = ("resources.site_restarts=20",)
    cables = Faulty(root, tmp_path, ["cut after"] * 3, words)
    for site in SITES:
        own = tmp_path / f"run-{site}"
        own.mkdir()
        cables.connect(site, Noted(config_of(*words), root / site, site, own))
    serve(cables, tmp_path, words)
    assert cables.happened == 3
    twice = [number for number, _ in answers if sum(n == number for n, _ in answers) > 1]
    assert twice
    for number in twice:
        assert len({message for n, message in answers if n == number}) == 1


def test_a_server_that_died_goes_on_from_its_last_commit(root: Path, tmp_path: Path) -> None:
    words = ("rounds.num_versions=4", "model.standardise=shared")
    seen = []

    def die(cables: Cables, site: str, frame: Frame) -> bool:
        seen.append(frame.kind)
        if seen.count(Kind.TRAIN) == 5:
            raise KeyboardInterrupt
        return False

    cables = Cables(die)
    agents = {site: agent_of(root, tmp_path, site, words) for site in SITES}
    for site, agent in agents.items():
        cables.connect(site, agent)
    with pytest.raises(KeyboardInterrupt):
        serve(cables, tmp_path, words)
    again = Cables()
    again.connect("a", agents["a"])  # the same process as before
    again.connect("b", agent_of(root, tmp_path, "b", words))  # and one that is new
    summary = serve(again, tmp_path, (*words, "run.resume=true"))
    assert summary["resumed_from"] == [2]
    assert summary["digest"] == together(root, *words).digest


def test_a_new_folder_cannot_take_the_place_of_one_that_remembers(
    root: Path, tmp_path: Path
) -> None:
    def forget(cables: Cables, site: str, frame: Frame) -> bool:
        if frame.kind is Kind.TRAIN and site == "a":
            cables.cut("a")
            shutil.rmtree(tmp_path / "run-a")
            cables.connect("a", agent_of(root, tmp_path, "a"))
            return True
        return False

    cables, told = Cables(forget), list[str]()
    all_join(root, tmp_path, cables)
    words = ("resources.node_wait=0.01", "resources.node_limit=2")
    summary = serve(cables, tmp_path, words, told)
    assert [loss["site"] for loss in summary["lost_sites"]] == ["a"]
    assert summary["exit_code"] == 3
    error = cables.ended["a"].error
    assert isinstance(error, FederationError)
    assert "run.resume=true" in str(error)
    assert "a was turned away: forgotten" in told


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("privacy.noise_scale=0.5", "privacy.noise_scale"),
        ("rounds.num_versions=3", "rounds.num_versions"),
        ("run.seed=1", "run.seed"),
        ("run.keep_commits=9", "run.keep_commits"),
        ("task.classes=1,0", "task.classes"),
    ],
)
def test_a_site_refuses_other_settings_and_names_the_key(
    root: Path, tmp_path: Path, word: str, key: str
) -> None:
    cables, told = Cables(), list[str]()
    cables.connect("a", agent_of(root, tmp_path, "a"))
    with pytest.raises(FederationError, match="did not join within"):
        serve(cables, tmp_path, (word, "resources.node_limit=1"), told)
    error = cables.ended["a"].error
    assert isinstance(error, ConfigError)
    assert str(error).startswith(f"{key}: ")
    assert "a does not agree to the settings of this run (its console says which)" in told
    assert not (tmp_path / "run" / "cards").exists()


def test_a_site_that_was_embedded_otherwise_can_be_mended(root: Path, tmp_path: Path) -> None:
    for whole in (False, True):
        cables = Cables()
        all_join(root, tmp_path, cables)
        if not whole:  # another process of it, and one that was embedded otherwise
            other = agent_of(root, tmp_path, "b")
            other.card = replace(other.card, recipe="cd" * 32)
            cables.connect("b", other)
            with pytest.raises(DataError, match="bags of different recipes"):
                serve(cables, tmp_path)
            assert not (tmp_path / "run" / "cards").exists()
        else:
            summary = serve(cables, tmp_path, ("run.resume=true",))
            assert summary["digest"] == together(root).digest


@pytest.mark.parametrize("later", [5, 500])
def test_a_site_whose_line_is_down_at_the_end_hears_of_it(
    root: Path, tmp_path: Path, later: float
) -> None:
    def cut(cables: Cables, site: str, frame: Frame) -> bool:
        if frame.kind is Kind.EVALUATE and len(evaluated) == 1:
            before, agent = evaluated[0], cables.agents[evaluated[0]]
            cables.cut(before)  # which has answered this
            cables.at(cables.now + later, lambda: cables.connect(before, agent))
        evaluated.extend([site] if frame.kind is Kind.EVALUATE else [])
        return False

    evaluated, told = list[str](), list[str]()
    cables = Cables(cut)
    all_join(root, tmp_path, cables)
    summary = serve(cables, tmp_path, ("resources.node_wait=60",), told)
    assert (summary["digest"], summary["exit_code"]) == (together(root).digest, 0)
    first, last = evaluated
    assert f"waiting 60 s for {first}, to say that this was it" in told
    assert cables.ended[last].error is None
    if later < 60:
        assert cables.ended[first].ended
        assert cables.ended[first].error is None
    else:
        assert first not in cables.ended
