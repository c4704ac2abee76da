"""A site: the only code that touches a hospital's bags.

It trains, adds noise, and releases bytes. It knows nothing of other sites, of how its bytes travel,
and of the method only what happens at a site.
"""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.config import Config
from rayfed_hn.errors import MessageError
from rayfed_hn.federation.data import SiteBag, SiteData, halves
from rayfed_hn.federation.messages import (
    Answer,
    CandidateMetrics,
    CandidatesRequest,
    EvaluateRequest,
    FeatureStatistics,
    Prepared,
    PrepareRequest,
    Request,
    StatisticsRequest,
    TrainRequest,
    Update,
    failure_message,
)
from rayfed_hn.federation.mixture import MARKS, MovingAverage
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.federation.site_scorer import SiteScorer
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.standardise import Standardisation, agree, measure
from rayfed_hn.models.tasks import Task
from rayfed_hn.models.training import Trained, rate_factor, train_locally
from rayfed_hn.privacy.mechanisms import PaperNoise
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


class Site:
    """One hospital.

    Args:
        data: Its bags.
        model: The network whose shapes a parameter vector fills.
        task: What is predicted.
        config: The run's configuration.
        training: Its learning rate and number of steps.
        mechanism: What is done to its parameters before they leave it.
        log: Where it writes down why it failed, for its own eyes; None: nowhere.
        folder: Where it keeps its state and networks; None keeps them in memory only.
        device: Where it trains.
    """

    def __init__(
        self,
        data: SiteData,
        model: SiteModel,
        task: Task,
        config: Config,
        *,
        training: LocalTraining,
        mechanism: PaperNoise,
        log: Path | None = None,
        folder: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self.data = data
        self._model, self._task = model, task
        self._layout = ParameterLayout.of(model)
        self._config = config
        self._training = training
        self._mechanism = mechanism
        self._log = log
        self._device = device
        self._memory = SiteMemory(folder, kept_turns=(config.rounds.buffer_size or 1) + 2)
        self._scorer = SiteScorer(data, model, task, folder, device)
        self._private = self._private_places()
        self._prepared = training.standardise != "shared"
        if training.standardise == "site":
            self._use(agree([self._measure()]))

    def resume(self) -> None:
        """Take up what was kept in the folder, for a run that goes on."""
        self._scorer.resume()

    def answer(self, request: Request) -> bytes:
        """Answer a request with a message; a failure is a message too, and stays anonymous."""
        try:
            return self._answer(request).to_bytes()
        except Exception as error:
            # The text may name a slide, so only a code crosses; the text stays at the site.
            note_failure(self._log)
            return failure_message(error)

    def _answer(self, request: Request) -> Answer:
        if isinstance(request, StatisticsRequest | PrepareRequest) and self._prepared:
            raise MessageError("the scale of the features is not asked for, or settled already")
        if isinstance(request, StatisticsRequest):
            return FeatureStatistics(self.data.name, request.version, *self._measure())
        if isinstance(request, PrepareRequest):
            self._use(request.standardisation)
            return Prepared(self.data.name, request.version)
        if isinstance(request, EvaluateRequest):
            return self._scorer.score(request)
        received = self._check(request)
        if isinstance(request, TrainRequest):
            return self._train(request, received)
        return self._judge(request, received)

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        return measure(np.concatenate(bag.parts()) for bag in self.data.train)

    def _use(self, scale: Standardisation) -> None:
        """Standardise all bags from now on."""
        dim = self.data.train[0].features_ND.shape[1]
        fine = all(
            v.shape == (dim,) and np.isfinite(v).all() for v in (scale.centre_D, scale.deviation_D)
        )
        if not fine or not (scale.deviation_D > 0).all():
            raise MessageError("a scale received does not fit the features")
        self.data = self.data.standardised(scale)
        self._scorer.use(self.data, scale)
        self._prepared = True

    def _check(self, request: TrainRequest | CandidatesRequest) -> Tensor:
        if not self._prepared:
            raise MessageError("asked to work before the scale of the features was agreed on")
        vectors = [request.parameters]
        if isinstance(request, CandidatesRequest):
            vectors += list(request.shared_SP)
        for vector in vectors:
            if vector.shape != (self._layout.size,) or not np.isfinite(vector).all():
                raise MessageError("a network received is not of this kind or not finite")
        return torch.tensor(request.parameters)  # a copy: shared memory is read-only

    def _train(self, request: TrainRequest, sent: Tensor) -> Update:
        start = time.monotonic()
        known = self._memory.before(request.turn)
        received = self._with_private(sent, known.get("private"))
        validation, validation_metric = self._scorer.validate(request.version, received)
        trained = self._train_locally(request, received, dict(known))
        places = self._layout.places()
        seed = self._seed("paper noise", request.turn)
        update = received - self._mechanism.privatise(trained.parameters, places, seed)
        update[self._private] = 0.0
        self._remember(request, trained, MovingAverage.of(known))
        return Update(
            site=self.data.name,
            version=request.version,
            turn=request.turn,
            update=update.numpy(),
            train_loss=trained.loss,
            validation_loss=validation.loss,
            validation_metric=validation_metric,
            num_steps=trained.num_steps,
            seconds=time.monotonic() - start,
        )

    def _train_locally(
        self, request: TrainRequest, received: Tensor, known: dict[str, Tensor]
    ) -> Trained:
        turn = request.turn
        progress = request.version / self._config.rounds.num_versions
        bags: tuple[SiteBag, ...] = self.data.train
        if self._config.hypernetwork.estimate != "none" and self._config.method.name.startswith(
            "hypernetwork"
        ):
            strata = [self._task.stratum(bag) for bag in bags]
            bags = halves(bags, strata, self._seed("halves", turn // 2))[turn % 2]
        moments = {
            name.removeprefix("moment."): tensor
            for name, tensor in known.items()
            if name.startswith("moment.")
        }
        prox = self._config.training.proximal_mu if self._config.method.name == "fedprox" else 0.0
        return train_locally(
            self._model,
            received,
            bags,
            self._config.training,
            task=self._task,
            learning_rate=self._training.learning_rate
            * rate_factor(self._config.training, progress),
            num_steps=self._training.num_steps,
            seed=self._seed("local training", turn),
            validation=self.data.validation,
            moments=moments,
            proximal_mu=prox,
            device=self._device,
        )

    def _remember(self, request: TrainRequest, trained: Trained, average: MovingAverage) -> None:
        kept: dict[str, Tensor] = {}
        if self._private.any():
            kept["private"] = trained.parameters[self._private].clone()
        if self._config.training.keep_optimiser:
            kept |= {f"moment.{name}": tensor for name, tensor in trained.moments.items()}
        if self._config.evaluation.readout == "mixture":
            progress = (request.version + 1) / self._config.rounds.num_versions
            kept |= average.add(trained.parameters, 1.0, progress).state()
        self._memory.after(request.turn, kept)

    def _judge(self, request: CandidatesRequest, sent: Tensor) -> CandidateMetrics:
        if len(request.shared_SP) not in (0, len(MARKS) + 1):
            raise MessageError(f"{len(request.shared_SP)} shared candidates")
        known = self._memory.before(request.turns_done)
        private = known.get("private")
        last = self._with_private(sent, private)
        tuned = self._fine_tune(last)
        shared = [self._with_private(torch.tensor(row), private) for row in request.shared_SP]
        if self._config.evaluation.readout != "mixture":
            shared = []
        average = MovingAverage.of(known)
        if average.total is None and self._config.evaluation.readout == "mixture":
            average = average.add(last, 1.0, 1.0)  # it was never asked: all must have as many
        own = list(average.candidates()) if average.total is not None else []
        if tuned is not None and own:
            own[-1] = tuned
        return self._scorer.judge(request.version, last, tuned, [*shared, *own])

    def _fine_tune(self, last: Tensor) -> Tensor | None:
        """Train once more at the end, for the methods whose names say so."""
        if not self._config.method.name.endswith("_ft"):
            return None
        steps = self._config.training.fine_tuning_steps
        if steps is None:
            steps = TUNING_VERSIONS * self._training.num_steps
        return train_locally(
            self._model,
            last,
            self.data.train,
            self._config.training,
            task=self._task,
            learning_rate=self._training.learning_rate,
            num_steps=steps,
            seed=self._seed("fine-tuning", 0),
            validation=self.data.validation,
            device=self._device,
        ).parameters

    def _private_places(self) -> Tensor:
        """Which parameters never leave the site, bool (P,)."""
        mask = torch.zeros(self._layout.size, dtype=torch.bool)
        if self._config.method.name in PRIVATE_METHODS:
            for name, place in self._layout.places():
                mask[place] = name.startswith(PRIVATE_TENSORS)
        return mask

    def _with_private(self, network: Tensor, private: Tensor | None) -> Tensor:
        if private is None:
            return network
        own = network.clone()
        own[self._private] = private
        return own

    def _seed(self, purpose: str, turn: int) -> int:
        return derive(self._config.run.seed, purpose, self.data.name, turn)


def note_failure(log: Path | None) -> None:
    """Append the traceback of the current exception to a site's own log, which only it may read."""
    if log is not None:
        handle = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{traceback.format_exc()}\n")
