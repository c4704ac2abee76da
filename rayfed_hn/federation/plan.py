"""One training run from a configuration: who takes part, with what network, under which rule.

A ``Plan`` is made once, before anything starts, from the configuration and the bag store's
metadata; it builds the server and every site, wherever they will live.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rayfed_hn.config import RELEASE_NOTHING, Config
from rayfed_hn.federation.data import Folds, SiteData, load_site, open_sites, pool
from rayfed_hn.federation.event_trace import (
    Recorded,
    Replay,
    begin_line,
    read_trace,
    settings_digest,
)
from rayfed_hn.federation.labels import knows
from rayfed_hn.federation.loop import Executor, Read
from rayfed_hn.federation.messages import read_answer
from rayfed_hn.federation.plan_checks import check_plan
from rayfed_hn.federation.promises import (
    make_mechanism,
    make_subspace,
    noise_multiplier,
    outside,
    promise,
)
from rayfed_hn.federation.rules import make_rule
from rayfed_hn.federation.schedule import Schedule
from rayfed_hn.federation.server import Server
from rayfed_hn.federation.site import Site
from rayfed_hn.federation.site_clock import SiteClock
from rayfed_hn.federation.site_releases import SiteReleases
from rayfed_hn.federation.site_trainer import LocalTraining, SiteSetup, steps_of
from rayfed_hn.federation.survey import Survey, survey
from rayfed_hn.federation.virtual_time import VirtualTime
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import initial_parameters, learning_rate, make_model, widths
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.privacy.mechanisms import Mechanism, NoNoise
from rayfed_hn.seeds import derive

POOLED = "pooled"


@dataclass(frozen=True)
class Plan(Survey):
    """What a run will do with what was found.

    Attributes:
        config: The run's configuration.
        root: The bag store.
        noise_multiplier: Of a mechanism with a formal guarantee.
        run_id: Of the run whose releases sites charge; empty for what is only simulated.
        holder: The token of whoever has taken the run up, where it is in object storage.
        apart: Whether sites are elsewhere: what they release leaves them, whatever is simulated.
    """

    config: Config
    root: Path
    noise_multiplier: float | None = field(default=None, kw_only=True)
    run_id: str = field(default="", kw_only=True)
    holder: str = field(default="", kw_only=True)
    apart: bool = field(default=False, kw_only=True)

    @property
    def pooled(self) -> bool:
        """Whether all bags are put in one place."""
        return self.config.method.name == "pooled"

    @property
    def participants(self) -> tuple[str, ...]:
        """Who answers requests: the hospitals, or a single pooled site."""
        return (POOLED,) if self.pooled else self.hospitals

    def model(self) -> SiteModel:
        """The site network: shapes only, since its parameters are those that are received."""
        with torch.device("meta"):
            return make_model(self.feature_dim, self.task.num_outputs, self.config.model)

    @property
    def learning_rate(self) -> float:
        """Of the local optimiser, as configured or by the network's width."""
        hidden, _ = widths(self.feature_dim, self.config.model)
        return self.config.training.learning_rate or learning_rate(hidden)

    @property
    def standardise(self) -> Literal["shared", "site", "none"]:
        """``model.standardise``; methods in which nothing is shared share no scale either."""
        asked = self.config.model.standardise
        return "site" if asked == "shared" and not self.shares else asked

    @property
    def shares(self) -> bool:
        """Whether anything that was learned leaves a hospital."""
        return self.config.method.name not in RELEASE_NOTHING

    def initial(self) -> Tensor:
        """The network that everybody starts from, float32 (P,)."""
        seed = derive(self.config.run.seed, "initial parameters")
        return initial_parameters(ParameterLayout.of(self.model()), seed)

    def server(self, device: str = "cpu") -> Server:
        """The server at version 0, which computes on a device."""
        layout, initial = ParameterLayout.of(self.model()), self.initial().to(device)
        rule = make_rule(self.config, initial, layout, len(self.participants))
        averaging = self.config.evaluation.readout == "mixture"
        versions = self.config.rounds.num_versions
        steps = None
        if self.config.training.epochs is not None:
            steps = {name: self._local_training(name).num_steps for name in self.participants}
        return Server(rule, self.schedule(), versions, averaging=averaging, steps=steps)

    def schedule(self) -> Schedule:
        """Who is asked when. Pooled training waits for its only site in every case."""
        rounds = self.config.rounds
        if self.pooled:
            rounds = replace(rounds, buffer_size=None, cohort_size=None, deadline=None)
        if not self.shares:
            rounds = replace(rounds, robust="none")  # nothing is combined
        return Schedule(rounds, self.num_training_bags(), self.config.run.seed)

    def num_training_bags(self) -> dict[str, int]:
        """Training bags of every participant."""
        bags = {name: self.num_bags[name][0] for name in self.hospitals}
        return {POOLED: sum(bags.values())} if self.pooled else bags

    def executor(self, inner: Executor) -> Recorded:
        """An executor under the simulated clock, or in the order of another run, if asked for."""
        rounds, simulation = self.config.rounds, self.config.simulation
        if rounds.replay is not None:
            trace = read_trace(Path(rounds.replay), self._settings_digest())
            return Recorded(Replay(inner, trace))
        if not simulation.enabled or self.pooled:  # one place has nobody to wait for
            return Recorded(inner)
        clock = SiteClock(simulation, self.num_training_bags(), self.config.run.seed)
        return Recorded(VirtualTime(inner, clock))

    def begin_line(self) -> dict[str, Any]:
        """The first line of ``events.jsonl``."""
        return begin_line(self._settings_digest(), self.config.simulation.enabled)

    def _settings_digest(self) -> str:
        """Of what decides a run's numbers, but for the order of answers."""
        return settings_digest(self.config, self.digest, repr((self.task, self.num_bags)))

    def check(self) -> None:
        """Refuse what cannot work (``plan_checks``); raises ``ConfigError``."""
        check_plan(self)

    def site(self, name: str, folder: Path | None = None, device: str = "cpu") -> Site:
        """A participant with its bags.

        A pooled site takes as many steps as the hospitals together: every method visits bags
        equally often.
        """
        parts = self.site_data(name), self.setup(name, device), self._releases(name, folder)
        pictures = self.pictures(name, folder)
        return Site(*parts, log=self.log(name), folder=folder, pictures=pictures)

    def setup(self, name: str, device: str = "cpu") -> SiteSetup:
        """What a participant needs to know beside its bags."""
        return SiteSetup(
            self.model(),
            self.task,
            self.config,
            self._local_training(name),
            self.mechanism(),
            self.noise_source,
            device,
        )

    def site_data(self, name: str) -> SiteData:
        """A participant's bags."""
        folds = Folds.of(self.config)
        opened = open_sites(self.root, self.origins(name), self.config.data)
        for bags in opened.values():
            bags.keep(lambda entry: knows(self.task, entry))
        data = [load_site(bags, self.task, folds) for bags in opened.values()]
        return pool(data, POOLED) if self.pooled else data[0]

    def _local_training(self, name: str) -> LocalTraining:
        bags = [self.num_bags[hospital][0] for hospital in self.origins(name)]
        # Pooled training takes what the sites that make a version take together.
        num = len(self.hospitals)
        times = self.config.rounds.updates_per_version(num) / num if self.pooled else 1.0
        steps = steps_of(self.config.training, bags, times)
        return LocalTraining(self.learning_rate, steps, self.standardise)

    @property
    def num_exchanges(self) -> int:
        """Updates that go into the versions of the run."""
        each = 1 if self.pooled else self.config.rounds.updates_per_version(len(self.hospitals))
        return self.config.rounds.num_versions * each

    def mechanism(self) -> Mechanism:
        """What sites do before release; nothing for the baselines in which nothing is released."""
        if not self.shares:
            return NoNoise()
        return make_mechanism(self.config.privacy, self.noise_multiplier)

    @property
    def read(self) -> Read:
        """What turns answers of sites into events."""
        subspace = make_subspace(self.config, ParameterLayout.of(self.model()).size)
        return partial(read_answer, subspace=subspace)

    @property
    def noise_source(self) -> Literal["seeded", "os"]:
        """Where sites take their noise from."""
        return self.config.privacy.source(real=self.real)

    @property
    def real(self) -> bool:
        """Whether what sites release counts: in a run that simulates neither time nor sites."""
        return bool(self.run_id) and (self.apart or not self.config.simulation.enabled)

    def promise(self) -> dict[str, Any]:
        """What the run promises of the data behind it, JSON-ready."""
        size = ParameterLayout.of(self.model()).size
        slides = self.config.privacy.unit == "slide"
        units = self.num_training_bags() if slides else self.num_cases
        most = max(units.values(), default=0)
        told = promise(self.config, self.mechanism(), self.noise_source, size, most)
        return told | {"in_ledger": True} if self.real and self.shares else told

    def released_without_noise(self) -> list[str]:
        """What leaves a hospital beside its networks, in words."""
        run = self.config, self.task, self.standardise
        return outside(*run, shares=self.shares, apart=self.apart)

    def _releases(self, name: str, folder: Path | None) -> SiteReleases:
        """The way out of a site; its ledger lies with its bags unless the run is a simulation."""
        secret, grows = self.noise_source == "os", self.config.privacy.max_growth is not None
        beside = secret or (self.real and isinstance(self.mechanism(), NoNoise))
        return SiteReleases.of(
            self.config,
            name,
            self.run_id,
            self.mechanism() if self.shares else None,
            self._ground(name) if beside else folder,
            secret=secret,
            real=self.real,
            promised=self.promise().get("epsilon") if self.noise_multiplier else None,
            usual_norm=float(self.initial().double().norm()) if grows else math.inf,
        )

    def _ground(self, participant: str) -> Path | None:
        """Where a participant keeps what is its own, beside its bags and not in the run."""
        return self.root / ("" if self.pooled else f"site={participant}")

    def log(self, participant: str) -> Path | None:
        """A participant's own log."""
        return (ground := self._ground(participant)) and ground / "site.log"

    def pictures(self, participant: str, folder: Path | None) -> Path | None:
        """Where a participant draws where its network looks; None: nowhere.

        Beside its bags, since tissue has an outline; in a simulation, in which nothing is withheld,
        with what else it keeps of the run (``folder``; None: nothing).
        """
        if folder is None or not self.config.evaluation.attention_maps:
            return None
        if not (self.real or self.config.privacy.withholds):
            return folder / "tensorboard"
        ground = self._ground(participant)
        return ground and ground / "tensorboard" / (self.run_id or "simulated")

    def origins(self, participant: str) -> tuple[str, ...]:
        """The hospitals whose bags a participant scores."""
        return self.hospitals if self.pooled else (participant,)


def make_plan(config: Config, root: Path) -> Plan:
    """Check the bag store against the configuration.

    Raises:
        DataError: Cases shared by sites, labels that do not make the task, features of different
            lengths, tables of splits that do not fit, or no site with anything to train on.
        ConfigError: There is no such site or fold, the method would take too much memory, or a file
            of ``rounds`` or ``simulation`` cannot be used.
    """
    plan = plan_of(survey(config, root), config, root)
    plan.check()
    return plan


def plan_of(found: Survey, config: Config, root: Path) -> Plan:
    """The plan of what was found, unchecked."""
    return Plan(**vars(found), config=config, root=root, noise_multiplier=noise_multiplier(config))
