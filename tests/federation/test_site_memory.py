"""What a site remembers from turn to turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from one_site import ask, plan
from torch import Tensor

from rayfed_hn.errors import DataError
from rayfed_hn.federation.messages import CandidatesRequest, EvaluateRequest
from rayfed_hn.federation.site_memory import SiteMemory


def known(value: float) -> dict[str, Tensor]:
    return {"private": torch.full((3,), value), "moment.step": torch.tensor(value)}


def value_of(memory: SiteMemory, turn: int) -> float | None:
    tensors = memory.before(turn)
    return float(tensors["private"][0]) if tensors else None


def filled(folder: Path | None, turns: range) -> SiteMemory:
    memory = SiteMemory(folder)
    for turn in turns:
        memory.after(turn, known(float(turn)))
    return memory


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_site_knows_what_the_turn_before_left(tmp_path: Path, on_disk: bool) -> None:
    memory = SiteMemory(tmp_path / "new" if on_disk else None)
    assert memory.before(0) == {}
    for turn in (0, 1, 4):  # turns 2 and 3 were lost on the way
        memory.after(turn, known(float(turn)))
        assert value_of(memory, turn + 1) == turn
        assert value_of(memory, turn + 3) == turn
    assert list(tmp_path.rglob("*")) == [] or on_disk


def test_a_site_that_starts_again_knows_what_it_knew_at_that_turn(tmp_path: Path) -> None:
    filled(tmp_path, range(6))
    for turn, expected in ((6, 5), (9, 5), (5, 4), (4, 3)):
        assert value_of(SiteMemory(tmp_path), turn) == expected
    found = SiteMemory(tmp_path).before(6)
    assert torch.equal(found["moment.step"], torch.tensor(5.0))


def test_the_turns_of_a_run_that_stopped_are_forgotten(tmp_path: Path) -> None:
    filled(tmp_path, range(6))
    memory = SiteMemory(tmp_path)
    assert value_of(memory, 4) == 3
    memory.after(4, known(40.0))
    assert value_of(memory, 5) == 40
    assert value_of(SiteMemory(tmp_path), 9) == 40  # and not 5
    memory.after(5, known(50.0))
    assert value_of(SiteMemory(tmp_path), 6) == 50


def test_a_turn_asked_again_finds_what_it_found(tmp_path: Path) -> None:
    memory = filled(tmp_path, range(3))
    assert value_of(memory, 3) == 2
    for _ in range(2):
        assert value_of(memory, 2) == 1
    assert value_of(memory, 1) == 0
    assert memory.before(0) == {}


def test_old_turns_do_not_pile_up(tmp_path: Path) -> None:
    filled(tmp_path, range(40))
    assert len(list(tmp_path.iterdir())) < 12


@pytest.mark.parametrize("on_disk", [True, False])
def test_the_last_two_turns_are_at_hand_and_older_ones_on_disk(
    tmp_path: Path, on_disk: bool
) -> None:
    memory = filled(tmp_path if on_disk else None, range(6))
    assert not on_disk or value_of(memory, 4) == 3
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    assert (value_of(memory, 6), value_of(memory, 5)) == (5, 4)
    if on_disk:
        with pytest.raises(DataError, match="damaged"):
            memory.before(4)


def test_what_was_remembered_does_not_follow_later_changes() -> None:
    memory, tensors = SiteMemory(None), known(1.0)
    memory.after(0, tensors)
    tensors["private"] = torch.zeros(3)
    assert value_of(memory, 1) == 1


def test_a_damaged_memory_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    filled(tmp_path, range(2))
    (tmp_path / "memory-1.safetensors").write_bytes(b"\x00" * 9)
    with pytest.raises(DataError, match="memory of a site is damaged"):
        SiteMemory(tmp_path).before(2)


def test_methods_that_leave_nothing_behind_write_nothing(bag_root: Path, tmp_path: Path) -> None:
    plain = plan(bag_root, "method.name=fedavg", "evaluation.readout=last")
    site = plain.site("north", tmp_path)
    ask(site, 0, plain.initial())
    assert not list(tmp_path.glob("memory-*"))


def test_a_memory_that_is_gone_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    memory = SiteMemory(tmp_path, kept_turns=2)
    for turn in range(6):
        memory.after(turn, {"x": torch.tensor([float(turn)])})
    assert float(SiteMemory(tmp_path, kept_turns=2).before(5)["x"]) == 4
    with pytest.raises(DataError, match="before its turn 2 is not kept"):
        SiteMemory(tmp_path, kept_turns=2).before(2)


@pytest.mark.parametrize(
    "words",
    [
        ["method.name=fedper"],
        ["method.name=fedavg", "training.keep_optimiser=true"],
        ["method.name=fedper", "training.keep_optimiser=true", "training.optimiser=momentum"],
    ],
)
def test_a_site_that_was_interrupted_answers_as_an_undisturbed_one(
    bag_root: Path, tmp_path: Path, words: list[str]
) -> None:
    going = plan(bag_root, *words)
    theta = going.initial()
    straight, interrupted = going.site("north", tmp_path / "a"), None
    for turn in range(4):
        interrupted = going.site("north", tmp_path / "b")
        interrupted.resume()
        one, other = ask(straight, turn, theta), ask(interrupted, turn, theta)
        np.testing.assert_array_equal(one.update, other.update)
        again = ask(interrupted, turn, theta)  # as after a commit that was lost
        np.testing.assert_array_equal(again.update, one.update)
    judge = CandidatesRequest("north", 4, theta.numpy(), np.stack([theta.numpy()] * 3), 4)
    score = EvaluateRequest("north", 4, np.full(6, 0.5))
    last = going.site("north", tmp_path / "b")
    last.resume()
    assert last.answer(judge) == straight.answer(judge)
    assert last.answer(score) == straight.answer(score)
