"""What the verbs that train tell: before a run, while it goes on, and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rayfed_hn.evaluation.markdown import unit_column
from rayfed_hn.privacy.words import is_formal, line, ratio
from rayfed_hn.progress import Bar
from rayfed_hn.reporting.tracking import Tracker

if TYPE_CHECKING:
    from rayfed_hn.federation.centre import Progress
    from rayfed_hn.federation.plan import Plan

CENTRE = "the central actor"


def shown(progress: Bar, tracker: Tracker, metric: str) -> Callable[[Progress], None]:
    """Tells of every version, and once of every actor that was started anew."""
    told: Counter[str] = Counter()

    def show(news: Progress) -> None:
        again = Counter(news.restarts) + Counter({CENTRE: news.centre_restarts})
        for name in sorted(again - told):
            line = f"started anew: {name} (its process was gone)"
            progress.update(news.version, line, line=True)
        told.update(again - told)
        progress.update(news.version, _note(news, metric))
        tracker.log(_values(news, metric), news.version)

    return show


def _note(news: Progress, metric: str) -> str:
    """What the last version says of itself."""
    parts = []
    if news.validation_metric is not None:
        parts.append(f"validation {metric} {news.validation_metric:.3f}")
    if news.signal_to_noise is not None:
        parts.append(f"signal to noise {ratio(news.signal_to_noise)}")
    return ", ".join(parts)


def _values(news: Progress, metric: str) -> dict[str, float | None]:
    """The same for a tracker."""
    return {
        f"mean over sites/validation {metric}": news.validation_metric,
        "mean over sites/signal to noise": news.signal_to_noise,
        "sites/that are there": news.num_alive,
    }


def print_privacy(plan: Plan) -> None:
    """What is promised, and what will be kept."""
    from rayfed_hn.federation.exchanges import kept_bytes
    from rayfed_hn.models.parameters import ParameterLayout

    print(line(plan.promise()))
    if plan.real and plan.shares and not is_formal(plan.promise()):
        print(
            "note: the ledgers of the sites keep that their bags have given something away without "
            "a guarantee; with these bags they then refuse runs with a privacy.budget"
        )
    if plan.config.run.keep_messages:
        size = kept_bytes(ParameterLayout.of(plan.model()).size, plan.num_exchanges)
        print(f"note: run.keep_messages keeps {size / 1e6:,.1f} MB of networks and updates")


def print_plan(plan: Plan) -> None:
    print(_task_words(plan))
    for note in plan.notes:
        print(f"note: {note}")
    if plan.task.kind == "survival" and plan.config.model.name.startswith("clam"):
        print("note: CLAM's instance loss needs classes; under survival it trains without")
    if plan.num_unnamed:
        print(f"note: {plan.num_unnamed} bags are in no part of data.splits and are left out")


def _task_words(plan: Plan) -> str:
    """What is predicted, so that a wrong label is seen before hours are spent on it."""
    task, names = plan.task, plan.task.names
    if task.kind == "binary":
        return f"Class 1 is '{names[1]}', class 0 is '{names[0]}' (data.positive_label chooses)"
    what = {
        "multiclass": f"{len(names)} classes: {', '.join(names)}",
        "ordinal": f"{len(names)} grades from low to high: {', '.join(names)}",
        "survival": f"Time until an event, in {len(names)} intervals: {', '.join(names)}",
    }
    return f"{what[task.kind]}. Metric: {task.judge.name}"


def print_sites(summary: dict[str, Any]) -> None:
    from rayfed_hn.federation.results import READOUTS

    readouts = sorted(READOUTS, key=lambda readout: readout != summary["readout"])
    metric = summary["metric"].removeprefix("quadratic ")  # a line has little room
    columns = {f"{metric} {readout}": f"test_{readout}" for readout in readouts}
    if any(site["num_test_slides"] != site["num_test_cases"] for site in summary["sites"]):
        other = "slide" if summary["unit"] == "case" else "case"
        columns[unit_column(other)] = f"by_{other}"
    widths = {title: max(11, len(title)) for title in columns}
    titles = "".join(f" {title:>{width}}" for title, width in widths.items())
    print(f"\n{'site':24} {'train':>6} {'val':>5} {'test':>5}{titles}")
    for site in summary["sites"]:
        values = "".join(
            f" {'undefined' if site[key] is None else f'{site[key]:.3f}':>{widths[title]}}"
            for title, key in columns.items()
        )
        print(
            f"{site['site']:24} {site['num_train']:6} {site['num_validation']:5} "
            f"{site['num_test']:5}{values}"
        )
    gone = {loss["site"] for loss in summary["lost_sites"]}
    idle = [
        site["site"]
        for site in summary["sites"]
        if not site["num_updates"] and site["site"] not in gone
    ]
    if idle and summary["method"] != "pooled":
        print(f"note: no update of {', '.join(idle)} went into any version; give the run more")
    print(f"\nDigest of what the server has learned: {summary['digest']}")
