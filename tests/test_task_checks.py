"""Settings of tasks: what is read from words and files, and what cannot go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import load, to_yaml

SURVIVAL = "task.kind=survival"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["task.kind=ordinal", "data.positive_label=x"], "data.positive_label=x: is of task.kind"),
        ([SURVIVAL, "data.positive_label=x"], "data.positive_label=x"),
        (["task.classes=a,b,a", "task.kind=multiclass"], "names a class twice"),
        ([SURVIVAL, "task.classes=a,b"], "survival has none"),
        (["task.classes=a,b,c"], "task.kind=binary has two"),
        (["task.classes=a"], "task.kind=binary has two"),
        (["task.classes=a", "task.kind=ordinal"], "a task has at least two"),
        (["task.cuts=3"], "has no effect without task.kind=survival"),
        ([SURVIVAL, "task.cuts=3,2"], "above 0 in ascending order"),
        ([SURVIVAL, "task.cuts=2,2"], "above 0 in ascending order"),
        ([SURVIVAL, "task.cuts=0,2"], "above 0 in ascending order"),
        ([SURVIVAL, "task.cuts=.nan"], "above 0 in ascending order"),
        ([SURVIVAL, "task.cuts=.inf"], "above 0 in ascending order"),
        ([SURVIVAL, "task.cuts=soon"], "allowed: list of number"),
        ([SURVIVAL, "training.label_smoothing=0.1"], "training.label_smoothing=0.1: smooths"),
        ([SURVIVAL, "task.num_bins=1"], "task.num_bins"),
        ([SURVIVAL, "task.num_bins=65"], "task.num_bins"),
        ([SURVIVAL, "task.cuts=" + ",".join(map(str, range(1, 65)))], "at most 6"),
        (["task.kind=ordinal", "task.classes=" + ",".join(map(str, range(65)))], "at most 6"),
        (["task.kind=regression"], "one of binary, multiclass, ordinal, survival"),
        (["task.unit=patient"], "one of slide, case"),
        ([SURVIVAL, "task.uncensored_weight=1.5"], "task.uncensored_weight"),
        (["training.instance_dropout=1"], "training.instance_dropout"),
        (["training.schedule=step"], "one of constant, linear, cosine"),
    ],
)
def test_what_cannot_go_together_is_named(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, words)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "words",
    [
        ["task.classes=a,b", "data.positive_label=a"],
        ["task.kind=ordinal", "task.classes=a,b"],
        ["task.kind=multiclass", "training.label_smoothing=0.1"],
        [SURVIVAL, "task.num_bins=64", "task.unit=case"],
        [SURVIVAL, "task.cuts=" + ",".join(map(str, range(1, 64)))],
    ],
)
def test_what_goes_together_is_accepted_and_survives_yaml(words: list[str], tmp_path: Path) -> None:
    config = load(None, words)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load(path) == config


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("no,yes", ["no", "yes"]),
        ("[a,b]", ["a", "b"]),
        ("[a, b]", ["a", "b"]),
        ("1, 0", ["1", "0"]),
        ("0.50,007", ["0.50", "007"]),
    ],
)
def test_classes_on_the_command_line_are_literal(form: str, names: list[str]) -> None:
    assert load(None, [f"task.classes={form}"]).task.classes == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[no, yes]", ["no", "yes"]),
        ("[0, 1]", ["0", "1"]),
        ("[0.50, 007]", ["0.50", "007"]),
        ("[2020-01-01, on]", ["2020-01-01", "on"]),
        ("no, yes", ["no", "yes"]),
        ("\n  - no\n  - 'yes'", ["no", "yes"]),
        ("", []),
        ("[]", []),
    ],
)
def test_classes_of_a_file_are_literal_too(tmp_path: Path, text: str, names: list[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"task:\n  classes: {text}\n")
    assert load(path).task.classes == names


@pytest.mark.parametrize(("text", "label"), [("no", "no"), ("1", "1"), ("null", None), ("", None)])
def test_the_positive_label_of_a_file_is_literal(
    tmp_path: Path, text: str, label: str | None
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"data:\n  positive_label: {text}\n")
    assert load(path).data.positive_label == label


@pytest.mark.parametrize("text", ["[null, b]", "[a, [b]]", "{a: b}"])
def test_classes_that_are_no_texts_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"task:\n  classes: {text}\n")
    with pytest.raises(ConfigError, match=r"task\.classes"):
        load(path)


@pytest.mark.parametrize(
    ("form", "cuts"),
    [
        ("12,24", [12.0, 24.0]),
        ("12", [12.0]),
        ("[12, 24.5]", [12.0, 24.5]),
        ("1e3,2e3", [1e3, 2e3]),
    ],
)
def test_cuts_in_every_form(tmp_path: Path, form: str, cuts: list[float]) -> None:
    assert load(None, [SURVIVAL, f"task.cuts={form}"]).task.cuts == cuts
    path = tmp_path / "config.yaml"
    path.write_text(f"task:\n  kind: survival\n  cuts: {form}\n")
    assert load(path).task.cuts == cuts
