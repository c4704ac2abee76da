"""Configuration: what is accepted, and how clearly the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.config import METHODS, Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import help_text, knobs, load, to_yaml


def test_defaults_are_valid_and_survive_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(load()))
    assert load(path) == load() == Config()


def test_words_win_over_the_file_which_wins_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("hypernetwork:\n  rho: 0.1\nrounds:\n  num_versions: 7\n")
    config = load(path, ["rounds.num_versions=9"])
    assert (config.hypernetwork.rho, config.rounds.num_versions) == (0.1, 9)
    assert config.training == Config().training


def test_text_is_taken_literally_and_lists_in_both_forms() -> None:
    config = load(None, ["data.positive_label=no", "data.bags=007"])
    assert (config.data.positive_label, config.data.bags) == ("no", "007")
    forms = ["compare.methods=local,fedavg", "compare.methods=[local, fedavg]"]
    assert all(load(None, [f]).compare.methods == ["local", "fedavg"] for f in forms)
    assert load(None, ["data.bags=x", "data.bags=null"]).data.bags is None


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hypernetwork.rh=0.1", "did you mean hypernetwork.rho?"),
        ("rho=0.1", "did you mean hypernetwork.rho?"),
        ("zzz.qqq=1", "see 'rayfed-hn VERB --help'"),
        ("hypernetwork.rho=2", "got 2.0; allowed: number, >= 0, <= 1; default: 0.3"),
        ("hypernetwork.rho=.nan", "got nan"),
        ("hypernetwork.rho=much", "got 'much'"),
        ("method.name=fedavgg", f"one of {', '.join(METHODS)}"),
        ("compare.methods=[x]", f"each one of {', '.join(METHODS)}"),
        ("compare.methods=[]", "each one of"),
        ("compare.methods=local,local", "names a method twice"),
        ("rounds.num_versions=1.5", "whole number"),
        ("rounds.num_versions=", "got None"),
        ("run.resume=maybe", "true or false"),
        ("data=3", "is a section"),
        ("data.fold=5", "allowed: 0 to data.folds - 1 = 4"),
        ("model.standardise=off", "got 'off' on the command line"),  # not YAML's false
        ("data.bags=${oc.env:HOME}", "'${' is not allowed"),
        ("rounds.num_versions", "not of the form section.key=value"),
    ],
)
def test_what_is_wrong_is_named(word: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, [word])
    assert says in str(error.value)
    assert word.split("=")[0] in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "just words", "data: {bags: !!python/object/apply:os.system [ls]}", "a: [", "\x00"],
)
def test_a_bad_file_is_one_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load("nowhere.yaml")


def test_every_knob_explains_itself() -> None:
    for knob in knobs():
        assert len(knob.about) > 15, knob.key
        assert knob.key in help_text((knob.key,))
