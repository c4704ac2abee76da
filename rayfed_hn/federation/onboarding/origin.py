"""What a finished run hands to a site that joins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.labels import task_of
from rayfed_hn.federation.rules import Generator, make_rule
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.server import Server
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import initial_parameters, learning_rate, make_model, widths
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.tasks import Task
from rayfed_hn.seeds import derive
from rayfed_hn.slides.manifest import is_name

SHARING = (
    "hypernetwork",
    "hypernetwork_ft",
    "pfedhn",
    "pfedhn_ft",
    "fedavg",
    "fedprox",
    "fedavg_ft",
)


@dataclass(frozen=True, eq=False)
class Origin:
    """A finished federation, as a new site sees it.

    Attributes:
        config: The run's.
        recipe: Digest of the recipe that its bags were made by.
        task: What is predicted.
        feature_dim: D.
        scale: What all features are standardised by; None where every site has its own, or none.
        initial: The network that the run began with, float32 (P,).
        base: What all sites share at the end, averaged over the last versions where the run kept
            such averages, float32 (P,).
        networks: The network of every site, float32 (P,).
        generator: The frozen hypernetwork; None where the method has none.
    """

    config: Config
    recipe: str
    task: Task
    feature_dim: int
    scale: Standardisation | None
    initial: Tensor
    base: Tensor
    networks: Mapping[str, Tensor]
    generator: Generator | None

    @classmethod
    def of(
        cls,
        config: Config,
        server: Server,
        task: Task,
        initial: Tensor,
        feature_dim: int,
        recipe: str,
    ) -> Origin:
        """What a server at its last version hands on."""
        base = _base(server)
        return cls(
            config=config,
            recipe=recipe,
            task=task,
            feature_dim=feature_dim,
            scale=server.standardisation,
            initial=initial,
            base=base,
            networks={site: torch.tensor(server.parameters_for(site)) for site in server.sites},
            generator=_anchored(server.rule.generator(), base),
        )

    @property
    def model(self) -> SiteModel:
        """The site network (shapes only)."""
        return make_model(self.feature_dim, self.task.num_outputs, self.config.model)

    @property
    def learning_rate(self) -> float:
        """Of local training."""
        hidden, _ = widths(self.feature_dim, self.config.model)
        return self.config.training.learning_rate or learning_rate(hidden)


def read_origin(run: Path) -> Origin:
    """Read a run directory of train.

    Raises:
        ConfigError: It is no finished run of train, or of a method that shares nothing whole.
        DataError: A file is missing or damaged.
    """
    summary = read_summary(run)
    if summary["verb"] == "join":
        raise ConfigError(
            f"RUN: {run} is what one site kept; what all share is in the server's run.dir"
        )
    config = load(run / "config.yaml")
    if config.method.name not in SHARING:
        raise ConfigError(
            f"RUN: {run} was trained with method.name={config.method.name}, which has no network "
            f"for a site that was not there; it must be one of {', '.join(SHARING)}"
        )
    try:
        tensors = load_file(run / "checkpoints" / "last.safetensors")
    except (SafetensorError, OSError) as error:
        raise DataError(f"{run}: its checkpoint cannot be read ({error})") from None
    stated = Stated.of(summary, run)
    task = task_of(config, stated.classes, stated.cuts)
    layout = ParameterLayout.of(make_model(stated.feature_dim, task.num_outputs, config.model))
    initial = initial_parameters(layout, derive(config.run.seed, "initial parameters"))
    server = Server(
        make_rule(config, initial, layout, len(stated.num_train)),
        Schedule(config.rounds, stated.num_train, config.run.seed),
        config.rounds.num_versions,
    )
    server.resume(tensors, stated.num_versions, [])
    return Origin.of(config, server, task, initial, stated.feature_dim, stated.recipe)


@dataclass(frozen=True)
class Stated:
    """What a summary says of a run, which is somebody else's and may say anything."""

    classes: tuple[str, ...]
    cuts: tuple[float, ...]
    feature_dim: int
    num_versions: int
    num_train: dict[str, int]
    recipe: str

    @classmethod
    def of(cls, summary: Mapping[str, Any], run: Path) -> Stated:
        try:
            found = cls(
                classes=tuple(str(name) for name in list(summary["classes"])),
                cuts=tuple(float(cut) for cut in summary["cuts"]),
                feature_dim=int(summary["feature_dim"]),
                num_versions=int(summary["num_versions"]),
                num_train={str(s["site"]): int(s["num_train"]) for s in summary["sites"]},
                recipe=str(summary["recipe_sha256"]),
            )
            if len(found.classes) < 2 or found.feature_dim < 1 or not found.num_train:
                raise ValueError("classes, feature_dim or sites")
            strange = [name for name in found.num_train if not is_name(name)]
            if strange:  # a site's name becomes that of files
                raise ValueError(f"{strange[0]!r} is no name of a site")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{run / 'summary.json'} cannot be used ({type(error).__name__}: {error}); copy "
                "the run directory again, or train again"
            ) from None
        return found


def _anchored(generator: Generator | None, base: Tensor) -> Generator | None:
    """A generator that makes the base from the mean embedding, so that all arms begin there."""
    if generator is None:
        return None
    offset = base - generator.make(generator.start_V).detach()
    return Generator(generator.start_V, lambda v_V: generator.make(v_V) + offset)


def _base(server: Server) -> Tensor:
    averages_SP = server.shared_candidates()
    if len(averages_SP):
        return torch.tensor(averages_SP[-1])
    shared_P = server.rule.shared()
    assert shared_P is not None  # of every method in SHARING
    return torch.tensor(shared_P)


def read_summary(run: Path) -> dict[str, Any]:
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"RUN: {run} has no summary.json; give the run.dir of a train that has finished"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); run train again") from None
    if not isinstance(summary, dict):
        raise DataError(f"{path} holds no summary; run train again")
    needed = ("classes", "cuts", "feature_dim", "sites", "num_versions", "recipe_sha256")
    if summary.get("verb") not in ("train", "join") or any(key not in summary for key in needed):
        raise ConfigError(
            f"RUN: {run} is no finished run of train (it was made by '{summary.get('verb')}', or "
            "by an older version); train again"
        )
    return summary
