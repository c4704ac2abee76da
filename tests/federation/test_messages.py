"""The border of a site: what is refused, and that nothing else comes through."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from rayfed_hn.errors import DataError, MessageError
from rayfed_hn.federation.failures import failure_message
from rayfed_hn.federation.loop import agreed_metrics
from rayfed_hn.federation.messages import (
    CandidateMetrics,
    CandidatesRequest,
    EvaluateRequest,
    Refused,
    Request,
    Scores,
    SiteLost,
    TrainRequest,
    Update,
    read_answer,
)

P = 6
NETWORK = np.zeros(P, np.float32)
REQUEST = TrainRequest("north", 3, NETWORK, 5)
JUDGE = CandidatesRequest("north", 3, NETWORK, np.zeros((3, P), np.float32), 6)
SCORE = EvaluateRequest("north", 3, np.full(6, 0.5))
EVIDENCE = ("last_BE", "best_BE", "mixture_BE")


def update(**changes: object) -> Update:
    values = {
        "site": "north",
        "version": 3,
        "turn": 5,
        "update": np.arange(P, dtype=np.float32),
        "train_loss": 0.7,
        "validation_loss": 0.6,
        "validation_metric": None,
        "num_steps": 4,
        "seconds": 0.1,
    }
    return Update(**(values | changes))  # type: ignore[arg-type]


def scores(**changes: np.ndarray) -> Scores:
    whole, evidence_BE = np.arange(3), np.linspace(-9, 9, 6, dtype=np.float32).reshape(3, 2)
    values = {
        "best_version_O": np.array([2]),
        "origin_B": np.zeros(3, np.int64),
        "slide_B": whole,
        "case_B": whole,
        "whole_case_B": whole > 1,
        "label_B": whole % 2,
        "time_B": whole + 0.5,
        "event_B": whole > 0,
        "last_BE": evidence_BE,
        "best_BE": -evidence_BE,
        "mixture_BE": 2 * evidence_BE,
    }
    return Scores("north", 3, 0.75, **(values | changes))  # type: ignore[arg-type]


def odd(number: float) -> np.ndarray:
    """Evidence of three bags with one number that is none."""
    evidence_BE = np.zeros((3, 2), np.float32)
    evidence_BE[1, 1] = number
    return evidence_BE


def opinion(table: object) -> CandidateMetrics:
    return CandidateMetrics("north", 3, np.array(table, float))


def test_an_update_survives_the_border() -> None:
    sent = update()
    received = Update.from_bytes(sent.to_bytes(), "north", P)
    np.testing.assert_array_equal(received.update, sent.update)
    assert {k: v for k, v in vars(received).items() if k != "update"} == {
        k: v for k, v in vars(sent).items() if k != "update"
    }


def test_scores_survive_the_border() -> None:
    received = Scores.from_bytes(scores().to_bytes(), "north")
    for name, value in vars(scores()).items():
        np.testing.assert_array_equal(getattr(received, name), value)


def test_candidate_metrics_survive_the_border() -> None:
    sent = opinion([[0.5, np.nan, 1], [0, 0.25, np.nan]])
    received = CandidateMetrics.from_bytes(sent.to_bytes(), "north")
    np.testing.assert_array_equal(received.metric_OC, sent.metric_OC)
    assert (received.site, received.version) == ("north", 3)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pickle.dumps({"update": 1}), "not safetensors"),
        (b"", "not safetensors"),
        (update(update=np.zeros(P + 1, np.float32)).to_bytes(), "expected float32"),
        (update(update=np.zeros(P)).to_bytes(), "expected float32"),
        (update(update=np.full(P, np.nan, np.float32)).to_bytes(), "not finite"),
        (update(update=np.full(P, np.inf, np.float32)).to_bytes(), "not finite"),
        (update(version=2).to_bytes(), "asked was 3"),
        (update(version=-1).to_bytes(), "whole numbers"),
        (update(turn=4).to_bytes(), "answers turn 4, asked was 5"),
        (update(turn=-1).to_bytes(), "whole numbers"),
        (update(turn=float("nan")).to_bytes(), "whole numbers"),
        (update(num_steps=float("nan")).to_bytes(), "whole numbers"),
        (save({"update": np.zeros(P, np.float32)}), "lacks 'scalars'"),
        (save({"failure": np.array([99, 0])}), "unknown failure code"),
        (save({"failure": np.array([np.nan])}), "expected int64"),
        (update(validation_metric=float("inf")).to_bytes(), "within 0 to 1|lie in 0 to 1"),
        (update(seconds=float("nan")).to_bytes(), "seconds must be finite"),
        (
            save(load(bytes(update().to_bytes())) | {"jane": np.zeros(1)}),
            "message of 3 tensors; expected",
        ),
    ],
)
def test_a_bad_update_is_refused_with_a_reason(message: bytes, words: str) -> None:
    event = read_answer(REQUEST, message)
    assert isinstance(event, Refused)
    assert (event.site, event.version, event.turn) == ("north", 3, 5)
    assert "jane" not in event.reason
    assert re.search(words, event.reason)


def test_an_oversized_message_is_refused_unread() -> None:
    with pytest.raises(MessageError, match="bytes; at most"):
        Update.from_bytes(b"\x00" * 100_000, "north", P)


def test_every_request_takes_only_its_own_kind_of_answer() -> None:
    answers = [(REQUEST, update()), (JUDGE, opinion([[0.5]])), (SCORE, scores())]
    for request, _ in answers:
        for other, answer in answers:
            event = read_answer(request, answer.to_bytes())
            wrong = Refused if request is REQUEST else SiteLost
            assert isinstance(event, type(answer) if request is other else wrong)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([0.5, 0.5], "have the shape (2,)"),
        (np.zeros((0, 6)), "have the shape (0, 6)"),
        (np.zeros((1, 0)), "have the shape (1, 0)"),
        (np.zeros((1, 65)), "have the shape (1, 65)"),
        ([[0.5, 1.5]], "not within 0 to 1"),
        ([[0.5, np.inf]], "not within 0 to 1"),
        ([[-0.1]], "not within 0 to 1"),
    ],
)
def test_bad_opinions_lose_their_site_with_a_reason(table: object, words: str) -> None:
    event = read_answer(JUDGE, opinion(table).to_bytes())
    assert isinstance(event, SiteLost)
    assert words in event.reason


def test_opinions_of_another_version_or_type_are_refused() -> None:
    for message in (
        CandidateMetrics("north", 2, np.ones((1, 6))).to_bytes(),
        CandidateMetrics("north", 3, np.ones((1, 6), np.float32)).to_bytes(),
        save({"version": np.array([3])}),
        save({"candidate_metrics": np.ones((1, 6))}),
        save({"version": np.array(3), "candidate_metrics": np.array(0.5)}),
    ):
        assert isinstance(read_answer(JUDGE, message), SiteLost)


def test_the_federation_agrees_on_what_most_sites_have() -> None:
    opinions = [opinion([[0.5, 1]]), opinion([[1, np.nan], [0, 0]]), opinion([[1, 1, 1]])]
    np.testing.assert_allclose(agreed_metrics(opinions), [0.5, 0.5])
    assert agreed_metrics([]).shape == (0,)


def test_a_site_has_one_voice_however_many_rows_it_sends() -> None:
    # As many as pass the border; they might as well be hospitals.
    loud = read_answer(JUDGE, opinion(np.ones((1000, 3))).to_bytes())
    assert isinstance(loud, CandidateMetrics)
    quiet = [opinion([[0, 0.5, np.nan]]), opinion([[0.5, np.nan, np.nan], [np.nan, 0.1, np.nan]])]
    np.testing.assert_allclose(agreed_metrics([loud, *quiet]), [0.5, 1.6 / 3, 1])
    # Where a site has no opinion, it has no voice; nor has one of another width.
    assert np.isnan(quiet[0].mean[2])
    np.testing.assert_allclose(
        agreed_metrics([opinion(np.ones((1000, 5))), *quiet]), [0.25, 0.3, 0.5]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"origin_B": np.array([0, 1, 0])}, "not declared"),
        ({"origin_B": np.array([0, -1, 0])}, "not declared"),
        ({"best_version_O": np.array([], np.int64)}, "not declared"),
        ({"label_B": np.array([0, 1])}, "expected"),
        *(({name: odd(np.nan)}, "a score is not within") for name in EVIDENCE),
        *(({name: odd(-np.inf)}, "a score is not within") for name in EVIDENCE),
        ({"mixture_BE": np.zeros((2, 2))}, "expected"),
        ({"best_BE": np.zeros((3, 1))}, "'best_BE' is float32 (3, 1); expected float32 (3, 2)"),
        (dict.fromkeys(EVIDENCE, np.zeros((3, 0))), "evidence has the width (0,)"),
        (dict.fromkeys(EVIDENCE, np.zeros((3, 65))), "evidence has the width (65,)"),
        (dict.fromkeys(EVIDENCE, np.zeros(3)), "evidence has the width ()"),
        ({"label_B": np.array([0, 1, 64])}, "a label is not within 0 to 63"),
        ({"label_B": np.array([0, 1, -1])}, "a label is not within 0 to 63"),
        ({"time_B": np.array([1, np.nan, 1])}, "a time is not within 0 to"),
        ({"time_B": np.array([1, -1.0, 1])}, "a time is not within 0 to"),
        ({"time_B": np.array([1, np.inf, 1])}, "a time is not within 0 to"),
        ({"event_B": np.ones(2, bool)}, "expected"),
        ({"whole_case_B": np.ones(4, bool)}, "expected"),
        ({"best_version_O": np.array([4])}, "a best version is not within 0 to 3"),
    ],
)
def test_bad_scores_lose_their_site_with_a_reason(changes: dict, words: str) -> None:
    event = read_answer(SCORE, scores(**changes).to_bytes())
    assert isinstance(event, SiteLost)
    assert words in event.reason


@pytest.mark.parametrize(
    "name", ["label_B", "origin_B", "slide_B", "case_B", "whole_case_B", "event_B", *EVIDENCE]
)
def test_scores_of_another_type_are_refused(name: str) -> None:
    columns = load(scores().to_bytes())
    columns[name] = columns[name].astype(np.float64)
    event = read_answer(SCORE, save(columns))
    assert isinstance(event, SiteLost)
    assert f"'{name}' is float64" in event.reason


def test_scalars_where_vectors_belong_are_refused() -> None:
    message = save({"versions": np.array(3), "label_B": np.array(1)})
    event = read_answer(SCORE, message)
    assert isinstance(event, SiteLost)


def test_a_failure_crosses_as_a_code_without_its_text() -> None:
    message = failure_message(DataError("slide of patient Jane Doe is damaged"), 0xBEEF)
    assert b"Jane" not in message
    event = read_answer(REQUEST, message)
    assert isinstance(event, SiteLost)
    assert "could not read its bags" in event.reason
    assert event.reason.endswith("under incident 000000000000beef")


requests = st.sampled_from([REQUEST, JUDGE, SCORE])


@given(requests, st.binary(max_size=400))
def test_no_bytes_crash_the_server(request: Request, message: bytes) -> None:
    wrong = Refused if isinstance(request, TrainRequest) else SiteLost
    assert isinstance(read_answer(request, message), wrong)


@given(st.data())
def test_no_damaged_update_crashes_the_server(data: st.DataObject) -> None:
    message = bytearray(update().to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    event = read_answer(REQUEST, bytes(message))
    assert isinstance(event, Refused) or np.isfinite(event.update).all()  # type: ignore[union-attr]


SHAPES = st.sampled_from([(), (0,), (1,), (2,), (3,), (6,), (2, 3)])
NAMES = (
    *(
        "update",
        "scalars",
        "failure",
        "version",
        "candidate_metrics",
        "versions",
        "validation_metric",
    ),
    *("label_B", "origin_B", "mixture_BE", "last_BE"),
)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    kind = draw(st.sampled_from(["f4", "f8", "i8", "u1"]))
    value = draw(st.sampled_from([0, 1, 3, 99, -1, np.nan, np.inf]))
    number = 0 if kind in ("i8", "u1") and (not np.isfinite(value) or value < 0) else value
    return np.full(draw(SHAPES), number, dtype=kind)


@given(requests, st.dictionaries(st.sampled_from(NAMES), tensors()))
def test_no_well_formed_message_of_the_wrong_kind_crashes_the_server(
    request: Request, content: dict[str, np.ndarray]
) -> None:
    event = read_answer(request, save(content))
    if isinstance(event, CandidateMetrics):
        assert np.isfinite(agreed_metrics([event])).all()
    else:
        assert isinstance(event, SiteLost | Refused | Update)
