"""What crosses the channel, byte by byte: equal on the other side, or refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apart import LABELS, config_of, stores
from hypothesis import given
from hypothesis import strategies as st
from puppets import CLASSES, HASH, RUN, SHAPES, card
from tiny_federations import federation

from rayfed_hn.errors import ConfigError, MessageError
from rayfed_hn.federation.messages import (
    CandidatesRequest,
    EvaluateRequest,
    PrepareRequest,
    Request,
    StatisticsRequest,
    TrainRequest,
)
from rayfed_hn.federation.survey import merge, survey, task_of_cards
from rayfed_hn.federation.wire import serialise
from rayfed_hn.loading import load
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.transport.agreement import check_possible, check_settings, own_card, settings
from rayfed_hn.transport.frames import (
    PIECE_BYTES,
    Assembler,
    Ending,
    Frame,
    Kind,
    end,
    pieces,
    read_end,
)
from rayfed_hn.transport.greetings import Hello, Welcome, program
from rayfed_hn.transport.requests import read_request, request_frame

VECTOR = np.array([1, -2, 0.5], np.float32)
SCALE = Standardisation(np.array([0, 3], np.float32), np.array([1, 0.5], np.float32))
REQUESTS: list[Request] = [
    TrainRequest("a", 7, VECTOR, 3),
    StatisticsRequest("a", 0, 2),
    PrepareRequest("a", 0, SCALE),
    CandidatesRequest("a", 9, VECTOR, np.zeros((0, 3), np.float32), 5),
    CandidatesRequest("a", 9, VECTOR, np.ones((3, 3), np.float32), 5),
    EvaluateRequest("a", 9, np.array([0.5, np.nan, 1])),
    EvaluateRequest("a", 9, np.zeros(0)),
]


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    for name, value in vars(one).items():
        if isinstance(value, Standardisation):
            same(value, getattr(other, name))
        else:
            np.testing.assert_array_equal(getattr(other, name), value, strict=True)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_requests_arrive_as_they_were_sent(request_: Request) -> None:
    assembler = Assembler(SHAPES.request_bytes)
    (frame,) = [f for f in map(assembler.add, pieces(request_frame(request_, 12))) if f]
    assert frame.number == 12
    same(read_request(frame, "a", SHAPES), request_)


N = np.array
BAD: dict[str, tuple[Kind, dict[str, Any], str]] = {
    "version beyond": (Kind.TRAIN, {"numbers": N([10, 0])}, "version 10 is none of 0 to 9"),
    "version below": (Kind.TRAIN, {"numbers": N([-1, 0])}, "version -1"),
    "turn below": (Kind.TRAIN, {"numbers": N([1, -1])}, "turn -1"),
    "no turn": (Kind.TRAIN, {"numbers": N([1])}, "'numbers' is int64"),
    "not finite": (Kind.TRAIN, {"parameters": VECTOR * np.inf}, "not finite"),
    "another network": (Kind.TRAIN, {"parameters": VECTOR[:2]}, "'parameters' is float32"),
    "doubles": (Kind.TRAIN, {"parameters": VECTOR.astype(float)}, "'parameters' is float64"),
    "more than asked": (Kind.TRAIN, {"more": VECTOR}, "other tensors"),
    "other features": (Kind.STATISTICS, {"numbers": N([0, 3])}, "asked for 3 features"),
    "scale of 0": (Kind.PREPARE, {"deviation": np.zeros(2, np.float32)}, "not above 0"),
    "odd scale": (Kind.PREPARE, {"centre": SCALE.centre_D * np.nan}, "not finite"),
    "two shared": (Kind.CANDIDATES, {"shared": np.ones((2, 3), np.float32)}, "shared networks"),
    "shared number": (Kind.CANDIDATES, {"shared": N(1.0, np.float32)}, "shared networks"),
    "after the end": (Kind.TRAIN, {"numbers": N([9, 0])}, "when all is over"),
    "odd shared": (Kind.CANDIDATES, {"shared": np.full((3, 3), np.nan, np.float32)}, "finite"),
    "metric above 1": (Kind.EVALUATE, {"mean_metric": N([1.5])}, "a validation metric"),
    "many metrics": (Kind.EVALUATE, {"mean_metric": np.ones(65)}, "metrics of 65 candidates"),
    "table of metrics": (Kind.EVALUATE, {"mean_metric": np.ones((2, 2))}, "'mean_metric' is"),
}
GOOD: dict[Kind, dict[str, Any]] = {
    Kind.TRAIN: {"parameters": VECTOR, "numbers": N([1, 0])},
    Kind.STATISTICS: {"numbers": N([0, 2])},
    Kind.PREPARE: {"centre": SCALE.centre_D, "deviation": SCALE.deviation_D, "numbers": N([0])},
    Kind.CANDIDATES: {
        "parameters": VECTOR,
        "shared": np.zeros((0, 3), np.float32),
        "numbers": N([9, 1]),
    },
    Kind.EVALUATE: {"mean_metric": N([0.5]), "numbers": N([9])},
}


@pytest.mark.parametrize("case", BAD)
def test_requests_that_are_none_are_refused_by_name(case: str) -> None:
    kind, changed, words = BAD[case]
    read_request(Frame(kind, serialise(GOOD[kind])), "a", SHAPES)
    with pytest.raises(MessageError, match=words):
        read_request(Frame(kind, serialise(GOOD[kind] | changed)), "a", SHAPES)


def test_other_frames_are_no_requests() -> None:
    with pytest.raises(MessageError, match="kind ANSWER is no request"):
        read_request(Frame(Kind.ANSWER, serialise(GOOD[Kind.TRAIN])), "a", SHAPES)
    with pytest.raises(MessageError, match="at most"):
        read_request(Frame(Kind.TRAIN, bytes(SHAPES.request_bytes + 5000)), "a", SHAPES)


@given(st.sampled_from(REQUESTS), st.data())
def test_damaged_requests_are_refused_or_such_as_may_come(one: Request, data: Any) -> None:
    frame = request_frame(one, 1)
    payload = bytearray(frame.payload)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    message = bytes(payload) if data.draw(st.booleans()) else bytes(payload[:cut])
    kind = data.draw(st.sampled_from(list(Kind)))
    try:
        found = read_request(Frame(kind, message), "a", SHAPES)
    except MessageError:
        return
    assert 0 <= found.version <= SHAPES.num_versions
    if isinstance(found, TrainRequest | CandidatesRequest):
        assert found.parameters.shape == (3,)
        assert np.isfinite(found.parameters).all()


@given(st.binary(max_size=200) | st.integers(PIECE_BYTES - 30, 2 * PIECE_BYTES).map(bytes))
def test_frames_are_put_together(payload: bytes) -> None:
    sent = list(pieces(Frame(Kind.ANSWER, payload, 2**63)))
    assert all(len(piece) <= PIECE_BYTES for piece in sent)
    assembler = Assembler(len(payload))
    for _ in range(2):  # and another one after it
        found = [assembler.add(piece) for piece in sent]
        assert found[:-1] == [None] * (len(sent) - 1)
        assert found[-1] == Frame(Kind.ANSWER, payload, 2**63)
    if payload:
        with pytest.raises(MessageError, match=r"at most .* allowed"):
            Assembler(len(payload) - 1).add(sent[0])


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(0, 99))
def test_what_is_no_frame_is_refused(parts: list[bytes], limit: int) -> None:
    assembler, held = Assembler(limit), 0
    try:
        for piece in parts:
            frame = assembler.add(piece)
            held = 0 if frame else held + len(piece)
            assert frame is None or len(frame.payload) <= limit
            assert held <= limit + 24
    except MessageError:
        pass


def test_frames_that_go_on_for_too_long_are_refused() -> None:
    (piece,) = pieces(Frame(Kind.ANSWER, b"12345678"))
    for parts, words in (
        ([piece + b"9"], "longer than the 8 bytes"),
        ([piece[:-1], b"89"], "longer than the 8 bytes"),
        ([piece[:-1], b""], "empty piece"),
        ([b"RFH2" + piece[4:]], "version another"),
        ([piece[:4] + b"\x63" + piece[5:]], "unknown kind 99"),
        ([bytes(PIECE_BYTES + 1)], "piece of"),
    ):
        with pytest.raises(MessageError, match=words):
            list(map(Assembler(10**6).add, parts))


def test_endings() -> None:
    assert {read_end(end(why)) for why in Ending} == set(Ending)
    for payload in (b"", serialise({"ending": N([99])}), serialise({"ending": N([1.0])})):
        with pytest.raises(MessageError):
            read_end(Frame(Kind.END, payload))


def hello(**other: Any) -> Hello:
    return Hello(5, RUN, program(), replace(card("a"), **other))


def test_a_greeting_arrives_as_it_was_sent() -> None:
    for one in (hello(), replace(hello(), run="")):
        assert Hello.from_bytes(one.to_bytes(CLASSES), "a", CLASSES) == one


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"feature_dim": 0}, "feature_dim"),
        ({"feature_dim": 2**20}, "a count of|feature_dim"),
        ({"num_known": 6}, "5 bags of all classes, but 6"),
        ({"num_unknown": -1}, "a count of bags"),
        ({"num_bags": (9, 1, 1)}, "more bags or cases"),
        ({"num_cases": 4}, "more bags or cases"),
        ({"labels": {"no": 10**9, "yes": 5 - 10**9}}, "bags of a class"),
    ],
)
def test_cards_that_cannot_be_are_refused(other: dict[str, Any], words: str) -> None:
    with pytest.raises(MessageError, match=words):
        Hello.from_bytes(hello(**other).to_bytes(CLASSES), "a", CLASSES)


@given(st.data())
def test_damaged_greetings_are_refused_or_within_bounds(data: Any) -> None:
    payload = bytearray(hello().to_bytes(CLASSES))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Hello.from_bytes(bytes(payload), "a", CLASSES).card
    except MessageError:
        return
    assert found.site == "a"  # whatever the bytes say
    assert sum(found.labels.values()) == found.num_known >= sum(found.num_bags)


def test_a_greeting_of_another_number_of_classes_is_refused() -> None:
    with pytest.raises(MessageError, match="'classes' is"):
        Hello.from_bytes(hello().to_bytes(CLASSES), "a", ("x", "y", "z"))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(JSON, JSON, st.booleans())
def test_welcomes_that_are_none_are_refused(run: Any, found: Any, right: bool) -> None:
    message = json.dumps({"run": RUN if right else run, "settings": found}).encode()
    try:
        welcome = Welcome.from_bytes(message)
    except MessageError:
        return
    assert welcome.run == RUN
    with pytest.raises(ConfigError, match=r"^privacy\.mechanism: the server does not know it"):
        check_settings(load(None, []), welcome.settings)


def test_settings_survive_the_way_and_agree_with_themselves() -> None:
    config = config_of("privacy.noise_scale=0.1", "training.learning_rate=0.1")
    welcome = Welcome(RUN, settings(config))
    there = Welcome.from_bytes(welcome.to_bytes())
    assert there == welcome
    check_settings(config, there.settings)
    assert not {k for k in there.settings if k.startswith(("run.dir", "data.bags", "resources."))}
    assert "/" not in json.dumps(there.settings)
    with pytest.raises(ConfigError, match=r"^privacy\.noise_scale: 0\.0 here, .* has 0\.1"):
        check_settings(config_of("run.seed=3"), there.settings)  # privacy first
    with pytest.raises(ConfigError, match=r"^run\.new: of the server's settings; unknown"):
        check_settings(config, dict(there.settings) | {"run.new": 1})
    with pytest.raises(ConfigError, match=r"privacy\.noise_biases: False here, .* has 0"):
        check_settings(config, dict(there.settings) | {"privacy.noise_biases": 0})


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["method.name=local", "task.classes=0,1"], "method.name"),
        (["method.name=pooled", "task.classes=0,1"], "method.name"),
        (["data.splits=tables", "task.classes=0,1"], "data.splits"),
        ([], "task.classes"),
        (["task.kind=survival"], "task.cuts"),
    ],
)
def test_what_cannot_be_done_apart_is_refused(words: list[str], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        check_possible(load(None, words))


TASKS = {
    "binary": ["task.classes=0,1"],
    "positive": ["task.classes=0,1", "data.positive_label=0"],
    "survival": ["task.kind=survival", "task.cuts=3,9"],
    "by case": ["task.classes=0,1", "task.unit=case", "task.kind=ordinal"],
}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stores(tmp_path_factory.mktemp("timed"), times=True)


@pytest.mark.parametrize("task", TASKS)
def test_cards_of_the_sites_make_the_plan_that_all_bags_make(timed: Path, task: str) -> None:
    config = load(None, TASKS[task])
    classes = () if task == "survival" else ("0", "1")
    sent = [own_card(config, timed / site, site) for site in LABELS]
    cards = [
        Hello.from_bytes(Hello(1, "", HASH, one).to_bytes(classes), one.site, classes).card
        for one in sent
    ]
    assert cards == sent
    found, whole = merge(config, cards, task_of_cards(config, cards)), survey(config, timed / "all")
    assert found == whole


def test_labels_that_do_not_count_stay_at_their_site(tmp_path: Path) -> None:
    federation(tmp_path, {"a": ("0", "1", "0", "1", "0", "1", "Mrs Smith")})
    config = load(None, ["task.classes=0,1"])
    own = own_card(config, tmp_path, "a")
    assert (own.strange, own.num_unknown) == ({"Mrs Smith": 1}, 1)
    message = Hello(1, "", HASH, own).to_bytes(("0", "1"))
    assert b"Smith" not in message
    there = Hello.from_bytes(message, "a", ("0", "1")).card
    assert there == replace(own, strange={})
    assert merge(config, [there], task_of_cards(config, [there])).set_aside[0][1].reason == (
        "1 of its bags have none of the labels 0, 1"
    )


def test_a_card_says_whose_bags_are_missing(tmp_path: Path) -> None:
    federation(tmp_path, {"a": ("0", "1", "0")})
    with pytest.raises(ConfigError, match=r"no bags of b, .*; it has a"):
        own_card(load(None, ["task.classes=0,1"]), tmp_path, "b")
