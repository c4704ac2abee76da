"""Names that files of older runs used when AUC was the only metric."""

from __future__ import annotations

from typing import Any

_NEW_NAMES = {
    "mean_site_auc": "mean_site",
    "worst_site_auc": "worst_mean",
    "pooled_auc": "pooled",
    "mean_auc": "mean_value",
    "out_of_fold_auc": "out_of_fold",
    "validation_auc": "validation_metric",
    **{f"auc_{readout}": f"test_{readout}" for readout in ("last", "best", "mixture")},
}


def renamed(value: Any) -> Any:
    """Return JSON with today's names of keys; what has them already is returned as it is."""
    if isinstance(value, dict):
        return {_NEW_NAMES.get(key, key): renamed(item) for key, item in value.items()}
    return [renamed(item) for item in value] if isinstance(value, list) else value
