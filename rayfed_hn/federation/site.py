"""A site: the only code that touches a hospital's bags.

It trains, adds noise, and releases bytes. It knows nothing of other sites, of how its bytes travel,
and of the method only what happens at a site.
"""

from __future__ import annotations

import os
import secrets
import time
import traceback
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.errors import MessageError
from rayfed_hn.federation.data import SiteData
from rayfed_hn.federation.failures import failure_message, incident_name
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
)
from rayfed_hn.federation.mixture import MARKS, MovingAverage
from rayfed_hn.federation.schedule import kept_turns
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.federation.site_releases import SiteReleases
from rayfed_hn.federation.site_scorer import SiteScorer
from rayfed_hn.federation.site_trainer import SiteSetup, SiteTrainer
from rayfed_hn.federation.wire import LastFinite, Message
from rayfed_hn.models.attending import WITHOUT_ATTENTION
from rayfed_hn.models.cohort import Job
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.standardise import Standardisation, agree, measure
from rayfed_hn.models.training import Trained
from rayfed_hn.points import SITE_RECEIVED, SITE_SEALED, SITE_TRAINED, reached

_finite = LastFinite()  # of all sites in this process


@dataclass(frozen=True)
class Begun:
    """A request for training that a site has looked at.

    Attributes:
        request: As it came.
        job: What is to be trained.
        known: What the site knew before.
        validation_loss, validation_metric: Of the network received.
    """

    request: TrainRequest
    job: Job
    known: dict[str, Tensor]
    validation_loss: float
    validation_metric: float | None


