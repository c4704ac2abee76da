"""The table of a comparison for spreadsheets and scripts: all metrics and readouts, a row each."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

COLUMNS = (
    *("method", "noise", "readout", "metric", "mean_site", "se", "low", "high"),
    *("worst_mean", "worst_site", "pooled", "num_undefined", "num_splits", "num_sites"),
)


def csv_table(comparison: Mapping[str, Any]) -> str:
    """Return it as CSV (RFC 4180, but with plain line ends), numbers in full.

    Args:
        comparison: What ``compare_methods`` returned, or a ``summary.json`` of compare. What is
            undefined is empty, and so is ``noise`` where it was not varied.
    """
    metric = comparison.get("metric", "AUC")
    rows = [{"metric": metric, **row} for row in comparison["table"]]
    rows += comparison.get("more_table", [])
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
