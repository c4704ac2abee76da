"""Messages are overheard without being changed, and kept as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_federations import assert_equal_outcomes, plan_of

from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.exchanges import (
    Exchange,
    ExchangeFiles,
    Overheard,
    check_kept,
    kept_bytes,
)
from rayfed_hn.federation.experiment import Outcome, finish, prepare, run_in_process
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_host import SiteHost

ASYNCHRONOUS = ("simulation.enabled=true", "rounds.buffer_size=2", "rounds.num_versions=4")
LOSSES = (*ASYNCHRONOUS, "simulation.dropout=0.3", "run.seed=3")


def overhear(plan: Plan) -> tuple[list[Exchange], Outcome]:
    heard: list[Exchange] = []
    server = plan.server()
    inner = InProcessExecutor(SiteHost(plan, plan.participants))
    executor = plan.executor(Overheard(inner, heard.append))
    prepare(plan, server, executor)
    for _ in run_federation(server, executor):
        pass
    return heard, finish(plan, server, executor)


@pytest.mark.parametrize("words", [(), ASYNCHRONOUS, LOSSES, ("method.name=fedavg",)])
def test_a_run_that_is_overheard_ends_in_the_same_bits(
    tasks_root: Path, words: tuple[str, ...]
) -> None:
    plan = plan_of(tasks_root, "task.classes=0,1", *words)
    heard, outcome = overhear(plan)
    assert outcome.digest == run_in_process(plan).digest
    assert len({(e.site, e.turn) for e in heard}) == len(heard)
    assert len(heard) >= plan.num_exchanges


def test_what_is_heard_makes_the_next_version(tasks_root: Path) -> None:
    """Of FedAvg: the next network is the mean of those that were released."""
    heard, outcome = overhear(plan_of(tasks_root, "task.classes=0,1", "method.name=fedavg"))
    assert [(e.version, e.turn) for e in heard] == [(0, 0)] * 3 + [(1, 1)] * 3
    for version, following in ((0, heard[3].received), (1, outcome.server.parameters_for("a"))):
        released = [e.released for e in heard if e.version == version]
        np.testing.assert_allclose(np.mean(released, axis=0), following, atol=1e-6)
    assert_equal_outcomes(
        outcome, run_in_process(plan_of(tasks_root, "task.classes=0,1", "method.name=fedavg"))
    )


def exchange(turn: int, seed: int = 0) -> Exchange:
    rng = np.random.default_rng([turn, seed])
    vectors = rng.normal(size=(2, 7)).astype(np.float32)
    return Exchange("north", turn // 2, turn, vectors[0], vectors[1], 5)


def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    files = ExchangeFiles(tmp_path / "messages")
    assert files.sites() == []
    for turn in (3, 0, 11):
        files.write(exchange(turn))
    files.write(exchange(3))  # made again by a run that goes on, with the same noise
    found = [files.read(path) for path in files.of("north")]
    assert [one.turn for one in found] == [0, 3, 11]
    for one, expected in zip(found, (exchange(0), exchange(3), exchange(11)), strict=True):
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(one, name), value)
    assert files.of("south") == []
    assert files.sites() == ["north"]
    assert (tmp_path / "messages").stat().st_mode & 0o777 == 0o700


def test_what_the_server_has_seen_twice_with_other_noise_is_kept_twice(tmp_path: Path) -> None:
    files = ExchangeFiles(tmp_path)
    files.write(exchange(3))
    files.write(exchange(3, seed=1))
    found = {files.read(path).update.tobytes() for path in files.of("north")}
    assert found == {exchange(3, seed).update.tobytes() for seed in (0, 1)}


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    files = ExchangeFiles(tmp_path)
    files.write(exchange(0))
    (path,) = files.of("north")
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="audit will make the run again"):
        files.read(path)


def test_messages_of_a_large_run_are_not_kept(tasks_root: Path) -> None:
    assert kept_bytes(788_739, 5 * 20) == pytest.approx(631e6, rel=1e-3)
    with pytest.raises(ConfigError, match=r"run.keep_messages: 20,000 networks .* 118 GiB"):
        check_kept(788_739, 20_000)
    words = ("run.keep_messages=true", "rounds.num_versions=100000000")
    with pytest.raises(ConfigError, match=r"run.keep_messages: "):
        plan_of(tasks_root, "task.classes=0,1", *words)
