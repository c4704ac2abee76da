"""What a site does with a network that it received: train it, and release what it learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rayfed_hn.config import Config, TrainingConfig
from rayfed_hn.federation.data import SiteBag, SiteData, halves
from rayfed_hn.federation.messages import TrainRequest
from rayfed_hn.federation.mixture import MovingAverage
from rayfed_hn.federation.promises import make_subspace
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.models.cohort import Job, train_cohort
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.private_training import PrivateSteps
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.tasks import Task
from rayfed_hn.models.training import Trained, rate_factor
from rayfed_hn.privacy.mechanisms import Mechanism, Released, TrainedPrivately
from rayfed_hn.privacy.randomness import Entropy, Randomness, Seeded
from rayfed_hn.seeds import derive

PRIVATE_METHODS = ("fedper", "pfedhn_pc")
PRIVATE_TENSORS = "classifier."  # what never leaves a site under these methods
TUNING_VERSIONS = 5


@dataclass(frozen=True)
class LocalTraining:
    """What a site needs to know to train.

    Attributes:
        learning_rate: Of the local optimiser.
        num_steps: Gradient steps per version.
        standardise: ``model.standardise``, as it applies to the method.
    """

    learning_rate: float
    num_steps: int
    standardise: Literal["shared", "site", "none"] = "none"


def steps_of(training: TrainingConfig, bags: Sequence[int], times: float) -> int:
    """Gradient steps of a participant per version.

    Args:
        training: ``steps``, or ``epochs`` in their place.
        bags: Training bags of each of its hospitals.
        times: What all of that is multiplied by.
    """
    usual = training.steps * len(bags) if training.epochs is None else training.epochs * sum(bags)
    return max(min(1, training.steps), round(usual * times))


@dataclass(frozen=True)
class SiteSetup:
    """What a site needs to know beside its bags.

    Attributes:
        model: The network whose shapes a parameter vector fills.
        task: What is predicted.
        config: The run's configuration.
        training: Its learning rate and number of steps.
        mechanism: What is done to its parameters before they leave it.
        noise_source: Where its noise comes from.
        device: Where it trains.
    """

    model: SiteModel
    task: Task
    config: Config
    training: LocalTraining
    mechanism: Mechanism
    noise_source: Literal["seeded", "os"] = "seeded"
    device: str = "cpu"


class SiteTrainer:
    """Trains on a site's bags, and keeps what never leaves it.

    Args:
        data: The site's bags.
        setup: What else it needs to know.
        memory: What the site keeps from one turn to the next.
    """

    def __init__(self, data: SiteData, setup: SiteSetup, memory: SiteMemory) -> None:
        self._data, self._setup, self._memory = data, setup, memory
        self._config, self._training = setup.config, setup.training
        self._layout = ParameterLayout.of(setup.model)
        self._private = self._private_places()
        self._subspace = make_subspace(setup.config, self._layout.size)

    def use(self, data: SiteData) -> None:
        """Train on these bags, which are the same on another scale of their features."""
        self._data = data

    @property
    def released_size(self) -> int:
        """How many numbers an update has."""
        return self._layout.size if self._subspace is None else self._subspace.dim

    def whole(self, update: Tensor) -> Tensor:
        """A released update as the server has it, float32 (P,)."""
        return update if self._subspace is None else self._subspace.lift(update)

    def known(self, turn: int) -> dict[str, Tensor]:
        """What the site knew before a turn."""
        return dict(self._memory.before(turn))

    def with_private(self, network: Tensor, known: dict[str, Tensor]) -> Tensor:
        """A network with the site's own tensors where they never leave it."""
        private = known.get("private")
        if private is None or self._private is None:
            return network
        own = network.clone()
        own[self._private] = private
        return own

    def job(self, request: TrainRequest, received: Tensor, known: dict[str, Tensor]) -> Job:
        """What a request asks to train."""
        training, method = self._config.training, self._config.method.name
        progress = request.version / self._config.rounds.num_versions
        return Job(
            received,
            self._bags(request.turn),
            self._training.learning_rate * rate_factor(training, progress),
            self._training.num_steps,
            self._seed("local training", request.turn),
            validation=self._data.validation,
            moments={
                name.removeprefix("moment."): tensor
                for name, tensor in known.items()
                if name.startswith("moment.")
            },
            proximal_mu=training.proximal_mu if method == "fedprox" else 0.0,
            private=self._private_steps(request.turn),
            subspace=self._subspace,
        )

    def train(self, job: Job) -> Trained:
        """Train on this site alone."""
        setup, training = self._setup, self._config.training
        return train_cohort(setup.model, [job], training, task=setup.task, device=setup.device)[0]

    def release(
        self,
        request: TrainRequest,
        job: Job,
        trained: Trained,
        known: dict[str, Tensor],
        out: Tensor | None = None,
    ) -> Released:
        """Remember what was trained, and say what of it leaves the site.

        Args:
            request: As it came.
            job: What was asked.
            trained: What came of it.
            known: What the site knew before.
            out: float32 (``released_size``,), where the update goes; a new one if None.
        """
        noise = self._noise("noise", request.turn)
        if self._subspace is not None:
            numbers_K = self._subspace.project(trained.parameters - job.parameters)
            released = self._setup.mechanism.privatise(
                torch.zeros_like(numbers_K), numbers_K, [("numbers", slice(None))], noise, out
            )
            self._remember(request, trained, MovingAverage.of(known))
            return released
        places = [(name, place) for name, place in self._layout.places() if self._leaves(name)]
        released = self._setup.mechanism.privatise(
            job.parameters, trained.parameters, places, noise, out
        )
        if self._private is not None:
            released.update[self._private] = 0.0
        self._remember(request, trained, MovingAverage.of(known))
        return released

    def _noise(self, purpose: str, turn: int) -> Randomness:
        if self._setup.noise_source == "os":
            return Entropy()
        return Seeded(self._seed(purpose, turn))

    def _private_steps(self, turn: int) -> PrivateSteps | None:
        mechanism = self._setup.mechanism
        if not isinstance(mechanism, TrainedPrivately):
            return None
        # Numbered, since keys are salted anew with every store, and draws of a seed are not.
        number: dict[int, int] = {}
        patients: dict[int, list[SiteBag]] = {}
        for bag in self._data.train:
            key = bag.case if mechanism.unit == "patient" else bag.slide
            patients.setdefault(number.setdefault(key, len(number)), []).append(bag)
        return PrivateSteps(
            patients,
            mechanism.clip_norm,
            mechanism.multiplier,
            mechanism.sampling_rate,
            self._noise("private steps", turn),
        )

    def _bags(self, turn: int) -> tuple[SiteBag, ...]:
        bags: tuple[SiteBag, ...] = self._data.train
        if self._config.hypernetwork.estimate == "none" or not self._config.method.name.startswith(
            "hypernetwork"
        ):
            return bags
        strata = [self._setup.task.stratum(bag) for bag in bags]
        return halves(bags, strata, self._seed("halves", turn // 2))[turn % 2]

    def _remember(self, request: TrainRequest, trained: Trained, average: MovingAverage) -> None:
        kept: dict[str, Tensor] = {}
        if self._private is not None:
            kept["private"] = trained.parameters[self._private].clone()
        if self._config.training.keep_optimiser:
            kept |= {f"moment.{name}": tensor for name, tensor in trained.moments.items()}
        if self._config.evaluation.readout == "mixture":
            progress = (request.version + 1) / self._config.rounds.num_versions
            kept |= average.add(trained.parameters, 1.0, progress).state()
        self._memory.after(request.turn, kept)

    def fine_tune(self, last: Tensor) -> Tensor | None:
        """Train once more at the end, for the methods whose names say so."""
        if not self._config.method.name.endswith("_ft"):
            return None
        steps = self._config.training.fine_tuning_steps
        if steps is None:
            steps = TUNING_VERSIONS * self._training.num_steps
        job = Job(
            last,
            self._data.train,
            self._training.learning_rate,
            steps,
            self._seed("fine-tuning", 0),
            validation=self._data.validation,
        )
        return self.train(job).parameters

    def _private_places(self) -> Tensor | None:
        """Which parameters never leave the site, bool (P,); None if all do."""
        if self._config.method.name not in PRIVATE_METHODS:
            return None
        mask = torch.zeros(self._layout.size, dtype=torch.bool)
        for name, place in self._layout.places():
            mask[place] = not self._leaves(name)
        return mask

    def _leaves(self, name: str) -> bool:
        private = self._config.method.name in PRIVATE_METHODS
        return not (private and name.startswith(PRIVATE_TENSORS))

    def _seed(self, purpose: str, turn: int) -> int:
        return derive(self._config.run.seed, purpose, self._data.name, turn)
