"""Search spaces as part of the configuration: how they are written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.config.spaces import LISTED, RANGES, Space, read_space
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import is_knob, load, to_yaml

ITEMS = st.text(st.characters(exclude_characters="(),{}", categories=("L", "N", "P", "S")))
WRITABLE = ITEMS.filter(bool)
SPACES = st.one_of(
    st.builds(Space, st.sampled_from(LISTED), st.lists(WRITABLE, min_size=1).map(tuple)),
    st.builds(Space, st.sampled_from(RANGES), st.tuples(WRITABLE, WRITABLE)),
)


@given(SPACES)
def test_a_space_survives_being_written(space: Space) -> None:
    assert read_space(str(space)) == space
    assert read_space({space.kind: list(space.items)}) == space


@given(st.text())
def test_any_other_text_is_one_error(text: str) -> None:
    try:
        space = read_space(text)
    except ValueError:
        return
    assert read_space(str(space)) == space


def test_all_forms_mean_the_same(tmp_path: Path) -> None:
    texts = [
        "tune:\n  space:\n    privacy.noise_scale: loguniform(0.01, 1)\n",
        "tune:\n  space:\n    privacy.noise_scale: {loguniform: [0.01, 1]}\n",
        "tune:\n  space:\n    privacy:\n      noise_scale:\n        loguniform: [0.01, 1]\n",
    ]
    words = ["loguniform(0.01,1)", " loguniform( 0.01, 1 )", "{loguniform: [0.01, 1]}"]
    found = [load(None, [f"tune.space.privacy.noise_scale={word}"]) for word in words]
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        found.append(load(path))
    for config in found:
        assert config.tune.space == {"privacy.noise_scale": "loguniform(0.01, 1)"}
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(found[0]))
    assert load(path) == found[0]


def test_words_win_over_the_file_and_null_takes_a_key_out(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "tune: {space: {hypernetwork.rho: {grid: [0, 1]}, model.standardise: {choice: [no, off]}}}"
    )
    assert load(path).tune.space["model.standardise"] == "choice(no, off)"  # texts as they stand
    config = load(
        path, ["tune.space.model.standardise=null", "tune.space.hypernetwork.rho=grid(.5)"]
    )
    assert config.tune.space == {"hypernetwork.rho": "grid(.5)"}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("tune.space.hypernetwork.rh=grid(1)", "did you mean hypernetwork.rho?"),
        ("tune.space.data=grid(1)", "unknown key"),
        ("tune.space=3", "allowed: mapping"),
        ("tune.space.hypernetwork.rho=[1, 2]", "it is no search space; allowed: grid(a, b), ch"),
        ("tune.space.hypernetwork.rho=grud(1)", "there is no 'grud'"),
        ("tune.space.hypernetwork.rho=uniform(1)", "uniform has two ends, and 1 are given"),
        ("tune.space.hypernetwork.rho=grid()", "it names no value"),
        ("tune.space.hypernetwork.rho=grid(1,,2)", "a value is empty"),
        ("tune.space.hypernetwork.rho={grid: 1}", "what belongs to 'grid' is no list"),
        ("tune.space.hypernetwork.rho={grid: [1], choice: [1]}", "not exactly one kind"),
        ("tune.space.data.bags=choice(${oc.env:HOME})", "'${' is not allowed"),
        ("tune.objectives=epsilon,epsilon", "names an objective twice"),
    ],
)
def test_what_is_wrong_is_named(word: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, [word])
    assert says in str(error.value)
    assert word.split("=")[0] in str(error.value)


def test_a_space_is_a_key_that_verbs_know() -> None:
    assert is_knob("tune.space.privacy.noise_scale")
    assert not is_knob("tune.spaces.privacy.noise_scale")
