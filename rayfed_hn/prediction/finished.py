"""A finished run of train, as far as its networks need it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rayfed_hn.bags.store import read_recipe, recipe_digest
from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.labels import task_of
from rayfed_hn.federation.onboarding.origin import Origin, Stated, read_origin, read_summary
from rayfed_hn.loading import load
from rayfed_hn.models.registry import make_model
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.tasks import Task
from rayfed_hn.trees import flatten

ALLOWED = ("data.bags=", "evaluation.readout=")  # of the words that may be given
PIXELS = ("data.manifest=", "data.root=")  # and where the pixels of slides are asked for


@dataclass(frozen=True)
class FinishedRun:
    """What a run directory says of its networks.

    Attributes:
        folder: The run directory.
        config: The run's, with the words that were given.
        summary: ``summary.json``.
        stated: What the summary says of shapes and sites, checked.
        task: What is predicted.
    """

    folder: Path
    config: Config
    summary: Mapping[str, Any]
    stated: Stated
    task: Task

    @classmethod
    def read(
        cls, folder: Path, words: Sequence[str] = (), allowed: tuple[str, ...] = ALLOWED
    ) -> FinishedRun:
        """Read a run directory.

        Args:
            folder: The run.dir of a finished train.
            words: ``data.bags=...`` where the bags are, ``evaluation.readout=...`` for another of
                the networks that every site keeps.
            allowed: What words may begin with.

        Raises:
            ConfigError: It is no finished run of train, or a word cannot be given.
            DataError: A file is damaged.
        """
        for word in words:
            if not word.startswith(allowed):
                raise ConfigError(
                    f"'{word}': the run is used as it was trained; only "
                    f"{', '.join(f'{key}...' for key in allowed)} can be given"
                )
        summary = read_summary(folder)
        config = load(folder / "config.yaml", words)
        stated = Stated.of(summary, folder)
        return cls(folder, config, summary, stated, task_of(config, stated.classes, stated.cuts))

    @property
    def sites(self) -> tuple[str, ...]:
        """The hospitals that took part."""
        return tuple(self.stated.num_train)

    @property
    def model(self) -> SiteModel:
        """The site network (shapes only)."""
        return make_model(self.stated.feature_dim, self.task.num_outputs, self.config.model)

    @cached_property
    def origin(self) -> Origin:
        """What the run hands to a site that it does not know.

        Raises:
            ConfigError: Its method shares no whole network.
            DataError: Its checkpoint is damaged.
        """
        return read_origin(self.folder)

    def bags(self, option: Path | None = None) -> Path:
        """Where the bags are that are asked about, checked to be such as the run was trained on.

        Args:
            option: ``--bags``; default: ``data.bags``, as given or as in the run.

        Raises:
            ConfigError: There is no place, or two, or features are of another recipe or length.
            DataError: The place is no bag store.
        """
        given = self.config.data.bags
        if option is not None and given not in (str(option), self.own_bags):
            raise ConfigError(
                f"data.bags={given}: --bags {option} says otherwise; give one of them"
            )
        if option is None and self.config.data.bags is None:
            raise ConfigError("data.bags: missing; give the bag store, --bags BAGS")
        root = option or Path(str(self.config.data.bags))
        recipe = read_recipe(root)
        if recipe_digest(recipe) == self.stated.recipe:
            return root
        width, needed = recipe.get("feature_dim"), self.stated.feature_dim
        lengths = f"{width} features a tile, and its networks take {needed}"
        raise ConfigError(
            f"data.bags: {root} holds bags of another recipe than those that {self.folder} was "
            f"trained on{f' ({lengths})' if width not in (None, needed) else ''}; features of "
            "another encoder, scale or tile mean something else to a network. Embed the slides "
            f"with the embed.key=value of the run's own bags. {self._unlike(recipe)}"
        )

    @cached_property
    def own_bags(self) -> str | None:
        """Where the bags were that it was trained on, whatever was given."""
        return load(self.folder / "config.yaml").data.bags

    @cached_property
    def recipe(self) -> dict[str, Any] | None:
        """How its own bags were made; None where they are no more what and where they were."""
        try:
            recipe = read_recipe(Path(str(self.own_bags)))
        except DataError:
            return None
        return recipe if recipe_digest(recipe) == self.stated.recipe else None

    def _unlike(self, recipe: dict[str, Any]) -> str:
        """In what a recipe differs from the run's, or all of it where that cannot be known."""
        if self.recipe is None:
            return f"Recipe of these: {json.dumps(recipe, sort_keys=True)}"
        have, want = dict(flatten(recipe)), dict(flatten(self.recipe))
        names = sorted(key for key in have.keys() | want.keys() if have.get(key) != want.get(key))
        return "; ".join(
            f"{key}: {have.get(key)!r} of these, {want.get(key)!r} of the run's" for key in names
        )
