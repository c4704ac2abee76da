"""The wire against the safetensors library, in both directions, and against hostile messages."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as library

from rayfed_hn.errors import MessageError
from rayfed_hn.federation import wire
from rayfed_hn.federation.failures import _FAILURES
from rayfed_hn.federation.failures import failure_message as failure
from rayfed_hn.federation.messages import (
    Refused,
    SiteLost,
    TrainRequest,
    Update,
    read_answer,
)
from rayfed_hn.federation.wire import KINDS, LastFinite, all_finite, open_message, serialise

LIMIT = 2**20
one_tensor = st.sampled_from(sorted(KINDS)).flatmap(
    lambda name: arrays.arrays(
        KINDS[name], arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    )
)
some_tensors = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name != "__metadata__"), one_tensor, max_size=5
)


def same(found: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].tobytes() == tensor.tobytes()  # NaN and -0 too


def raw(header: object, payload: bytes = b"", pad: bool = True) -> bytes:
    """A message with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8 if pad else 0)
    return len(text).to_bytes(8, "little") + text + payload


def entry(
    begin: object = 0, end: object = 8, shape: object = (2,), dtype: object = "F32"
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@given(some_tensors)
def test_the_library_reads_what_is_written(tensors: dict[str, np.ndarray]) -> None:
    same(library.load(serialise(tensors)), tensors)


@given(some_tensors)
def test_what_the_library_writes_is_read(tensors: dict[str, np.ndarray]) -> None:
    same(open_message(library.save(tensors), LIMIT), tensors)


@given(some_tensors)
def test_what_is_written_is_read(tensors: dict[str, np.ndarray]) -> None:
    same(open_message(serialise(tensors), LIMIT), tensors)


def test_tensors_that_do_not_lie_in_one_piece() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    tensors = {"turned": values.T, "every second": values[::2, ::-1]}
    same(library.load(serialise(tensors)), tensors)


def test_nothing_is_copied() -> None:
    message = serialise({"v": np.arange(4, dtype=np.float32), "w": np.ones(2)})
    for tensor in open_message(message, LIMIT).values():
        assert not tensor.flags.writeable
        assert np.shares_memory(tensor, np.frombuffer(message, np.uint8))
        assert tensor.flags.aligned
    memory = bytearray(message)
    seen = open_message(memoryview(memory), LIMIT)["v"]
    memory[-4:] = np.float32(7).tobytes()
    assert seen[-1] == 7


def test_a_message_at_the_limit() -> None:
    message = serialise({"v": np.zeros(1000)})
    open_message(message, len(message) - 4096)
    with pytest.raises(MessageError, match="allowed"):
        open_message(message, len(message) - 4097)


GOOD = raw({"a": entry(), "b": entry(8, 16)}, bytes(16))
HOSTILE = {
    "overlap": raw({"a": entry(), "b": entry(4, 12)}, bytes(12)),
    "same place": raw({"a": entry(), "b": entry()}, bytes(8)),
    "gap": raw({"a": entry(), "b": entry(12, 20)}, bytes(20)),
    "gap before": raw({"a": entry(8, 16)}, bytes(16)),
    "beyond": raw({"a": entry(0, 16, (4,))}, bytes(8)),
    "short": raw({"a": entry(0, 4, (2,))}, bytes(4)),
    "backwards": raw({"a": entry(), "b": entry(8, 0)}, bytes(8)),
    "negative side": raw({"a": entry(shape=(-1, -2))}, bytes(8)),
    "unknown side": raw({"a": entry(shape=(-1,))}, bytes(8)),
    "negative begin": raw({"a": entry(-8, 0)}, bytes(8)),
    "bool side": raw({"a": entry(0, 4, (True,))}, bytes(4)),
    "bool begin": raw({"a": entry(False, 8)}, bytes(8)),
    "float end": raw({"a": entry(0, 8.0)}, bytes(8)),
    "float side": raw({"a": entry(shape=(2.0,))}, bytes(8)),
    "NaN": raw(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', bytes(8)),
    "text side": raw({"a": entry(shape=("2",))}, bytes(8)),
    "text shape": raw({"a": entry(0, 4, "")}, bytes(4)),
    "no shape": raw({"a": entry(shape=None)}, bytes(8)),
    "huge side": raw({"a": entry(shape=(10**30,))}, bytes(8)),
    "huge beside zero": raw({"a": entry(0, 0, (0, 10**30))}),
    "huge product beside zero": raw({"a": entry(0, 0, (0, 2**62, 2**62))}),
    "huge end": raw({"a": entry(0, 10**30, (10**30 // 4,))}, bytes(8)),
    "huge digits": raw(b'{"a":' + b"9" * 4000 + b"}"),
    "many sides": raw({"a": entry(shape=(2,) + (1,) * 100)}, bytes(8)),
    "unknown type": raw({"a": entry(dtype="F16", shape=(4,))}, bytes(8)),
    "list type": raw({"a": entry(dtype=["F32"])}, bytes(8)),
    "three offsets": raw({"a": entry() | {"data_offsets": [0, 4, 8]}}, bytes(8)),
    "no offsets": raw({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "deep": raw(b"[" * 4000),
    "deep shape": raw({"a": entry(shape=[[[[2]]]])}, bytes(8)),
    "metadata": raw({"__metadata__": {"name": "x"}, "a": entry()}, bytes(8)),
    "misaligned": raw({"b": entry(0, 1, (1,), "BOOL"), "a": entry(1, 9)}, bytes(9)),
    "header of odd length": raw(b"{}", pad=False),
    "trailing": raw({"a": entry()}, bytes(9)),
    "trailing only": raw({}, bytes(1)),
    "list": raw([entry()], bytes(8)),
    "number": raw(b"8"),
    "no JSON": raw(b"{{{{{{{{"),
    "no text": raw(b"\xff\xfe\xfa\x80\x80\x80\x80\x80"),
    "no header": bytes(8),
    "header beyond the message": (64).to_bytes(8, "little") + b"{}      ",
    "header beyond all": b"\xff" * 8 + b"{}      ",
    "header over its limit": raw(b"{}" + b" " * 4096),
}


def test_the_message_that_hostile_ones_are_made_of() -> None:
    assert set(open_message(GOOD, LIMIT)) == {"a", "b"}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
def test_hostile_messages_are_refused(message: bytes) -> None:
    with pytest.raises(MessageError):
        open_message(message, LIMIT)


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_a_message_that_breaks_off(length: int) -> None:
    with pytest.raises(MessageError):
        open_message(GOOD[:length], LIMIT)


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes(message: bytes, with_length: bool) -> None:
    message = raw(message, b"") if with_length else message
    try:
        tensors = open_message(message, LIMIT)
    except MessageError:
        return
    same(tensors, library.load(message))


odd = st.one_of(
    st.integers(-2, 20), st.integers(), st.booleans(), st.none(), st.floats(), st.text(max_size=3)
)


@given(
    st.dictionaries(
        st.text(max_size=2),
        st.fixed_dictionaries(
            {
                "dtype": st.one_of(st.sampled_from(sorted(KINDS)), odd),
                "shape": st.one_of(st.lists(odd, max_size=3), odd),
                "data_offsets": st.one_of(st.lists(odd, min_size=2, max_size=2), odd),
            }
        ),
        min_size=1,
        max_size=2,
    ),
    st.binary(max_size=24),
)
def test_any_header(header: dict[str, object], payload: bytes) -> None:
    """Whatever is taken, the library takes too."""
    message = raw(header, payload)
    try:
        tensors = open_message(message, LIMIT)
    except MessageError:
        return
    same(tensors, library.load(message))


@given(st.integers(1, 5000), st.data(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_value_that_is_not_finite(size: int, data: st.DataObject, value: float) -> None:
    vector = np.ones(size, np.float32)
    assert all_finite(vector)
    vector[data.draw(st.integers(0, size - 1))] = value
    assert not all_finite(vector)


def test_finite_values_whose_sum_is_not() -> None:
    large = np.full(100, 3e38, np.float32)
    assert all_finite(large)
    assert all_finite(-large)
    assert not all_finite(np.append(large, np.float32(np.nan)))
    both = np.append(large, -large)
    assert all_finite(both)
    assert not all_finite(np.append(both, np.array([np.inf, -np.inf], np.float32)))
    assert all_finite(np.zeros(0, np.float32))


@pytest.mark.parametrize("shift", range(8))
def test_an_update_that_lies_anywhere_in_memory(shift: int) -> None:
    request, update = _asked(10)
    message = bytearray(shift) + update.to_bytes()
    answer = read_answer(request, memoryview(message)[shift:])
    assert isinstance(answer, Update)
    assert (answer.update == update.update).all()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (OSError("/patients/jane"), "could not read its bags"),
        (MessageError("jane"), "refused the request"),
        (RuntimeError("jane"), "the site failed"),
    ],
)
def test_a_failure_is_a_lost_site(error: Exception, words: str) -> None:
    request, _ = _asked(10)
    answer = read_answer(request, failure(error))
    assert isinstance(answer, SiteLost)
    assert words in answer.reason
    assert "jane" not in answer.reason
    assert (answer.site, answer.version, answer.turn) == ("north", 3, 2)


@pytest.mark.parametrize(
    "tensor",
    [
        *(np.array([len(_FAILURES), 1]), np.array([-1, 1]), np.array([0, -1])),
        *(np.array([0.0, 0.0]), np.array([0]), np.array([0, 0, 0])),
    ],
)
def test_a_failure_of_no_kind(tensor: np.ndarray) -> None:
    request, _ = _asked(10)
    answer = read_answer(request, serialise({"failure": tensor}))
    assert isinstance(answer, Refused)


@pytest.mark.parametrize("size", [10, 1000])  # one that is shorter than a failure may be, one not
def test_an_update_that_begins_like_a_failure(size: int) -> None:
    request, update = _asked(size)
    code = np.frombuffer(failure(MemoryError())[: 4 * size], np.float32).copy()
    update.update[: code.size] = code
    answer = read_answer(request, update.to_bytes())
    assert isinstance(answer, Update)
    assert answer.update.tobytes() == update.update.tobytes()


@pytest.mark.parametrize("size", [10, 1000])
def test_a_failure_beside_an_update(size: int) -> None:
    """Nobody gets an update past the checks by calling it a failure."""
    request, update = _asked(size)
    tensors = {"failure": np.array([0, 0]), "update": update.update, "scalars": np.zeros(7)}
    assert isinstance(read_answer(request, serialise(tensors)), SiteLost | Refused)


def _asked(size: int) -> tuple[TrainRequest, Update]:
    vector = np.arange(size, dtype=np.float32)
    update = Update("north", 3, 2, vector.copy(), 0.5, 0.5, None, 4, 0.1)
    return TrainRequest("north", 3, vector, 2), update


def test_the_last_finite_vector_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    original = wire.all_finite
    monkeypatch.setattr(wire, "all_finite", lambda v: looked.append(id(v)) or original(v))
    finite = LastFinite()
    one, other = np.ones(3, np.float32), np.ones(3, np.float32)
    assert [finite(vector) for vector in (one, one, other, other, one)] == [True] * 5
    assert looked == [id(one), id(other), id(one)]
    odd = np.array([1, np.nan], np.float32)
    assert not any(finite(odd) for _ in range(3))
