"""What the test bags of a training run say of the network of every site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rayfed_hn.evaluation.metrics import auc_interval
from rayfed_hn.reporting.run_files import READOUTS, Run, read_scores

_LEVEL = 0.95


@dataclass(frozen=True)
class Tested:
    """The test bags of a site under the run's readout.

    Attributes:
        value: The metric; None where undefined.
        low, high: Its 95 % interval, where there is an honest one: of an AUC.
        columns: As ``read_scores`` returns them; empty of a site without scores.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)


def readout_of(run: Run) -> str:
    """Return the run's readout."""
    asked = run.summary.get("readout") or run.knob("evaluation", "readout")
    return asked if asked in READOUTS else "last"


def read_tested(run: Run, unit: str) -> dict[str, Tested]:
    """Return the test bags of every site, slides or cases."""
    lost = {loss.get("site") for loss in run.summary["lost_sites"]}
    found = {}
    for site in run.summary["sites"]:
        value = site[f"test_{readout_of(run)}"]
        empty = value is None and (site["site"] in lost or not site["num_test"])
        found[site["site"]] = Tested() if empty else _test_site(run, site["site"], value, unit)
    return found


def _test_site(run: Run, site: str, value: float | None, unit: str) -> Tested:
    columns = read_scores(run.folder, site, unit)
    chosen_B = columns["readout"] == readout_of(run)
    columns = {name: column[chosen_B] for name, column in columns.items()}
    label_B, case_B = columns["label"], columns["case"]
    if run.judge.kind != "binary" or value is None or len(set(label_B.tolist())) < 2:
        return Tested(value, columns=columns)
    sizes = [len(set(case_B[label_B == label].tolist())) for label in (1, 0)]
    return Tested(value, *auc_interval(value, *sizes, level=_LEVEL), columns)
