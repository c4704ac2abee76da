"""What attacks found, beside the promise; the file may say less than it could."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayfed_hn.errors import DataError
from rayfed_hn.reporting.audit_section import audit

_MEASURED = {"auc": 0.612, "auc_low": 0.55, "auc_high": 0.67, "tpr": 0.024, "num_members": 30}
FULL: dict[str, Any] = {
    "messages": "kept by the run",
    "level": 0.9,
    "membership": {"loss": _MEASURED, "too few": None},
    "property": {"nearest": {"pairs": _MEASURED | {"auc": 0.7}, "right": 0.5}},
    "inversion": {"one_step": 0.1, "told_apart": _MEASURED | {"auc": 0.8}},
    "canaries": {
        "made-up bags": {"bound": {"epsilon": 0.7}, "promised": 8.0, "guessing": _MEASURED},
    },
}


def words(folder: Path, values: Any, mechanism: str = "site_ldp") -> str:
    (folder / "audit.json").write_text(json.dumps(values))
    text = re.sub(r"<[^>]+>", " ", "".join(audit(folder, mechanism)))
    assert "nan" not in text
    assert "None" not in text
    return " ".join(text.split())


def test_attacks_stand_beside_the_promise(tmp_path: Path) -> None:
    found = words(tmp_path, FULL)
    assert "Messages: kept by the run." in found
    assert "90 % interval" in found
    numbers = "0.550 to 0.670 2.4 %"
    assert f"was a slide trained on? (loss) 0.612 {numbers} – –" in found
    assert f"is a slide from this site? (nearest) 0.700 {numbers} – –" in found
    assert f"are its tiles in the update? (inversion) 0.800 {numbers} – –" in found
    assert f"canaries (made-up bags) 0.612 {numbers} 0.700 8.000" in found
    assert "too few" not in found
    assert "broken" not in found


def without_each(values: Any) -> Iterator[Any]:
    """The same with one key less, at any depth, and with null in its place."""
    if isinstance(values, dict):
        for key in values:
            yield {k: v for k, v in values.items() if k != key}
            yield values | {key: None}
            yield from (values | {key: less} for less in without_each(values[key]))


@pytest.mark.parametrize("values", list(without_each(copy.deepcopy(FULL))), ids=lambda _: "")
def test_what_it_does_not_say_is_left_open(tmp_path: Path, values: Any) -> None:
    assert words(tmp_path, values).startswith("Audit Attacks on this run")


def test_without_a_promise_none_is_promised(tmp_path: Path) -> None:
    values = copy.deepcopy(FULL)
    values["canaries"]["made-up bags"]["promised"] = None
    assert words(tmp_path, values, "paper").endswith("0.700 none")


@pytest.mark.parametrize("change", [{"bound": {"epsilon": 9.5}}, {"broken": True}])
def test_an_attack_that_shows_more_than_is_promised_is_an_alarm(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    values = copy.deepcopy(FULL)
    values["canaries"]["made-up bags"] |= change
    assert "The promise is broken canaries (made-up bags): epsilon is at" in words(tmp_path, values)


@pytest.mark.parametrize("values", [{}, [], {"membership": {}}, {"membership": None}, 3])
def test_an_audit_without_attacks_says_so(tmp_path: Path, values: Any) -> None:
    assert words(tmp_path, values).endswith("but names no attack.")


def test_without_the_file_there_is_nothing(tmp_path: Path) -> None:
    assert audit(tmp_path, "paper") == []


@pytest.mark.parametrize("content", ["{", '{"membership": 3}'])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "audit.json").write_text(content)
    with pytest.raises(DataError, match=r"audit\.json cannot be used"):
        audit(tmp_path, "paper")
