"""How well a new site does with how many labelled bags, and the networks that it ends up with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rayfed_hn.bags.store import SiteBags
from rayfed_hn.federation.data import Folds, SiteBag, load_site
from rayfed_hn.federation.onboarding.arms import Arms, Fitted
from rayfed_hn.federation.onboarding.recommend import Recommendation, recommend, truth_of
from rayfed_hn.models.tasks import Task
from rayfed_hn.seeds import derive

RECOMMENDED = "recommended"


@dataclass(frozen=True)
class Labelled:
    """Some labelled bags of a site, and those that it is tested on; no case is in both.

    Attributes:
        bags: Whose labels are used.
        test: What is under test.
        pool: All bags that are not under test, whose labels are not used.
    """

    bags: tuple[SiteBag, ...]
    test: tuple[SiteBag, ...]
    pool: tuple[SiteBag, ...] = ()


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of one set of labelled bags.

    Attributes:
        values: Metric on the test bags by arm, with the recommendation; None where undefined.
        recommendation: What was recommended.
        fitted: The networks.
    """

    values: dict[str, float | None]
    recommendation: Recommendation
    fitted: dict[str, Fitted]


def divide(bags: SiteBags, task: Task, folds: Folds) -> Labelled:
    """All bags of the site: one fold is test, all others are labelled."""
    data = load_site(bags, task, folds)
    others = (*data.train, *data.validation)
    return Labelled(others, data.test, others)


def draw(everything: Labelled, task: Task, count: int, seed: int) -> Labelled | None:
    """``count`` labelled bags of every class (with and without event), drawn by ``seed``.

    Larger draws of one seed hold the smaller ones.

    Returns:
        None where a class has fewer, or there are none at all.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    shuffled = [everything.bags[i] for i in rng.permutation(len(everything.bags))]
    strata = sorted({task.stratum(bag) for bag in shuffled})
    own = {s: [bag for bag in shuffled if task.stratum(bag) == s] for s in strata}
    if min(map(len, own.values()), default=0) < count:
        return None
    chosen = tuple(bag for found in own.values() for bag in found[:count])
    return Labelled(chosen, everything.test, everything.bags)


def attempt(arms: Arms, labelled: Labelled, number: int) -> Tried:
    """Fit all arms to labelled bags, recommend, and test."""
    arms = replace(arms, pool=labelled.pool)
    fitted = arms.fit(labelled.bags, number)
    recommendation = recommend(arms, fitted, labelled.bags, number)
    by_arm = {arm: arms.evidence(own, labelled.test) for arm, own in fitted.items()}
    by_arm[RECOMMENDED] = recommendation.evidence(by_arm)
    task, truth = arms.origin.task, truth_of(labelled.test)
    values = {
        arm: task.judge.value(truth, task.predict(evidence_BE))
        for arm, evidence_BE in by_arm.items()
    }
    return Tried(values, recommendation, fitted)


def curve(
    arms: Arms, bags: SiteBags, folds: Folds, on_point: Callable[[int], object] = lambda done: None
) -> Iterator[dict[str, Any]]:
    """Records ``labelled, repeat, arm, value`` of every point; a repeat has a test fold of its own.

    Args:
        arms: What fits networks.
        bags: Of the new site, which all have a label of the task.
        folds: How its cases are divided; the first repeat is tested on its ``fold``.
        on_point: Called with the number of points that are done.
    """
    task, done = arms.origin.task, 0
    for repeat in range(arms.config.repeats):
        everything = divide(bags, task, folds.shifted(repeat))
        seed = derive(arms.seed, "onboarding draw", arms.site, repeat)
        for count in arms.config.labelled:
            labelled = draw(everything, task, count, seed)
            if labelled is not None:
                tried = attempt(arms, labelled, repeat)
                for arm, value in tried.values.items():
                    yield {"labelled": count, "repeat": repeat, "arm": arm, "value": value}
            done += 1
            on_point(done)


def summarise(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard error over repeats by number of labelled bags and arm."""
    found: dict[tuple[int, str], list[float]] = {}
    for record in records:
        own = found.setdefault((record["labelled"], record["arm"]), [])
        if record["value"] is not None:
            own.append(record["value"])
    return [
        {
            "labelled": labelled,
            "arm": arm,
            "mean": float(np.mean(values)) if values else None,
            "se": float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else None,
            "num": len(values),
        }
        for (labelled, arm), values in sorted(found.items(), key=lambda item: item[0][0])
    ]
