"""What TensorBoard shows of a run that has ended: its settings beside its results, and its sites.

In a folder of its own below ``tensorboard``, written anew if a run ends twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rayfed_hn.config import Config
from rayfed_hn.federation.site_map import SiteMap
from rayfed_hn.saving import saving

FOLDER = "result"
_SETTINGS = (
    *("method", "hypernetwork", "rounds", "training", "model", "privacy", "simulation"),
    *("evaluation", "task"),
)


def write_board(
    folder: Path, config: Config, rows: Iterable[Mapping[str, Any]], site_map: SiteMap
) -> None:
    """Write the last page of a run's TensorBoard.

    Args:
        folder: Of its TensorBoard.
        config: Of the run.
        rows: Test metrics, one a site and readout (``site_rows``).
        site_map: The sites as the server sees them.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    with saving(folder / FOLDER):
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        with SummaryWriter(str(folder / FOLDER)) as writer:
            writer.add_hparams(settings(config), results(rows), run_name=".")
            embeddings = site_map.embeddings
            if embeddings is not None and np.isfinite(embeddings.rows_KE).all():
                names = [site_map.sites[number] for number in site_map.mapped]
                writer.add_embedding(embeddings.rows_KE, metadata=names, tag="site embedding")


def settings(config: Config) -> dict[str, bool | int | float | str]:
    """What a run may be chosen by, by key; what is unset is told as such."""
    sections = asdict(config)
    return {
        f"{section}.{key}": value if isinstance(value, bool | int | float | str) else str(value)
        for section in _SETTINGS
        for key, value in sections[section].items()
    }


def results(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean over sites of the test metric under every readout, where it is defined."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row["value"] is not None:
            values.setdefault(row["readout"], []).append(row["value"])
    return {f"test/mean site ({name})": float(np.mean(found)) for name, found in values.items()}