class Site:
    """One hospital.

    Args:
        data: Its bags.
        setup: What else it needs to know.
        releases: The way out for its updates.
        log: Where it writes down why it failed, for its own eyes; None: nowhere.
        folder: Where it keeps its state and networks; None keeps them in memory only.
        pictures: Where it draws where its network looks; None: nowhere.
    """

    def __init__(
        self,
        data: SiteData,
        setup: SiteSetup,
        releases: SiteReleases,
        *,
        log: Path | None = None,
        folder: Path | None = None,
        pictures: Path | None = None,
    ) -> None:
        self.data, self._releases = data, releases
        self._unscaled = data
        self._scale: Standardisation | None = None
        self._layout = ParameterLayout.of(setup.model)
        self._config = setup.config
        self._log, self._pictures = log, pictures
        self._candidates: bytes | None = None
        self._trainer = SiteTrainer(data, setup, SiteMemory(folder, kept_turns(setup.config)))
        self._scorer = SiteScorer(data, setup.model, setup.task, folder, setup.device)
        self._shared = setup.training.standardise == "shared"
        self._prepared = not self._shared
        if setup.training.standardise == "site":
            self._use(agree([self._measure()]))

    def resume(self) -> None:
        """Take up what was kept in the folder, for a run that goes on."""
        self._scorer.resume()

    def answer(self, request: Request) -> Message:
        """Answer a request with a message; a failure is a message too, and stays anonymous."""
        try:
            if isinstance(request, TrainRequest):
                return self.again(request) or self._train(request)
            reached(SITE_RECEIVED)
            return self._answer(request).to_bytes()
        except Exception as error:
            return self.failed(error)

    def failed(self, error: Exception) -> bytes:
        """Keep the text of the error being handled, which may name a slide; a code crosses."""
        return failure_message(error, note_failure(self._log))

    def _answer(
        self, request: StatisticsRequest | PrepareRequest | CandidatesRequest | EvaluateRequest
    ) -> Answer:
        if isinstance(request, StatisticsRequest | PrepareRequest) and not self._shared:
            raise MessageError("the scale of the features is not asked for")
        if isinstance(request, StatisticsRequest):
            return FeatureStatistics(self.data.name, request.version, *self._measure())
        if isinstance(request, PrepareRequest):
            self._prepare(request.standardisation)
            return Prepared(self.data.name, request.version)
        if isinstance(request, EvaluateRequest):
            scores = self._scorer.score(request)
            self._draw(request.version)
            return self._releases.last_words(scores)
        assert isinstance(request, CandidatesRequest)
        self._check(request)
        self._once(request)
        return self._releases.told(self._judge(request))

    def _draw(self, version: int) -> None:
        """Draw where the network looks; a map that cannot be made is no reason for no scores."""
        if self._pictures is None or self._config.model.name in WITHOUT_ATTENTION:
            return
        try:
            self._scorer.draw(self._pictures, self._config.evaluation.attention_maps, version)
        except Exception:
            note_failure(self._log)

    def _once(self, request: CandidatesRequest) -> None:
        """Whoever could ask of any number of networks could feel the way to single bags."""
        networks = (request.parameters, *request.shared_SP)
        asked = sha256(b"".join(np.ascontiguousarray(n).tobytes() for n in networks)).digest()
        if request.version != self._config.rounds.num_versions:
            raise MessageError("candidates are judged at the end of a run only")
        if self._candidates not in (None, asked):
            raise MessageError("candidates are judged once, and others were judged before")
        self._candidates = asked

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        return measure(np.concatenate(bag.parts()) for bag in self._unscaled.train)

    def _prepare(self, scale: Standardisation) -> None:
        """Take the scale that was agreed on; a server that was started anew says it again."""
        if self._scale is None:
            self._use(scale)
        elif not _same(self._scale, scale):
            raise MessageError("the scale of the features is settled already")

    def _use(self, scale: Standardisation) -> None:
        """Standardise all bags from now on."""
        dim = self.data.train[0].features_ND.shape[1]
        fine = all(
            v.shape == (dim,) and np.isfinite(v).all() for v in (scale.centre_D, scale.deviation_D)
        )
        if not fine or not (scale.deviation_D > 0).all():
            raise MessageError("a scale received does not fit the features")
        self.data = self.data.standardised(scale)
        self._trainer.use(self.data)
        self._scorer.use(self.data, scale)
        self._prepared, self._scale = True, scale

    def _check(self, request: TrainRequest | CandidatesRequest) -> None:
        if not self._prepared:
            raise MessageError("asked to work before the scale of the features was agreed on")
        vectors = [request.parameters]
        if isinstance(request, CandidatesRequest):
            vectors += list(request.shared_SP)
        for vector in vectors:
            if vector.shape != (self._layout.size,) or not _finite(vector):
                raise MessageError("a network received is not of this kind or not finite")
            self._releases.look_at(vector)

    def again(self, request: TrainRequest) -> Message | None:
        """The bytes that answered this very request before, if they are kept; None: train."""
        reached(SITE_RECEIVED)
        return self._releases.again(request)

    def _train(self, request: TrainRequest) -> Message:
        start = time.monotonic()
        begun = self.begin(request)
        trained = self._trainer.train(begun.job)
        return self.end(begun, trained, time.monotonic() - start)

    def begin(self, request: TrainRequest) -> Begun:
        """Validate the network received, and say what is to be trained.

        Raises:
            MessageError: The request cannot be used.
            BudgetSpent: What would be learned could not be released.
        """
        self._check(request)
        self._releases.check(request)
        known = self._trainer.known(request.turn)
        # Read where it lies, which may be shared memory that cannot be written to.
        received = self._trainer.with_private(torch.from_dlpack(request.parameters), known)
        validation, metric = self._scorer.validate(request.version, received)
        job = self._trainer.job(request, received, known)
        return Begun(request, job, known, validation.loss, metric)

    def end(self, begun: Begun, trained: Trained, seconds: float) -> Message:
        """Remember what was trained in so many seconds, and seal what leaves the site."""
        reached(SITE_TRAINED)
        request = begun.request
        draft = Update.draft(self._trainer.released_size)
        out = torch.from_numpy(draft["update"])
        released = self._trainer.release(request, begun.job, trained, begun.known, out)
        private = trained.signal_to_noise is not None
        update = Update(
            site=self.data.name,
            version=request.version,
            turn=request.turn,
            update=draft["update"],
            train_loss=trained.loss,
            validation_loss=begun.validation_loss,
            validation_metric=begun.validation_metric,
            num_steps=trained.num_steps,
            seconds=seconds,
            signal_to_noise=trained.signal_to_noise if private else released.signal_to_noise,
            clipped=trained.clipped if private else released.clipped,
        )
        message = self._releases.seal(request, update, draft)
        reached(SITE_SEALED)
        return message

    def _judge(self, request: CandidatesRequest) -> CandidateMetrics:
        if len(request.shared_SP) not in (0, len(MARKS) + 1):
            raise MessageError(f"{len(request.shared_SP)} shared candidates")
        known = self._trainer.known(request.turns_done)
        last = self._trainer.with_private(torch.tensor(request.parameters), known)
        tuned = self._trainer.fine_tune(last)
        mixing = self._config.evaluation.readout == "mixture"
        received = [torch.tensor(row) for row in request.shared_SP] if mixing else []
        shared = [self._trainer.with_private(network, known) for network in received]
        average = MovingAverage.of(known)
        if average.total is None and mixing:
            average = average.add(last, 1.0, 1.0)  # it was never asked: all must have as many
        own = list(average.candidates()) if average.total is not None else []
        if tuned is not None and own:
            own[-1] = tuned
        return self._scorer.judge(request.version, last, tuned, [*shared, *own])


def note_failure(log: Path | None) -> int:
    """Append the traceback of the current exception to a site's own log, which only it may read.

    Returns:
        The number it stands under there, drawn at random so that it tells nothing; 0 without a log,
        or where it cannot be written.
    """
    if log is None:
        return 0
    incident = 1 + secrets.randbits(62)
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"{moment} incident {incident_name(incident)}\n{traceback.format_exc()}\n"
    try:
        handle = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            file.write(text)
    except OSError:  # what went wrong is told all the same
        return 0
    return incident


def _same(one: Standardisation, other: Standardisation) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("centre_D", "deviation_D")
    )
