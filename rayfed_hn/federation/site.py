"""A site: the only code that touches a hospital's bags.

It trains, adds noise, and releases bytes. It knows nothing of other sites, of the method or of how
its bytes travel.
"""

from __future__ import annotations

import os
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rayfed_hn.config import Config
from rayfed_hn.errors import MessageError
from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation.data import SiteBag, SiteData
from rayfed_hn.federation.messages import (
    EvaluateRequest,
    Request,
    Scores,
    TrainRequest,
    Update,
    failure_message,
)
from rayfed_hn.federation.readouts import BestVersions
from rayfed_hn.files import write_atomically
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.training import BagScores, score_bags, train_locally
from rayfed_hn.privacy.mechanisms import PaperNoise
from rayfed_hn.seeds import derive

_BEST_SO_FAR = "best_so_far.safetensors"


class Site:
    """One hospital.

    Args:
        data: Its bags.
        model: The network whose shapes a parameter vector fills.
        config: The run's configuration.
        learning_rate: Of the local optimiser.
        num_steps: Local gradient steps per version.
        mechanism: What is done to its parameters before they leave it.
        log: Where it writes down why it failed, for its own eyes; None: nowhere.
        folder: Where it keeps its state and networks; None keeps them in memory only.
        device: Where it trains.
    """

    def __init__(
        self,
        data: SiteData,
        model: nn.Module,
        config: Config,
        *,
        learning_rate: float,
        num_steps: int,
        mechanism: PaperNoise,
        log: Path | None = None,
        folder: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self.data = data
        self._model = model
        self._layout = ParameterLayout.of(model)
        self._config = config
        self._learning_rate = learning_rate
        self._num_steps = num_steps
        self._mechanism = mechanism
        self._log = log
        self._folder = folder
        self._device = device
        self._best = BestVersions(len(data.origins))

    def resume(self) -> None:
        """Take up what was kept in the folder, for a run that goes on."""
        if self._folder is not None:
            self._best.load(self._folder / _BEST_SO_FAR)

    def answer(self, request: Request) -> bytes:
        """Answer a request with a message; a failure is a message too, and stays anonymous."""
        try:
            parameters = self._check(request)
            if isinstance(request, TrainRequest):
                return self._train(request.version, parameters).to_bytes()
            return self._evaluate(request, parameters).to_bytes()
        except Exception as error:
            # The text may name a slide, so only a code crosses; the text stays at the site.
            note_failure(self._log)
            return failure_message(error)

    def _check(self, request: Request) -> Tensor:
        parameters = request.parameters
        if parameters.shape != (self._layout.size,) or not np.isfinite(parameters).all():
            raise MessageError("the parameters received are not this network's or not finite")
        return torch.tensor(parameters, dtype=torch.float32)  # a copy: shared memory is read-only

    def _train(self, version: int, received: Tensor) -> Update:
        start = time.monotonic()
        validation, validation_auc = self._validate(version, received)
        trained, loss = train_locally(
            self._model,
            received,
            self.data.train,
            self._config.training,
            learning_rate=self._learning_rate,
            num_steps=self._num_steps,
            seed=self.seed("local training", version),
            device=self._device,
        )
        places = self._layout.places()
        released = self._mechanism.privatise(trained, places, self.seed("paper noise", version))
        return Update(
            site=self.data.name,
            version=version,
            update=(received - released).numpy(),
            train_loss=loss,
            validation_loss=validation.loss,
            validation_auc=validation_auc,
            num_steps=self._num_steps,
            seconds=time.monotonic() - start,
        )

    def _evaluate(self, request: EvaluateRequest, last: Tensor) -> Scores:
        _, validation_auc = self._validate(request.version, last)
        test = self.data.test
        chosen = [best.choose(request.version, last) for best in self._best.by_origin]
        scores = Scores(
            site=self.data.name,
            version=request.version,
            validation_auc=validation_auc,
            best_version_O=np.array([version for version, _ in chosen]),
            origin_B=_column(test, "origin"),
            slide_B=_column(test, "slide"),
            case_B=_column(test, "case"),
            label_B=_column(test, "label"),
            last_B=self._score(last, test).scores_B,
            best_B=self._score_each([network for _, network in chosen], test),
        )
        if self._folder is not None:
            self._keep("last", request.version, last)
            for origin, (version, network) in zip(self.data.origins, chosen, strict=True):
                name = "best" if len(chosen) == 1 else f"best_{origin}"
                self._keep(name, version, network)
        return scores

    def _validate(self, version: int, received: Tensor) -> tuple[BagScores, float | None]:
        """Score the validation bags; the AUC is the mean over hospitals where it is defined."""
        bags = self.data.validation
        scores = self._score(received, bags)
        label_B, origin_B = _column(bags, "label"), _column(bags, "origin")
        numbers = range(len(self.data.origins))
        aucs = [auc(label_B[origin_B == n], scores.scores_B[origin_B == n]) for n in numbers]
        if self._best.observe(version, aucs, received) and self._folder is not None:
            self._best.save(self._folder / _BEST_SO_FAR)
        defined = [value for value in aucs if value is not None]
        return scores, float(np.mean(defined)) if defined else None

    def _score_each(self, networks: list[Tensor], bags: tuple[SiteBag, ...]) -> np.ndarray:
        """Score every bag with the network of its own hospital, float32 (B,)."""
        scores_B = np.empty(len(bags), np.float32)
        for number, network in enumerate(networks):
            own = [i for i, bag in enumerate(bags) if bag.origin == number]
            scores_B[own] = self._score(network, tuple(bags[i] for i in own)).scores_B
        return scores_B

    def _score(self, parameters: Tensor, bags: tuple[SiteBag, ...]) -> BagScores:
        return score_bags(self._model, parameters, bags, self._device)

    def _keep(self, name: str, version: int, network: Tensor) -> None:
        assert self._folder is not None
        tensors = {k: v.contiguous() for k, v in self._layout.unflatten(network).items()}
        about = {"format": "pt", "version": str(version), "site": self.data.name}
        write_atomically(
            self._folder / f"network_{name}.safetensors",
            lambda temporary: save_file(tensors, temporary, metadata=about),
        )

    def seed(self, purpose: str, version: int) -> int:
        return derive(self._config.run.seed, purpose, self.data.name, version)


def note_failure(log: Path | None) -> None:
    """Append the traceback of the current exception to a site's own log, which only it may read."""
    if log is not None:
        handle = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{traceback.format_exc()}\n")


def _column(bags: tuple[SiteBag, ...], name: str) -> np.ndarray:
    return np.array([getattr(bag, name) for bag in bags], dtype=np.int64)
