from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_runs import make_compare_run

from rayfed_hn.config import METHODS
from rayfed_hn.evaluation.bootstrap import KIND, MEAN
from rayfed_hn.reporting.run_files import read_run
from rayfed_hn.reporting.verdict import verdict

_KINDS = ("better than", "worse than", "not told apart from")


def _set_bounds(folder: Path, bounds: dict[str, tuple[float, float]]) -> str:
    """Give every difference the bounds of its rival; return the verdict."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    for d in summary["differences"]:
        low, high = bounds.get(d["against"], (-0.01, 0.01))
        d |= {"difference": (low + high) / 2, "low": low, "high": high}
    path.write_text(json.dumps(summary))
    return verdict(read_run(folder))


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return make_compare_run(tmp_path / "many", sites=("north", "south"), methods=METHODS)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [((0.01, 0.03), _KINDS[0]), ((-0.03, -0.01), _KINDS[1]), ((-0.01, 0.02), _KINDS[2])],
)
def test_the_verdict_claims_no_more_than_the_interval(
    compare_run: Path, bounds: tuple[float, float], words: str
) -> None:
    found = _set_bounds(compare_run, {"local": bounds, "fedavg": bounds})
    assert {claim for claim in _KINDS if claim in found} == {words}


def test_an_interval_of_no_width_is_not_sold_as_certainty(compare_run: Path) -> None:
    found = _set_bounds(compare_run, {"local": (0, 0), "fedavg": (0, 0)})
    same = "(the same AUC at every site in every split)"
    assert f": not told apart from fedavg {same} and local {same}." in found


def test_without_a_hypernetwork_the_best_method_is_the_subject(tmp_path: Path) -> None:
    folder = make_compare_run(tmp_path / "run", methods=("local", "pooled"))
    found = verdict(read_run(folder))
    assert found.startswith("Best of all, pooled reaches")
    assert ": better than local (+" in found or ": not told apart from local (+" in found


def test_many_comparisons_are_counted_and_grouped_with_their_strongest_rivals(many: Path) -> None:
    better = {"local": (0.02, 0.04), "fedper": (0.01, 0.03), "pfedhn": (0.05, 0.09)}
    worse = {"pooled": (-0.04, -0.02)}
    found = _set_bounds(many, better | worse | {"fedprox": (-0.02, 0.01)})
    assert "over 2 sites and 10 splits. In 10 comparisons it is better than 3 methods, " in found
    assert "the strongest of them fedper (+0.020, 95 % interval +0.010 to +0.030);" in found
    assert "worse than pooled (-0.030, 95 % interval -0.040 to -0.020);" in found
    assert "not told apart from 6 methods, the strongest of them fedprox (-0.005" in found
    assert len(found) < 450


def test_a_single_group_is_a_whole_sentence(many: Path) -> None:
    found = _set_bounds(many, {})
    assert "In 10 comparisons it is not told apart from 10 methods, the strongest" in found
    assert not any(kind in found for kind in _KINDS[:2])


def test_what_the_test_by_case_says_otherwise_is_said(compare_run: Path) -> None:
    """In the same sentence, and only where it differs."""
    path = compare_run / "summary.json"
    summary = json.loads(path.read_text())
    about = {"kind": KIND, "scope": MEAN, "metric": "AUC", "site": None, "p": 0.1, "p_holm": 0.1}
    about |= {"readout": "mixture", "num_cases": 40, "num_sites": 4}
    summary["tests"] = [
        {**about, "method": "hypernetwork", "against": other, "difference": d, "low": d - 0.1,
         "high": d + 0.1}
        for other, d in (("local", 0.05), ("fedavg", 0.02))
    ]  # fmt: skip
    path.write_text(json.dumps(summary))
    found = _set_bounds(compare_run, {"local": (0.01, 0.03), "fedavg": (-0.03, 0.01)})
    wanted = "by case, with all folds judged together, it is not told apart from local (+0.050, "
    assert wanted + "-0.050 to +0.150)." in found
    found = _set_bounds(compare_run, {"local": (-0.01, 0.03), "fedavg": (-0.03, 0.01)})
    assert "by case" not in found
