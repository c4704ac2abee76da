"""The verb that scales the number of sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rayfed_hn.config import Config
from rayfed_hn.progress import Bar, bar
from rayfed_hn.reporting.boards import write_curves
from rayfed_hn.reporting.tracking import Tracker, check_tracker, tracked
from rayfed_hn.storage.remote import named
from rayfed_hn.verbs.common import (
    before_anything_starts,
    configuration,
    connected,
    lasting,
    planned_dir,
    print_placement,
    resumable,
    run_dir,
)

if TYPE_CHECKING:
    from rayfed_hn.federation.meter import VersionCost
    from rayfed_hn.federation.virtual_plan import VirtualPlan


_HERE = "Placement: nothing is left for actors to do; no cluster is needed"


def scale(words: Sequence[str], only_plan: bool = False) -> int:
    """See ``rayfed-hn scale --help``."""
    from rayfed_hn.orchestration.scale import complete, placement, plans
    from rayfed_hn.orchestration.scale import scale as run
    from rayfed_hn.reporting.scale_report import scale_table, write_scale_files

    config = _with_lasting_bags(configuration(words, only_plan=only_plan))
    check_tracker(config.run.track)
    folder = planned_dir(config, "scale", measured=True)
    with before_anything_starts():
        ladder = plans(config, folder)
    config = replace(config, run=replace(config.run, dir=str(folder)))
    needed = config.scale.where == "actors" and not complete(ladder, folder)
    cluster = connected(config) if needed else nullcontext()
    total = len(ladder) * config.scale.num_versions
    with resumable() as going_on, cluster:
        print_placement(placement(ladder) if needed else [_HERE])
        if only_plan:
            return 0
        run_dir(config, "scale", folder, measured=True)
        going_on.how = (
            f"the same command with run.dir={named(folder)} run.resume=true goes on with the "
            f"missing steps, and so does 'rayfed-hn resume {named(folder)}'"
        )
        with (
            tracked(config, folder, "scale") as tracker,
            bar("versions", total) as progress,
        ):
            summary = run(config, ladder, folder, _shown(progress, tracker, ladder))
            tracker.results(summary)
    write_scale_files(folder, summary)
    print("\n" + scale_table(summary))
    for row in summary["rows"]:
        if row["lost_sites"]:
            print(f"lost: {row['lost_sites']} sites of {row['method']} at {row['sites']:,} sites")
    write_curves(folder, summary)
    print(f"\nRun directory: {named(folder)}. Pictures: rayfed-hn report {named(folder)}")
    return summary["exit_code"]


def _with_lasting_bags(config: Config) -> Config:
    """Actors of a joined cluster work in other folders: they need the whole path."""
    if config.data.bags is None:
        return config
    bags = str(lasting(Path(config.data.bags), "data.bags"))
    return replace(config, data=replace(config.data, bags=bags))


def _shown(
    progress: Bar, tracker: Tracker, ladder: Sequence[VirtualPlan]
) -> Callable[[VirtualPlan, VersionCost], None]:
    """Tells of every version; a step counts by the sites that train in it."""
    work = [plan.config.rounds.cohort_size or 1 for plan in ladder]  # of a version of each step

    def show(plan: VirtualPlan, cost: VersionCost) -> None:
        step, versions = ladder.index(plan), plan.config.scale.num_versions
        share = (sum(work[:step]) + work[step] * cost.version / versions) / sum(work)
        about = f"{plan.config.method.name}, {len(plan.hospitals):,} sites"
        done = step * versions + cost.version
        progress.update(done, f"{about}: {cost.seconds:.2f} s", share=share)
        tracker.log({f"seconds per version/{about}": cost.seconds}, cost.version)

    return show
