"""A site's network as a file of its own, for those who have torch and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayfed_hn import __version__
from rayfed_hn.errors import ConfigError
from rayfed_hn.files import write_atomically
from rayfed_hn.models.exported import export_program
from rayfed_hn.prediction.finished import FinishedRun
from rayfed_hn.prediction.networks import SHARED, network_for
from rayfed_hn.prediction.scores import columns


@dataclass(frozen=True)
class HandedOn:
    """What was written.

    Attributes:
        path: The program.
        sha256: Of the file (hex).
        about: What the file says of itself.
        recipe: How the bags were made; None where they are not at hand.
    """

    path: Path
    sha256: str
    about: dict[str, Any]
    recipe: dict[str, Any] | None


def hand_on(run: FinishedRun, site: str, folder: Path) -> HandedOn:
    """Write a site's network under the run's readout as ``<site>.pt2``.

    Raises:
        ConfigError: The site did not take part, or left no network.
        DataError: Its file is damaged.
    """
    if site not in run.sites:
        raise ConfigError(
            f"--site: {site} did not take part in {run.folder}; its sites are "
            f"{', '.join(run.sites)}"
        )
    network = network_for(run, site, list)
    if network.kind == SHARED:
        raise ConfigError(
            f"--site: {site} left no network in {run.folder} (it was lost, or its files were not "
            "copied); export another site's"
        )
    about = {
        "format": 1,
        "made_by": f"rayfed_hn {__version__}",
        "site": site,
        "network": network.name,
        "task": run.task.kind,
        "unit": run.task.unit,
        "input": f"float32 (tiles, {run.stated.feature_dim})",
        "output": columns(run.task),
        "recipe_sha256": run.stated.recipe,
        "recipe": run.recipe,
    }
    program = export_program(network.model, network.candidates, network.share_C, run.task, about)
    path = folder / f"{site}.pt2"
    write_atomically(path, lambda temporary: temporary.write_bytes(program))
    return HandedOn(path, hashlib.sha256(program).hexdigest(), about, run.recipe)
