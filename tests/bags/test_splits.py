from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayfed_hn.bags.clam_tables import ClamSplit
from rayfed_hn.bags.splits import (
    assign_folds,
    check_given,
    check_leakage,
    given_split,
    shared_cases,
    split,
)
from rayfed_hn.errors import ConfigError, DataError


@dataclass(frozen=True)
class _Bag:
    slide_id: str
    case_id: str
    site: str
    label: str


def _bags(cases: list[list[str]], site: str = "north") -> list[_Bag]:
    """One inner list a case: the labels of its slides."""
    return [
        _bag
        for c, labels in enumerate(cases)
        for s, label in enumerate(labels)
        for _bag in [_Bag(f"{c}-{s}", f"case-{c}", site, label)]
    ]


_CASES = st.lists(st.lists(st.sampled_from(["normal", "tumour"]), min_size=1, max_size=4))
_FOLDS = st.integers(3, 6)
_SEEDS = st.integers(0, 10_000)


@given(_CASES, _FOLDS, _SEEDS)
def test_a_case_is_in_one_fold_only(cases: list[list[str]], num_folds: int, seed: int) -> None:
    bags = _bags(cases)
    folds = assign_folds(bags, num_folds, seed)
    assert len(folds) == len(bags)
    assert all(0 <= fold < num_folds for fold in folds)
    assert len({(bag.case_id, fold) for bag, fold in zip(bags, folds, strict=True)}) == len(cases)


@given(_CASES, _FOLDS, _SEEDS, st.randoms())
def test_the_order_of_entries_has_no_influence(
    cases: list[list[str]], num_folds: int, seed: int, random
) -> None:
    bags = _bags(cases)
    shuffled = list(bags)
    random.shuffle(shuffled)
    before = dict(zip(bags, assign_folds(bags, num_folds, seed), strict=True))
    after = dict(zip(shuffled, assign_folds(shuffled, num_folds, seed), strict=True))
    assert before == after


@given(st.integers(0, 40), st.integers(0, 40), _FOLDS, _SEEDS)
def test_single_slide_cases_are_balanced_by_label_and_in_number(
    normal: int, tumour: int, num_folds: int, seed: int
) -> None:
    bags = _bags([["normal"]] * normal + [["tumour"]] * tumour)
    folds = assign_folds(bags, num_folds, seed)
    for label in ("normal", "tumour"):
        count = Counter(f for bag, f in zip(bags, folds, strict=True) if bag.label == label)
        sizes = [count[f] for f in range(num_folds)]
        assert max(sizes) - min(sizes) <= 1
    sizes = [folds.count(f) for f in range(num_folds)]
    assert max(sizes) - min(sizes) <= 2


@given(_CASES, _FOLDS, _SEEDS)
def test_every_fold_is_test_once_and_parts_are_disjoint(
    cases: list[list[str]], num_folds: int, seed: int
) -> None:
    bags = _bags(cases)
    splits = [split(bags, num_folds, fold, seed) for fold in range(num_folds)]
    assert sorted(i for parts in splits for i in parts.test) == list(range(len(bags)))
    for parts in splits:
        everything = [*parts.train, *parts.validation, *parts.test]
        assert sorted(everything) == list(range(len(bags)))
        assert not shared_cases(bags, parts)
        assert parts.train or not parts.validation


def test_validation_is_the_fold_after_test() -> None:
    bags = _bags([["normal"], ["tumour"]] * 15)
    folds = np.array(assign_folds(bags, 5, 3))
    parts = split(bags, 5, 4, 3)
    assert set(folds[list(parts.test)]) == {4}
    assert set(folds[list(parts.validation)]) == {0}
    assert set(folds[list(parts.train)]) == {1, 2, 3}


def test_seed_and_site_change_the_folds() -> None:
    cases = [["normal"], ["tumour"]] * 10
    assert assign_folds(_bags(cases), 5, 0) != assign_folds(_bags(cases), 5, 1)
    assert assign_folds(_bags(cases), 5, 0) != assign_folds(_bags(cases, "south"), 5, 0)


def test_which_folds_stay_empty_depends_on_the_seed() -> None:
    bags = _bags([["normal"], ["tumour"]])
    used = Counter(fold for seed in range(60) for fold in assign_folds(bags, 5, seed))
    assert set(used) == set(range(5))
    assert max(used.values()) < 60


def test_a_site_of_two_cases_trains_on_its_validation_case() -> None:
    bags = _bags([["normal", "tumour"], ["tumour"]])
    for fold in assign_folds(bags, 3, 7):
        parts = split(bags, 3, fold, 7)
        assert parts.test
        assert parts.train
        assert not parts.validation


