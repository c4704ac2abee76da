"""The verbs that train, compare and report; and the demo, which does everything."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.loading import require
from rayfed_hn.progress import bar
from rayfed_hn.reporting.boards import write_curves
from rayfed_hn.reporting.tracking import check_tracker, tracked
from rayfed_hn.run_directory import claim, run_id
from rayfed_hn.storage.remote import named
from rayfed_hn.verbs.common import (
    before_anything_starts,
    check_ledgers,
    configuration,
    connected,
    existing,
    lasting,
    planned_dir,
    print_placement,
    print_troubles,
    resumable,
    run_dir,
)
from rayfed_hn.verbs.slides import embed_manifest
from rayfed_hn.verbs.told import print_plan, print_privacy, print_sites, shown

if TYPE_CHECKING:
    from rayfed_hn.federation.commits import Damage
    from rayfed_hn.federation.plan import Plan

# What the demo changes about the defaults, so that it says something within minutes.
DEMO_WORDS = ("embed.tile_px=128", "compare.seeds=2")


def demo(words: Sequence[str]) -> int:
    """See ``rayfed-hn demo --help``."""
    begun = time.monotonic()
    config = configuration([*DEMO_WORDS, *words], goes_on=True)
    home = Path(config.run.dir or "demo")
    claim(home, config, "demo", resume=True)
    with resumable(f"the same command goes on with what is in {home}"):
        manifest = _make_slides(config, home / "slides")
        places = {"manifest": str(manifest), "bags": str(home / "bags")}
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **places))
        claim(home / "compare", config, "compare", resume=True)
        with connected(config):
            embedded = embed_manifest(config, home / "embed")
            compared = _compare(config, home / "compare")
    page = _report(home / "compare")
    code = max(embedded["exit_code"], compared["exit_code"])
    summary = {
        "verb": "demo",
        "status": "complete" if code == 0 else "degraded",
        "exit_code": code,
        "table": compared["table"],
        "report": str(page.relative_to(home)),
        "seconds": round(time.monotonic() - begun, 1),
        "versions": package_versions(),
    }
    write_summary(home, summary)
    print(f"\nThe whole demo took {summary['seconds']:.0f} s. Open the report: {page}")
    return code


def train(words: Sequence[str], only_plan: bool = False) -> int:
    """See ``rayfed-hn train --help``."""
    config = configuration(words, only_plan=only_plan)
    check_tracker(config.run.track)
    root, here = _bags(config), not config.resources.bags_on_nodes
    planned = _planned(config, root) if here else None  # before a cluster is started for nothing
    folder = planned_dir(config, "train")
    with resumable() as going_on, connected(config):
        from rayfed_hn.orchestration.planned import of_training  # and Ray with it

        plan, damaged = planned or _planned(config, root)
        print_placement(of_training(config, plan.participants))
        if only_plan:
            return 0
        run_dir(config, "train", folder)
        going_on.how = _go_on(folder)
        for damage in damaged:
            print(f"warning: {damage}; going on from the commit before", file=sys.stderr)
        print_privacy(dataclasses.replace(plan, run_id=run_id(folder)))
        summary = _train(plan, folder)
    print_sites(summary)
    print_troubles(summary)
    print(f"\nRun directory: {named(folder)}. Pictures: rayfed-hn report {named(folder)}")
    return summary["exit_code"]


def _planned(config: Config, root: Path) -> tuple[Plan, list[Damage]]:
    """What will be trained, and what is damaged of the run that is to go on."""
    from rayfed_hn.federation.commits import check_commits
    from rayfed_hn.federation.plan import make_plan

    with before_anything_starts():
        if config.resources.bags_on_nodes:
            from rayfed_hn.orchestration.surveyed import plan_where_bags_are

            plan = plan_where_bags_are(config, root)
        else:
            plan = make_plan(config, root)
        check_ledgers(config, plan.root)
        going_on = config.run.resume and config.run.dir is not None
        folder, keep = Path(config.run.dir or "").resolve(), config.run.keep_commits
        damaged = check_commits(folder, keep, plan.digest) if going_on else []
    print_plan(plan)
    return plan, damaged


def _train(plan: Plan, folder: Path) -> dict[str, Any]:
    from rayfed_hn.orchestration.train import train as run

    config, metric = plan.config, plan.task.judge.ranking_name
    with (
        tracked(config, folder, "train") as tracker,
        bar("versions", config.rounds.num_versions) as progress,
    ):
        summary = run(config, plan.root, folder, shown(progress, tracker, metric))
        tracker.results(summary)
    return summary


def compare(words: Sequence[str], only_plan: bool = False) -> int:
    """See ``rayfed-hn compare --help``."""
    from rayfed_hn.federation.cell import cells, check_cells

    config = configuration(words, only_plan=only_plan)
    check_tracker(config.run.track)
    with before_anything_starts():
        plan = check_cells(config, _bags(config))
    print_plan(plan)
    folder = planned_dir(config, "compare")
    with resumable() as going_on, connected(config):
        from rayfed_hn.orchestration.planned import of_tasks

        print_placement(of_tasks(config, len(cells(config)), "cells"))
        if only_plan:
            return 0
        run_dir(config, "compare", folder)
        going_on.how = _go_on(folder)
        with tracked(config, folder, "compare") as tracker:
            summary = _compare(config, folder)
            tracker.results(summary)
    print(f"\nRun directory: {named(folder)}. Pictures: rayfed-hn report {named(folder)}")
    return summary["exit_code"]


def report(run: Path) -> int:
    """See ``rayfed-hn report --help``."""
    if not run.is_dir():
        raise ConfigError(
            f"RUN: {run} is not a folder; give a run.dir of train, compare, onboard, scale or tune"
        )
    print(f"Report: {_report(run)}")
    return 0


def _go_on(folder: Path) -> str:
    again = f"the same command with run.dir={named(folder)} run.resume=true goes on"
    return f"{again}, and so does 'rayfed-hn resume {named(folder)}'"


def _report(run: Path) -> Path:
    from rayfed_hn.reporting.report import write_report

    return write_report(run)


def _make_slides(config: Config, folder: Path) -> Path:
    from rayfed_hn.slides.synthetic import make_federation

    manifest = folder / "manifest.csv"
    if manifest.exists():  # written last, from the same settings (the run directory was claimed)
        return manifest
    with bar("making slides", 4 * config.demo.slides_per_site) as progress:
        return make_federation(
            folder,
            config.demo.slides_per_site,
            config.run.seed,
            lambda done, total: progress.update(done),
        )


def _compare(config: Config, folder: Path) -> dict[str, Any]:
    from rayfed_hn.federation.cell import cells
    from rayfed_hn.orchestration.compare import compare as run

    with bar("comparing", len(cells(config))) as progress:
        summary = run(config, _bags(config), folder, lambda done, _: progress.update(done))
    print("\n" + (folder / "table.md").read_text(encoding="utf-8"))
    print_troubles(summary)
    write_curves(folder, summary)
    return summary


def _bags(config: Config) -> Path:
    remedy = "make the bag store with 'rayfed-hn embed' first"
    if config.resources.bags_on_nodes:
        found = Path(require(config.data.bags, "data.bags", "give the folder on every node"))
    else:
        found = existing(config.data.bags, "data.bags", remedy)
    return lasting(found, "data.bags")  # actors of a joined cluster work in other folders
