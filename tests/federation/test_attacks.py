"""Updates that no honest site sends: taken as what they are, or refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Forge, Hostile, attacked, bags_of_five
from safetensors.numpy import save
from small_server import answer, new_server

from rayfed_hn.config import RoundsConfig
from rayfed_hn.federation.event_trace import Recorded, Replay, verdicts
from rayfed_hn.federation.experiment import prepare, run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.messages import TrainRequest, Update, read_answer
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.rules.averaging import FedAvg
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.loading import load

SHORT = (
    "rounds.num_versions=4",
    "training.steps=4",
    "training.learning_rate=0.01",
    "evaluation.readout=last",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bags_of_five(tmp_path_factory.mktemp("five"))


def plan(root: Path, *words: str) -> Plan:
    return make_plan(load(None, [*SHORT, *words]), root)


def with_values(change: Callable[[np.ndarray], np.ndarray]) -> Forge:
    """Sends other values, of whatever shape and type, under the right header."""

    def forge(request: TrainRequest, honest: Update) -> bytes:
        return bytes(replace(honest, update=change(honest.update)).to_bytes())

    return forge


def one(value: float) -> Forge:
    def change(u: np.ndarray) -> np.ndarray:
        changed = u.copy()
        changed[3] = value
        return changed

    return with_values(change)


def tensors(*left_out: str, **more: np.ndarray) -> Forge:
    def forge(request: TrainRequest, honest: Update) -> bytes:
        values = [getattr(honest, name) for name in Update.SCALARS]
        scalars = np.array([np.nan if value is None else float(value) for value in values])
        found = {"update": honest.update, "scalars": scalars} | more
        return save({name: found[name] for name in found if name not in left_out})

    return forge


REFUSED: dict[str, tuple[Forge, str]] = {
    "NaN": (one(np.nan), "update holds a value that is not finite"),
    "infinite": (one(-np.inf), "update holds a value that is not finite"),
    "longer": (with_values(lambda u: np.append(u, u[:1])), "expected float32"),
    "shorter": (with_values(lambda u: u[1:]), "expected float32"),
    "a table": (with_values(lambda u: u[:8].reshape(2, 4)), "expected float32"),
    "float64": (with_values(lambda u: u[: len(u) // 2].astype(np.float64)), "expected float32"),
    "whole numbers": (with_values(lambda u: u[: len(u) // 2].astype(np.int64)), "expected float32"),
    "no update": (tensors("update"), "message lacks 'update'"),
    "no numbers": (tensors("scalars"), "message lacks 'scalars'"),
    "something more": (tensors(jane=np.zeros(2)), "message of 3 tensors; expected 2"),
    "too much": (lambda request, honest: b"\0" * 10**6, "bytes; at most"),
    "noise": (lambda request, honest: b"\1" * 99, "message is not safetensors"),
    "another turn": (lambda r, u: bytes(replace(u, turn=u.turn + 1).to_bytes()), "answers turn"),
    "another version": (lambda r, u: bytes(replace(u, version=9).to_bytes()), "answers version 9"),
    "x 100": (with_values(lambda u: np.float32(100) * u), "at most"),
    "x 1e30": (with_values(lambda u: np.float32(1e30) * u), "at most"),
    "a constant": (with_values(lambda u: np.full_like(u, 1e3)), "at most"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_site_sends_is_refused_by_name(root: Path, name: str) -> None:
    """Three times in a row, after which its site is lost; the others go on without it."""
    forge, words = REFUSED[name]
    found = attacked(plan(root, "method.name=fedavg"), forge)
    refused = found.outcome.server.refused
    assert [(r.site, r.version) for r in refused] == [("e", 0), ("e", 1), ("e", 2)]
    assert all(words in r.reason for r in refused), refused
    assert not any(bad in r.reason for r in refused for bad in ("jane", "\0", "\1"))
    (loss,) = found.outcome.lost
    assert (loss.site, loss.version) == ("e", 2)
    assert loss.reason.startswith("3 updates in a row were refused, the last one: ")
    assert [report.num_alive for report in found.reports] == [5, 5, 4, 4]
    assert np.isfinite(found.outcome.server.parameters_for("a")).all()


@pytest.fixture(scope="module")
def without(root: Path) -> np.ndarray:
    """The network of four sites whose fifth says nothing."""
    found = attacked(plan(root, "method.name=fedavg"), lambda request, honest: b"")
    return found.outcome.server.parameters_for("a")


@pytest.mark.parametrize("name", ["NaN", "x 100", "x 1e30", "a constant", "float64"])
def test_what_is_refused_leaves_no_trace(root: Path, without: np.ndarray, name: str) -> None:
    found = attacked(plan(root, "method.name=fedavg"), REFUSED[name][0])
    assert found.outcome.server.parameters_for("a").tobytes() == without.tobytes()


@pytest.mark.parametrize("value", [-0.0, 1e-45, -1e-40])
def test_the_smallest_numbers_are_numbers(root: Path, value: float) -> None:
    """Taken, and as good as nothing."""
    four = plan(root, "method.name=fedavg", "rounds.num_versions=2")
    tiny = attacked(four, with_values(lambda u: np.full_like(u, value)))
    none = attacked(four, with_values(np.zeros_like))
    assert not tiny.outcome.server.refused
    assert not none.outcome.server.refused
    networks = [run.outcome.server.parameters_for("a") for run in (tiny, none)]
    np.testing.assert_allclose(networks[0], networks[1], rtol=0, atol=1e-39)
    assert tiny.outcome.server.num_updates["e"] == 2


def test_an_honest_site_is_never_refused(root: Path) -> None:
    honest = attacked(plan(root), lambda request, update: update.to_bytes())
    assert not honest.outcome.server.refused
    assert honest.outcome.digest == run_in_process(plan(root)).digest


def followed(
    plan: Plan, forge: Forge, trace: list[dict[str, Any]] | None
) -> tuple[Server, list[dict[str, Any]]]:
    """A run with a hostile site, in an order of its own or that of a trace, and its trace."""
    torch.set_num_threads(1)
    server, lines = plan.server(), list[dict[str, Any]]()
    inner = InProcessExecutor(Hostile(SiteHost(plan, plan.participants), "e", forge), plan.read)
    executor = Recorded(inner)
    prepare(plan, server, executor)
    executor.take()
    if trace is not None:
        own = [line for line in trace if line["event"] != "screened"]
        executor = Recorded(Replay(inner, own))
    for report in run_federation(server, executor):
        events = executor.take()
        lines += [*events, *verdicts(report, events)]
    return server, lines


@pytest.mark.parametrize("name", ["NaN", "x 1e30"])
def test_a_run_whose_order_is_followed_refuses_the_same(root: Path, name: str) -> None:
    asynchronous = plan(root, "method.name=fedavg", "rounds.buffer_size=2")
    first, lines = followed(asynchronous, REFUSED[name][0], None)
    second, again = followed(asynchronous, REFUSED[name][0], lines)
    assert again == lines
    kinds = [line["event"] for line in lines if line["event"] != "update"]
    assert set(kinds) == {"refused" if name == "NaN" else "screened"}
    assert first.refused == second.refused != ()
    for key, tensor in first.state().items():
        assert torch.equal(second.state()[key], tensor), key


# -- orders ------------------------------------------------------------------------------------


def digest_of(order: tuple[int, ...], again: bool, late: bool) -> bytes:
    """Of three versions whose answers come in an order, some of them twice or for the last one."""
    server = new_server(RoundsConfig(num_versions=3), FedAvg(torch.zeros(2)))
    before: list[Update] = []
    while not server.finished:
        requests = server.dispatch()
        sent = [answer(request, 0.1 + request.turn + i) for i, request in enumerate(requests)]
        sent[2] = replace(sent[2], update=np.float32(1e30) * sent[2].update)
        for number in order:
            for old in before if late else ():
                assert server.receive(old) is None
            server.receive(sent[number])
            if again:
                assert server.receive(replace(sent[number], update=sent[0].update + 1)) is None
        before = sent
        if server.version == 2:
            break
    parts = [tensor.numpy().tobytes() for _, tensor in sorted(server.state().items())]
    return b"".join(parts)


@pytest.mark.parametrize(("again", "late"), [(False, False), (True, False), (False, True)])
def test_every_order_duplicate_and_late_answer_gives_the_same_bits(again: bool, late: bool) -> None:
    expected = digest_of((0, 1, 2, 3), False, False)
    for order in itertools.permutations(range(4)):
        assert digest_of(order, again, late) == expected, order


def test_a_late_message_of_another_request_is_refused_as_such() -> None:
    request = TrainRequest("a", 4, np.zeros(2, np.float32), 7)
    event = read_answer(request, answer(replace(request, version=3, turn=6)).to_bytes())
    assert (event.version, event.turn) == (4, 7)  # type: ignore[union-attr]
    assert event.reason == "answers version 3, asked was 4"  # type: ignore[union-attr]


# -- what is not refused -----------------------------------------------------------------------

LONG = (
    "rounds.num_versions=6",
    "training.steps=20",
    "training.learning_rate=0.005",
)


def flipped(size: float) -> Forge:
    return with_values(lambda u: np.float32(-size) * u)


def towards(request: TrainRequest, honest: Update) -> bytes:
    """Pulls the network towards one that calls everything negative (as HNTroj does)."""
    target = np.sign(np.sin(np.arange(honest.update.size, dtype=np.float32)))
    moved = request.parameters - target.astype(np.float32)
    size = 10 * np.linalg.norm(honest.update) / np.linalg.norm(moved)
    return bytes(replace(honest, update=(size * moved).astype(np.float32)).to_bytes())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", ["fedavg", "hypernetwork"])
def test_who_is_outvoted_harms_nobody(tmp_path: Path, method: str, seed: int) -> None:
    """One site of five sends ten times the opposite of what it learned, which no norm tells."""
    root = bags_of_five(tmp_path, seed)
    words = (f"method.name={method}", f"run.seed={seed}", *LONG)
    others = {
        robust: attacked(plan(root, *words, f"rounds.robust={robust}"), flipped(10))
        for robust in ("none", "norm_bound", "trimmed_mean", "median")
    }
    assert not any(run.outcome.server.refused for run in others.values())
    means = {robust: run.mean_of_others() for robust, run in others.items()}
    assert means.pop("none") < 0.6
    assert min(means.values()) > 0.95, means


def test_a_constant_target_is_outvoted(root: Path) -> None:
    words = ("method.name=fedavg", *LONG)
    honest = run_in_process(plan(root, *words)).server.parameters_for("a")
    moved = {
        robust: float(
            np.linalg.norm(
                attacked(
                    plan(root, *words, f"rounds.robust={robust}"), towards
                ).outcome.server.parameters_for("a")
                - honest
            )
        )
        for robust in ("none", "norm_bound", "trimmed_mean", "median")
    }
    assert max(moved[robust] for robust in ("norm_bound", "trimmed_mean", "median")) < (
        0.5 * moved["none"]
    ), moved
