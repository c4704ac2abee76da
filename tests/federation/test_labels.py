"""Which task a bag store makes, and what becomes of bags and sites that do not fit it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_federations import METHODS, create, federation, plan_of, write

from rayfed_hn.bags import store
from rayfed_hn.errors import DataError
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.labels import label_of
from rayfed_hn.federation.results import score_records, site_rows
from rayfed_hn.models.tasks import Binary, Multiclass, Ordinal, Survival

MULTICLASS, ORDINAL, SURVIVAL = (f"task.kind={k}" for k in ("multiclass", "ordinal", "survival"))


def spread(root: Path, *labels: str) -> Path:
    """Two sites with five bags of every label."""
    return federation(root, dict.fromkeys(("a", "b"), labels * 5))


# -- names and their order ---------------------------------------------------------------------


def test_three_kinds_of_labels_by_default_are_an_error_with_its_remedies(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these bags have 3 labels") as error:
        plan_of(spread(tmp_path / "b", "x", "y", "z"))
    for word in ("x, y, z", "task.kind", "task.classes", "multiclass"):
        assert word in str(error.value)


def test_one_label_is_too_few_for_every_kind(tmp_path: Path) -> None:
    root = spread(tmp_path / "b", "7")
    for kind in ("binary", "multiclass", "ordinal"):
        with pytest.raises(DataError, match="these bags have 1 labels"):
            plan_of(root, f"task.kind={kind}")


def test_grades_are_in_numerical_order(tmp_path: Path) -> None:
    root = spread(tmp_path / "b", "10", "9.5", "-1", "2")
    names = ("-1", "2", "9.5", "10")
    assert plan_of(root, ORDINAL).task == Ordinal(names)
    assert plan_of(root, MULTICLASS).task == Multiclass(names)
    turned = plan_of(root, ORDINAL, "task.classes=10,9.5,2,-1").task
    assert turned == Ordinal(names[::-1])
    assert [label_of(turned, e) for e in store.SiteBags(root, "a").entries[:4]] == [0, 1, 3, 2]


def test_grades_without_an_order_of_their_own_must_be_named(tmp_path: Path) -> None:
    root = spread(tmp_path / "b", "low", "high", "7")
    with pytest.raises(DataError, match=r"task\.classes: missing; grades that are no numbers"):
        plan_of(root, ORDINAL)
    assert plan_of(root, ORDINAL, "task.classes=low,7,high").task.names == ("low", "7", "high")
    assert plan_of(root, MULTICLASS).task.names == ("7", "high", "low")


def test_class_1_is_the_positive_label_or_the_last_class(tmp_path: Path) -> None:
    root = spread(tmp_path / "b", "x", "y", "z")
    for words, names in (
        (["task.classes=z,x"], ("z", "x")),
        (["task.classes=z,x", "data.positive_label=z"], ("x", "z")),
        (["task.classes=x,z", "data.positive_label=z"], ("x", "z")),
    ):
        assert plan_of(root, *words).task == Binary(names)
    with pytest.raises(DataError, match=r"data\.positive_label: 'y' is no label of these"):
        plan_of(root, "task.classes=z,x", "data.positive_label=y")


def test_a_class_that_no_bag_has_is_an_error(tmp_path: Path) -> None:
    root = spread(tmp_path / "b", "x", "y")
    for kind in ("binary", "multiclass", "ordinal"):
        with pytest.raises(DataError, match="no bag has the label 'q'; the bags have x, y"):
            plan_of(root, f"task.kind={kind}", "task.classes=x,q")


def test_more_classes_than_a_message_holds_are_refused_before_the_run(tmp_path: Path) -> None:
    labels = tuple(map(str, range(65)))
    root = federation(tmp_path / "b", {"a": labels, "b": labels})
    for kind in (MULTICLASS, ORDINAL):
        with pytest.raises(DataError, match="these bags have 65 labels; at most 64"):
            plan_of(root, kind)
    outcome = run_in_process(
        plan := plan_of(root, MULTICLASS, f"task.classes={','.join(labels[:64])}", "data.folds=3")
    )
    assert len(plan.task.names) == 64
    assert not outcome.lost


# -- bags without a label of the task ----------------------------------------------------------


def test_bags_with_other_labels_are_set_aside_and_the_rest_go_on(tmp_path: Path) -> None:
    root = federation(tmp_path / "b", {"a": ("x", "y") * 5, "b": ("x", "y", "odd") * 5})
    write(root, "c", "c-0", "odd")
    plan = plan_of(root, "task.classes=x,y")
    assert plan.hospitals == ("a", "b")
    said = {site: why.reason for site, why in plan.set_aside}
    assert said == {
        "b": "5 of its bags have none of the labels x, y, but 'odd' (5)",
        "c": "1 of its bags have none of the labels x, y, but 'odd' (1)",
    }
    assert all("task.classes" in why.remedy for _, why in plan.set_aside)
    outcome = run_in_process(plan)
    assert not outcome.lost
    # The run is the one of a store that never had them.
    clean = federation(tmp_path / "clean", {"a": ("x", "y") * 5})
    for number, label in enumerate(("x", "y", "odd") * 5):
        if label != "odd":
            write(clean, "b", f"b-{number}", label)
    other = plan_of(clean, "task.classes=x,y")
    assert other.set_aside == ()
    assert other.num_bags == plan.num_bags
    assert run_in_process(other).digest == outcome.digest


@pytest.mark.parametrize("method", [*METHODS, "pooled", "fedavg_ft", "pfedhn_pc"])
def test_a_site_without_a_class_trains_and_its_metric_is_undefined(
    tmp_path: Path, method: str
) -> None:
    root = federation(tmp_path / "b", {"a": ("x", "y") * 5, "b": ("x",) * 8, "c": ("x", "y") * 5})
    plan = plan_of(root, f"method.name={method}", "data.folds=3")
    outcome = run_in_process(plan)
    assert not outcome.lost
    assert plan.set_aside == ()
    rows = {(row["site"], row["readout"]): row for row in site_rows(plan, outcome.scores)}
    for (site, _), row in rows.items():
        assert row["num_test"] > 0
        assert (row["value"] is None) == (site == "b")
        assert (row["by_case"] is None) == (site == "b")
    for scores in outcome.scores:
        assert (scores.validation_metric is None) == (scores.site == "b")


def test_a_site_without_one_of_three_classes_is_judged_by_the_others(tmp_path: Path) -> None:
    root = federation(tmp_path / "b", {"a": ("x", "y", "z") * 5, "b": ("x", "y") * 6})
    plan = plan_of(root, MULTICLASS, "data.folds=3")
    outcome = run_in_process(plan)
    records = [
        r
        for r in score_records(plan, outcome.scores)
        if (r["site"], r["readout"], r["unit"]) == ("b", "last", "slide")
    ]
    assert {record["label"] for record in records} == {0, 1}
    pairs = Counter[str]()
    for one in records:
        for other in records:
            if one["label"] == 0 and other["label"] == 1:
                for k, sign in ((0, 1), (1, -1)):
                    gap = sign * (one["probabilities"][k] - other["probabilities"][k])
                    pairs[f"{k} won"] += 2 * (gap > 0) + (gap == 0)
                    pairs[f"{k} all"] += 2
    expected = np.mean([pairs[f"{k} won"] / pairs[f"{k} all"] for k in (0, 1)])
    (row,) = (
        r for r in site_rows(plan, outcome.scores) if (r["site"], r["readout"]) == ("b", "last")
    )
    assert row["value"] == pytest.approx(expected)


# -- times -------------------------------------------------------------------------------------


def timed(root: Path, num: int = 15, seed: int = 0) -> Path:
    """Two sites, all cases with an event."""
    create(root)
    rng = np.random.default_rng(seed)
    for site in "ab":
        for i in range(num):
            write(root, site, f"{site}{i}", "", time=float(rng.integers(1, 10**6)), event=True)
    return root


def times_of(root: Path, part: str, site: str) -> list[float]:
    return [bag.time for bag in getattr(plan_of(root, SURVIVAL).site(site).data, part)]


def test_cuts_are_the_mean_over_sites_of_quantiles_without_the_test_cases(tmp_path: Path) -> None:
    root = timed(tmp_path / "b")
    task = plan_of(root, SURVIVAL, "task.num_bins=4").task
    assert isinstance(task, Survival)
    known = [times_of(root, "train", s) + times_of(root, "validation", s) for s in "ab"]
    expected = np.mean([np.quantile(own, [0.25, 0.5, 0.75]) for own in known], axis=0)
    np.testing.assert_allclose(task.cuts, expected)
    assert len(task.names) == task.num_outputs == 4


@pytest.mark.parametrize("without", [0, 3])
def test_the_times_of_test_cases_decide_nothing(tmp_path: Path, without: int) -> None:
    # Cases without a time are dealt into folds nowhere, or others would be under test.
    root = timed(tmp_path / "b")
    for i in range(without):
        write(root, "a", f"none{i}", "", case=f"z{i}")
        write(root, "b", f"0none{i}", "", case=f"0{i}")
    before = plan_of(root, SURVIVAL)
    tested = set(times_of(root, "test", "a")) | set(times_of(root, "test", "b"))
    for changed in (True, False):
        other = tmp_path / f"other{changed}"
        create(other)
        for site in "ab":
            bags = store.SiteBags(root, site)
            for i, entry in enumerate(bags.entries):
                bag = bags.load(i)
                if entry.time is not None and (entry.time in tested) == changed:
                    bag = replace(bag, time=entry.time * 3 + 1)
                store.write(other, bag)
        same = plan_of(other, SURVIVAL).task == before.task
        assert same == changed


def test_every_fold_has_its_share_of_events(tmp_path: Path) -> None:
    create(root := tmp_path / "b")
    for i in range(24):  # as if the label were to decide: the wrong way round
        write(root, "a", f"a{i:02}", "xy"[i % 2], time=i + 1.0, event=i % 4 == 0)
    events = []
    for fold in range(3):
        data = plan_of(root, SURVIVAL, "data.folds=3", f"data.fold={fold}").site("a").data
        assert len(data.test) == 8
        events.append(sum(bag.event for bag in data.test))
    assert events == [2, 2, 2]


def test_too_few_different_times_are_an_error(tmp_path: Path) -> None:
    create(root := tmp_path / "b")
    for site in "ab":
        for i in range(12):
            write(root, site, f"{site}{i}", "", time=float(1 + i % 2), event=True)
    with pytest.raises(DataError, match=r"task\.num_bins: got 4, but event times have too few"):
        plan_of(root, SURVIVAL)
    assert plan_of(root, SURVIVAL, "task.cuts=1.5").task.names == ("0 to 1.5", "from 1.5")


def test_survival_needs_times_and_events(tmp_path: Path) -> None:
    root = spread(tmp_path / "labels", "x", "y")
    for words in ([], ["task.cuts=3"]):
        with pytest.raises(DataError, match="columns time and event"):
            plan_of(root, SURVIVAL, *words)
    create(root := tmp_path / "censored")
    for i in range(12):
        write(root, "a", f"a{i}", "", time=i + 1.0, event=False)
    with pytest.raises(DataError, match="no training case has an event"):
        plan_of(root, SURVIVAL)
    outcome = run_in_process(plan := plan_of(root, SURVIVAL, "task.cuts=3,6"))
    assert [row["value"] for row in site_rows(plan, outcome.scores)] == [None] * 3


def test_bags_without_a_time_are_set_aside_under_survival(tmp_path: Path) -> None:
    root = timed(tmp_path / "b")
    write(root, "a", "none", "x")
    ((site, why),) = plan_of(root, SURVIVAL).set_aside
    assert (site, why.reason) == ("a", "1 of its bags have no time")
    assert "task.classes" not in why.remedy


def test_bags_without_a_label_are_set_aside_under_classes(tmp_path: Path) -> None:
    root = spread(tmp_path / "b", "x", "y")
    write(root, "a", "none", "", time=3.0, event=True)
    plan = plan_of(root)
    assert plan.task == Binary(("x", "y"))
    assert [(site, why.reason) for site, why in plan.set_aside] == [
        ("a", "1 of its bags have none of the labels x, y")
    ]


def test_what_looks_like_a_slip_is_said_before_training(tmp_path: Path) -> None:
    labels = ("x", "y", "z") * 4
    root = federation(tmp_path / "b", {"a": labels, "b": ("x", "y") * 6, "c": ("x", "y") * 6})
    write(root, "c", "slip", "zz")
    several = plan_of(root, "task.kind=multiclass", "data.leave_out=b").notes
    assert [note for note in several if "b takes no part" in note]
    assert [note for note in several if note.startswith("class 'zz' has 1 bag(s)")]
    assert [note for note in several if note.startswith("c has no bag of z")]
    assert not [note for note in several if "class 'z'" in note]
    clean = federation(tmp_path / "clean", {"a": labels, "b": labels})
    assert plan_of(clean, "task.kind=multiclass").notes == ()


def test_bags_with_times_alone_are_told_of_survival(tmp_path: Path) -> None:
    root = federation(tmp_path / "b", {"a": ("",) * 6, "b": ("",) * 6}, times=True)
    with pytest.raises(DataError, match=r"no labels; .* task\.kind=survival"):
        plan_of(root)
