"""A whole search, checked before anything starts, and what is concluded from its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rayfed_hn.config import Config
from rayfed_hn.evaluation.comparison import compare_methods
from rayfed_hn.evaluation.judging import Judge
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.survey import survey
from rayfed_hn.tuning.dimensions import Dimension, check_search, dimensions
from rayfed_hn.tuning.front import best, front
from rayfed_hn.tuning.idle import EMBEDDING_DIM, alike_from, idle
from rayfed_hn.tuning.importance import importance
from rayfed_hn.tuning.trials import (
    Trial,
    configured,
    divisions,
    final_divisions,
    on_division,
    planned,
    trial_config,
    tuned,
)

TUNED, CONFIGURED = "tuned", "configured"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """What is searched, where, and what is tried.

    Attributes:
        config: As it was given.
        dimensions: The keys, by name.
        trials: All of them; empty where settings follow from results.
        plan: Of one trial, on the first division.
        num_bags: Of every site on that division, with the configuration as it was given.
        set_aside: Sites that some division of a trial does without: site, reason and remedy.
    """

    config: Config
    dimensions: tuple[Dimension, ...]
    trials: tuple[Trial, ...]
    plan: Plan
    num_bags: Mapping[str, tuple[int, int, int]]
    set_aside: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, config: Config, root: Path) -> Search:
        """Check everything that can be checked without training.

        Raises:
            ConfigError: The search, or a setting in it, is impossible.
            DataError: The bags do not fit.
        """
        found = dimensions(config)
        check_search(config, found)
        if config.tune.search == "optuna":
            trials: list[Trial] = []
            first = trial_config(config, {d.key: d.at(0.5) for d in found})
        else:
            trials = planned(config, found)
            first = trial_config(config, trials[0].settings)
        plans = [make_plan(on_division(first, *one), root) for one in divisions(config)]
        aside = [
            {"site": name, "reason": why.reason, "remedy": why.remedy}
            for plan in plans
            for name, why in plan.set_aside
        ]
        given = survey(on_division(config, *divisions(config)[0]), root).num_bags
        return cls(config, found, tuple(trials), plans[0], given, tuple(once(aside)))

    @property
    def num_trials(self) -> int:
        """Trials to run in all."""
        return len(self.trials) or self.config.tune.num_trials

    def num_finals(self, records: Sequence[Record]) -> int:
        """Trainings after the search, of which these are the trials."""
        found = best(records)
        arms = {} if found is None else self.finals(found["settings"])
        return len(arms) * len(final_divisions(self.config))

    @property
    def adaptive(self) -> bool:
        """Whether later settings follow from earlier results."""
        return not self.trials

    def notes(self) -> list[str]:
        """What somebody should know before hours are spent on it."""
        found = [
            f"{row['key']} changes nothing: {row['because']}"
            for row in idle(self.config, self.dimensions)
        ]
        resources, asked = self.config.resources, self.config.tune.num_trials
        if self.config.run.track != "none":
            found.append("run.track: tune hands nothing on; its curves are in TensorBoard's files")
        if self.config.tune.actors and self.config.tune.final_seeds:
            found.append(
                "the test in the end trains on CPUs, a process a division, with tune.actors too; "
                "tune.final_seeds=0 leaves it out"
            )
        if not self.config.tune.actors and (resources.gpus_per_site or resources.gpus_for_server):
            found.append("trials run on CPUs; on GPUs with tune.actors=true")
        if self.config.tune.scheduler == "asha" and len(self.config.tune.objectives) > 1:
            found.append(
                f"tune.scheduler=asha stops trials by the validation metric alone; most of those "
                f"that are on the front for their {self.config.tune.objectives[1]} will be among "
                "them; tune.scheduler=none keeps them"
            )
        if self.config.tune.search == "random" and len(self.trials) < asked:
            found.append(f"there are but {len(self.trials)} different settings, not {asked}")
        return found

    def finals(self, chosen: Mapping[str, Any]) -> dict[str, Config]:
        """What is trained and tested in the end: the best setting, and what it is measured against.

        Where nothing but privacy was searched there is nothing to measure it against.
        """
        if not self.config.tune.final_seeds:
            return {}
        arms = {TUNED: chosen, CONFIGURED: configured(self.config, chosen)}
        found = {name: tuned(self.config, settings) for name, settings in arms.items()}
        folds = replace(self.config.compare, folds=self.config.data.folds, noise=[])
        found = {name: replace(config, compare=folds) for name, config in found.items()}
        return found if found[TUNED] != found[CONFIGURED] else {TUNED: found[TUNED]}

    def concluded(self, records: Sequence[Record]) -> dict[str, Any]:
        """What the trials say: the best, the front, what mattered, and what could not."""
        config = self.config
        found, chosen = best(records), []
        if len(config.tune.objectives) > 1:
            chosen = front(records, config.tune.objectives)
        return {
            "metric": self.plan.task.judge.ranking_name,
            "objectives": config.tune.objectives,
            "space": config.tune.space,
            "search": config.tune.search,
            "scheduler": config.tune.scheduler,
            "trials": [{k: v for k, v in r.items() if k != "curve"} for r in records],
            "best": None if found is None else found["trial"],
            "front": chosen,
            "importance": importance(records, self.dimensions, config.run.seed),
            "idle": idle(config, self.dimensions),
            "alike": self._alike(records),
        }

    def _alike(self, records: Sequence[Record]) -> dict[str, Any] | None:
        """Trials whose embeddings are so long that their length cannot matter."""
        if all(d.key != EMBEDDING_DIM for d in self.dimensions):
            return None
        num_sites, numbers = len(self.plan.hospitals), []  # the first trial may be a pooled one
        for record in records:
            size = record["settings"][EMBEDDING_DIM] or max(16, num_sites)
            least = alike_from(trial_config(self.config, record["settings"]), num_sites)
            if least is not None and size >= least:
                numbers.append(record["trial"])
        return {"key": EMBEDDING_DIM, "from": num_sites, "trials": numbers} if numbers else None


def tested(
    search: Search, chosen: Mapping[str, Any], cells: Mapping[str, Sequence[Record]]
) -> dict[str, Any]:
    """Side by side on test cases of divisions that no trial has seen.

    Args:
        search: The search.
        chosen: The best setting.
        cells: Of every arm what ``federation.cell.run_cell`` returned, a record a division.

    Returns:
        ``compare_methods`` of the arms as methods, what their settings are, and on what.
    """
    config = search.config

    def gather(name: str) -> list[dict[str, Any]]:
        return [
            {**row, "method": arm} for arm, found in cells.items() for one in found
            for row in one[name]
        ]  # fmt: skip

    task = search.plan.task
    judge = Judge(task.kind, len(task.names))
    found = compare_methods(gather("rows"), gather("scores"), judge=judge, unit=task.unit)
    settings = {TUNED: dict(chosen), CONFIGURED: configured(config, chosen)}
    return {
        **found,
        "settings": {arm: settings[arm] for arm in cells},
        "seeds": sorted({seed for seed, _ in final_divisions(config)}),
        "folds": config.tune.folds,
        "readout": config.evaluation.readout,
        "unseen": unseen(config),
        "rows": gather("rows"),
        "lost_sites": gather("lost"),
        "set_aside": gather("set_aside"),
        "refused": gather("refused"),
    }


def once(records: Sequence[Record]) -> list[dict[str, str]]:
    """Sites that were set aside, each with the same reason once, in however many divisions."""
    names = ("site", "reason", "remedy")
    return list({(r["site"], r["reason"]): {n: r[n] for n in names} for r in records}.values())


def unseen(config: Config) -> bool:
    """Whether the test cases of the end were in no trial at all, neither training nor validation.

    That is so where tables give one division for all seeds, and but one fold is used.
    """
    return config.data.splits is not None and config.tune.folds == 1


def words(search: Search) -> str:
    """What is about to be done, in a line."""
    tune = search.config.tune
    runs = tune.seeds * tune.folds
    number = f"{search.num_trials} trial{'s' * (search.num_trials != 1)}"
    each = f"{runs} division{'s' * (runs != 1)} of the cases"
    keys = ", ".join(d.key for d in search.dimensions)
    return (
        f"{number} over {keys}, each on {each}; judged by validation "
        f"{search.plan.task.judge.ranking_name}"
    )
