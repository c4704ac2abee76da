"""What may be searched: keys that training depends on, with values that their knobs allow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load
from rayfed_hn.tuning.dimensions import Dimension, check_search, dimensions

SHARES = st.floats(0, 1, exclude_max=True)
FINITE = st.floats(1e-6, 1e6)


def words(space: dict[str, str]) -> list[str]:
    return [f"tune.space.{key}={value}" for key, value in space.items()]


def test_values_are_those_of_their_knobs() -> None:
    asked = {
        "training.keep_optimiser": "choice(no, yes)",
        "model.hidden_dim": "grid(null, 8)",
        "training.weight_decay": "choice(1e-5, 0)",
        "training.optimiser": "choice(sgd, adam)",
        "hypernetwork.embedding_dim": "uniform(2, 5)",
    }
    found = {d.key: d for d in dimensions(load(None, words(asked)))}
    assert list(found) == sorted(asked)
    assert found["training.keep_optimiser"].values == (False, True)
    assert found["model.hidden_dim"].values == (None, 8)
    assert found["training.weight_decay"].values == (1e-5, 0.0)
    assert found["training.optimiser"].values == ("sgd", "adam")
    assert found["hypernetwork.embedding_dim"].whole


@pytest.mark.parametrize(
    ("key", "space", "says"),
    [
        ("hypernetwork.rho", "uniform(0, 2)", "hypernetwork.rho: got 2.0 in tune.space"),
        ("hypernetwork.rho", "grid(0.1, much)", "got 'much' in tune.space.hypernetwork.rho"),
        ("hypernetwork.rho", "grid(0.1, nan)", "got nan"),
        ("hypernetwork.rho", "grid(0.1, 0.10)", "names a value twice"),
        ("hypernetwork.rho", "uniform(1, 0)", "the lower end comes first"),
        ("hypernetwork.rho", "uniform(null, 1)", "hypernetwork.rho: got None"),
        ("model.hidden_dim", "uniform(null, 8)", "the ends of a range are numbers"),
        ("privacy.noise_scale", "loguniform(0, 1)", "loguniform needs ends above 0"),
        ("hypernetwork.embedding_dim", "grid(0)", "allowed: whole number, >= 1"),
        ("hypernetwork.embedding_dim", "grid(1.5)", "allowed: whole number, >= 1"),
        ("training.optimiser", "grid(adam, adagrad)", "one of adam, adamw, sgd, momentum"),
        ("training.optimiser", "uniform(1, 2)", "use choice(...)"),
        ("run.seed", "grid(1, 2)", "training does not depend on it"),
        ("data.bags", "choice(a, b)", "training does not depend on it"),
        ("compare.noise", "choice(1)", "cannot be searched"),
        ("privacy.noise_source", "choice(os)", "trials are simulations"),
    ],
)
def test_what_cannot_be_searched_is_refused(key: str, space: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        dimensions(load(None, words({key: space})))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("given_words", "says"),
    [
        (["tune.search=grid", "tune.space.hypernetwork.rho=choice(0, 1)"], "this is none; list"),
        (["tune.scheduler=asha", "tune.space.rounds.num_versions=grid(3,4)"], "equal versions"),
        (["tune.folds=6"], "tune.folds: got 6, of data.folds=5"),
        (["tune.objectives=noise_scale"], "validation_metric comes first"),
        (["tune.objectives=validation_metric,epsilon"], "mechanism=paper has no epsilon"),
        (
            ["privacy.mechanism=none", "tune.objectives=validation_metric,noise_scale"],
            "noise_scale is of privacy.mechanism=paper",
        ),
        (["privacy.metrics=withheld"], "privacy.metrics: withheld, but trials are judged by"),
        (["privacy.noise_source=os"], "privacy.noise_source: os charges the ledgers"),
        (["rounds.replay=x.jsonl"], "rounds.replay: follows one run"),
    ],
)
def test_searches_that_cannot_work_are_refused(given_words: list[str], says: str) -> None:
    config = load(None, ["tune.space.training.steps=grid(1, 2)", *given_words])
    with pytest.raises(ConfigError) as error:
        check_search(config, dimensions(config))
    assert says in str(error.value)


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tune\.space: names nothing to search"):
        dimensions(load())


@given(SHARES, SHARES, st.tuples(FINITE, FINITE).map(sorted), st.booleans())
def test_drawn_numbers_are_within_their_ends_and_in_order(
    share: float, other: float, ends: list[float], log: bool
) -> None:
    dimension = Dimension("x.y", "loguniform" if log else "uniform", tuple(ends))
    low, high = (dimension.at(s) for s in sorted((share, other)))
    assert ends[0] <= low <= high <= ends[1]


@given(SHARES, st.integers(1, 50), st.integers(0, 50), st.booleans())
def test_drawn_whole_numbers_are_whole(share: float, low: int, more: int, log: bool) -> None:
    dimension = Dimension("x.y", "loguniform" if log else "uniform", (low, low + more), True)
    drawn = dimension.at(share)
    assert isinstance(drawn, int)
    assert low <= drawn <= low + more


def test_every_whole_number_is_equally_likely() -> None:
    dimension = Dimension("x.y", "uniform", (2, 5), True)
    drawn = [dimension.at(i / 400) for i in range(400)]
    assert [drawn.count(n) for n in (2, 3, 4, 5)] == [100] * 4


def test_loguniform_is_uniform_in_the_logarithm() -> None:
    dimension = Dimension("x.y", "loguniform", (0.01, 1.0))
    assert dimension.at(0.5) == pytest.approx(0.1)
    assert math.log10(dimension.at(0.25)) == pytest.approx(-1.5, abs=1e-5)