def test_a_site_of_one_case_has_nothing_to_train_on_when_it_is_tested() -> None:
    bags = _bags([["normal", "tumour"]])
    parts = split(bags, 3, assign_folds(bags, 3, 0)[0], 0)
    assert (parts.train, parts.validation, parts.test) == ((), (), (0, 1))


def test_many_slides_of_one_case_do_not_drag_others_into_its_fold() -> None:
    bags = _bags([["tumour"] * 12] + [["tumour"]] * 12 + [["normal"]] * 4)
    folds = assign_folds(bags, 3, 1)
    of_big = folds[0]
    tumour = [f for bag, f in zip(bags, folds, strict=True) if bag.label == "tumour"]
    assert tumour.count(of_big) == 12
    others = {tumour.count(f) for f in range(3) if f != of_big}
    assert others == {6}


def test_folds_do_not_change_between_releases() -> None:
    bags = _bags([["normal"], ["tumour"], ["tumour", "tumour"], ["normal"], ["tumour"]])
    assert assign_folds(bags, 3, 0) == [1, 1, 2, 2, 0, 0]


def test_a_case_at_two_sites_is_refused_without_naming_all_cases() -> None:
    north = _bags([["normal"], ["tumour"], ["tumour"]])
    south = _bags([["normal"], ["tumour"]], "south")
    with pytest.raises(
        DataError, match=r"^2 case_id\(s\).*'case-0'; sites: north, south"
    ) as caught:
        check_leakage({"north": north, "south": south})
    assert "case-1" not in str(caught.value)
    check_leakage({"north": north})


def test_impossible_folds_are_refused() -> None:
    bags = _bags([["normal"], ["tumour"]])
    with pytest.raises(ConfigError, match="3 or more"):
        assign_folds(bags, 2, 0)
    with pytest.raises(ConfigError, match="0 to 4"):
        split(bags, 5, 5, 0)
    with pytest.raises(ValueError, match="one site"):
        assign_folds([*bags, *_bags([["normal"]], "south")], 3, 0)


def _as_given(sites: list[list[_Bag]], num_folds: int, fold: int, seed: int) -> ClamSplit:
    """The folds that ``split`` makes, as a table would state them."""
    named: list[list[str]] = [[], [], []]
    for bags in sites:
        parts = split(bags, num_folds, fold, seed)
        for names, part in zip(named, (parts.train, parts.validation, parts.test), strict=True):
            names += [bags[i].slide_id for i in part]
    train, validation, test = (tuple(reversed(names)) for names in named)
    return ClamSplit(Path("splits_0.csv"), train, validation, test)


@given(_CASES, _CASES, _FOLDS, _SEEDS)
def test_a_stated_split_is_the_split_it_states(
    north: list[list[str]], south: list[list[str]], num_folds: int, seed: int
) -> None:
    sites = [
        [_Bag(f"{site}-{bag.slide_id}", f"{site}-{bag.case_id}", site, bag.label) for bag in bags]
        for site, bags in (("north", _bags(north)), ("south", _bags(south)))
    ]
    given = _as_given(sites, num_folds, 0, seed)
    check_given({"north": sites[0], "south": sites[1]}, given)
    for bags in sites:
        assert given_split(bags, given) == split(bags, num_folds, 0, seed)


def test_slides_that_a_table_does_not_name_are_in_no_part() -> None:
    bags = _bags([["normal"], ["tumour"], ["tumour"]])
    parts = given_split(bags, ClamSplit(Path("t.csv"), ("2-0", "elsewhere"), (), ("0-0",)))
    assert (parts.train, parts.validation, parts.test) == ((2,), (), (0,))


def test_a_stated_split_must_not_divide_a_case() -> None:
    bags = _bags([["normal", "tumour"], ["tumour"]])
    given = ClamSplit(Path("t.csv"), ("0-0",), ("1-0",), ("0-1",))
    with pytest.raises(DataError, match=r"t.csv: slides of 1 case.*'case-0' at north"):
        given_split(bags, given)
    with pytest.raises(DataError, match="are in two parts"):
        check_given({"north": bags}, given)


def test_a_stated_split_must_not_name_slides_without_a_bag() -> None:
    bags = _bags([["normal"], ["tumour"]])
    given = ClamSplit(Path("t.csv"), ("0-0", "7.0"), ("1-0",), ())
    with pytest.raises(DataError, match=r"1 of its 3 slides have no bag \(first: '7.0'\)"):
        check_given({"north": bags}, given)
    check_given({"north": bags}, given, without=["7.0"])
