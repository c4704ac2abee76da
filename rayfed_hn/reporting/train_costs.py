"""What a training run has cost: time, and how large what goes over the line is."""

from __future__ import annotations

import numpy as np

from rayfed_hn.evaluation.quantities import in_bytes, in_seconds
from rayfed_hn.reporting import page
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.words import duration

_FLOAT32 = 4  # bytes of a parameter


def costs(run: Run) -> str:
    """Return the section."""
    summary, parameters = run.summary, run.summary["num_parameters"]
    trained = [r["seconds"] for r in run.metrics if np.isfinite(r["seconds"])]
    facts = {"wall time, all in all": duration(float(summary["seconds"]))}
    if summary.get("clock") == "simulated" and summary.get("clock_seconds"):
        facts["time by the simulated clock"] = duration(float(summary["clock_seconds"]))
    if trained:
        facts["training at sites"] = (
            f"{in_seconds(float(np.sum(trained)))} in all, for {len(trained):,} updates; "
            f"{in_seconds(float(np.median(trained)))} an update (median)"
        )
    facts["a network"] = f"{parameters:,} parameters, {in_bytes(_FLOAT32 * parameters)} as float32"
    return page.section("Costs", page.pairs(facts))
