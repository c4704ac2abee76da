"""Participants of one process: order, and failures that stay where they happen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from virtual_sites import virtual

from rayfed_hn.errors import DataError
from rayfed_hn.federation import site_host
from rayfed_hn.federation.data import SiteData
from rayfed_hn.federation.messages import SiteLost, TrainRequest, Update, read_answer
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.federation.virtual_plan import VirtualPlan


@pytest.fixture
def plan(tmp_path: Path) -> VirtualPlan:
    return virtual(tmp_path, method="fedavg", num_sites=6)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose bags were opened; site-00003 cannot open its own."""
    names: list[str] = []
    original = VirtualPlan.site_data

    def noted(self: VirtualPlan, name: str) -> SiteData:
        names.append(name)
        if name == "site-00003":
            raise DataError("no bags of Mr Smith")
        return original(self, name)

    monkeypatch.setattr(VirtualPlan, "site_data", noted)
    return names


def requests(plan: VirtualPlan, *numbers: int, turn: int = 0) -> list[TrainRequest]:
    network = plan.initial().numpy()
    network.flags.writeable = False  # as networks come out of Ray's shared memory
    return [TrainRequest(plan.hospitals[number], 0, network, turn) for number in numbers]


def test_answers_come_in_the_order_of_the_requests(plan: VirtualPlan) -> None:
    order = requests(plan, 4, 0, 5, 1)
    batches = list(SiteHost(plan, plan.hospitals).answers(order))
    answers = [answer for batch in batches for answer in batch]
    assert {answer.dtype for answer in answers} == {np.dtype(np.uint8)}
    for request, answer in zip(order, answers, strict=True):
        event = read_answer(request, answer.tobytes())
        alone = SiteHost(plan, [request.site]).answer(request)
        expected = read_answer(request, alone)
        assert isinstance(event, Update)
        assert isinstance(expected, Update)
        assert event.site == request.site
        np.testing.assert_array_equal(event.update, expected.update)
        assert np.abs(event.update).max() > 0


def test_an_answer_waits_for_no_later_one(
    plan: VirtualPlan, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_host, "BATCH_BYTES", 1)
    answers = SiteHost(plan, plan.hospitals).answers(requests(plan, 2, 4, 5))
    next(answers)
    assert opened == ["site-00002"]


def test_a_site_that_fails_says_so_in_its_place(plan: VirtualPlan, opened: list[str]) -> None:
    order = requests(plan, 1, 3, 0, 3)
    host = SiteHost(plan, plan.hospitals)
    answers = [answer for batch in host.answers(order) for answer in batch]
    events = [read_answer(r, a.tobytes()) for r, a in zip(order, answers, strict=True)]
    assert [type(event) for event in events] == [Update, SiteLost, Update, SiteLost]
    lost = events[1]
    assert isinstance(lost, SiteLost)
    assert (lost.site, "could not read its bags" in lost.reason) == ("site-00003", True)
    assert b"Smith" not in b"".join(answer.tobytes() for answer in answers)
    assert opened == ["site-00001", "site-00003", "site-00000"]  # nothing is tried twice


def test_a_stranger_is_an_error(plan: VirtualPlan, opened: list[str]) -> None:
    host = SiteHost(plan, plan.hospitals[:2])
    with pytest.raises(KeyError, match="site-00004 does not live here"):
        host.answer(requests(plan, 4)[0])
    assert not opened
