"""What a site checks before it trains, and how its updates leave it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from rayfed_hn.config import Config, PrivacyConfig
from rayfed_hn.errors import MessageError, StorageError
from rayfed_hn.federation.messages import CandidateMetrics, Scores, TrainRequest, Update
from rayfed_hn.federation.schedule import kept_turns
from rayfed_hn.federation.wire import Draft, Message
from rayfed_hn.privacy.accounting import Spent
from rayfed_hn.privacy.ledger import ReleaseKey
from rayfed_hn.privacy.mechanisms import Mechanism, NoNoise
from rayfed_hn.privacy.release import Gate, make_gate


class SiteReleases:
    """The way out of one site in one run.

    Args:
        site: Its name.
        run: Of the run.
        privacy: What the run is configured to promise.
        spent: What a release costs; None without formal guarantee.
        gate: Where releases are charged; None: they are not.
        usual_norm: Of the network that everybody starts from.
        bare: Whether updates leave as they are: nothing is promised then, and a ledger that cannot
            be written is no reason to stay out.
    """

    def __init__(
        self,
        site: str,
        run: str,
        privacy: PrivacyConfig,
        spent: Spent | None,
        gate: Gate | None,
        usual_norm: float = math.inf,
        *,
        bare: bool = False,
    ) -> None:
        self._site, self._run, self._spent, self._gate = site, run, spent, gate
        self._bare = bare
        self._withheld = privacy.withholds
        self._most = math.inf if privacy.max_growth is None else privacy.max_growth * usual_norm

    @classmethod
    def of(
        cls,
        config: Config,
        site: str,
        run: str,
        mechanism: Mechanism | None,
        folder: Path | None,
        *,
        secret: bool,
        real: bool,
        promised: float | None,
        usual_norm: float = math.inf,
    ) -> SiteReleases:
        """The way out of a site under a configuration.

        In a real run every release is charged, with or without noise: what left without it is part
        of what the bags have given away. In a simulation a release is charged if it costs anything;
        what repeats reveals nothing when it is asked for again.

        Args:
            config: Of the run.
            site: Its name.
            run: Of the run.
            mechanism: What is done to updates; None if nothing is released.
            folder: Where its ledger and outbox lie; None: in memory.
            secret: Whether the noise is the machine's own.
            real: Whether the run simulates nothing.
            promised: Epsilon of the run, if there is one.
            usual_norm: Of the network that everybody starts from.
        """
        privacy, gate = config.privacy, None
        spent = None if mechanism is None else mechanism.spent(config.training.steps)
        bare = isinstance(mechanism, NoNoise)
        if spent is not None or (mechanism is not None and (real if bare else secret)):
            rounds = config.rounds
            gate = make_gate(
                folder and folder / "privacy",
                secret=secret and not bare,
                delta=privacy.target_delta,
                budget=privacy.budget,
                run_budget=promised,
                num_versions=rounds.num_versions if rounds.cohort_size is None else 0,
                kept=kept_turns(config),
            )
        return cls(site, run, privacy, spent, gate, usual_norm, bare=bare)

    def again(self, request: TrainRequest) -> Message | None:
        """The message that answered this very request before; None if there was none."""
        if self._gate is None:
            return None
        with self._as_far_as_it_matters():
            return self._gate.again(self._key(request), self._spent)
        return None

    def look_at(self, network: np.ndarray) -> None:
        """Refuse a network (P,) that is neither to be trained nor to be scored.

        Raises:
            MessageError: Its norm has grown too much.
        """
        if self._most < math.inf:
            norm = float(np.linalg.norm(network.astype(np.float64)))
            if norm > self._most:
                raise MessageError(
                    f"a network received has a norm of {norm:.3g}; privacy.max_growth allows "
                    f"{self._most:.3g}"
                )

    def check(self, request: TrainRequest) -> None:
        """Refuse to train for a release that could not be made.

        Raises:
            BudgetSpent: What would be learned could not be released.
        """
        if self._gate is not None:
            with self._as_far_as_it_matters():
                self._gate.check(self._key(request), self._spent)

    def told(self, metrics: CandidateMetrics) -> CandidateMetrics:
        """What is said of candidates; the site itself goes on from what it has measured."""
        if not self._withheld:
            return metrics
        return replace(metrics, metric_OC=np.full_like(metrics.metric_OC, np.nan))

    def last_words(self, scores: Scores) -> Scores:
        """Test scores as they leave."""
        return replace(scores, validation_metric=None) if self._withheld else scores

    def seal(self, request: TrainRequest, update: Update, draft: Draft) -> Message:
        """The bytes that leave, charged; the draft has the update already."""
        if self._withheld:
            update = replace(
                update,
                train_loss=math.nan,
                validation_loss=math.nan,
                validation_metric=None,
                seconds=0.0,  # how long it took tells who took part
                signal_to_noise=None,
                clipped=None,
            )
        if self._gate is not None:
            with self._as_far_as_it_matters():
                return self._charged(request, update, draft, self._gate)
        return update.to_bytes(draft)

    def _charged(self, request: TrainRequest, update: Update, draft: Draft, gate: Gate) -> Message:
        key = self._key(request)
        account = gate.check(key, self._spent)
        epsilon = account.epsilon if math.isfinite(account.epsilon) else None
        update = replace(update, releases=account.releases, epsilon=epsilon)
        return gate.release(key, self._spent, update.to_bytes(draft))

    @contextmanager
    def _as_far_as_it_matters(self) -> Iterator[None]:
        """Go on without a ledger that cannot be read or written, if nothing was promised."""
        try:
            yield
        except OSError as error:
            if not self._bare:
                raise StorageError(f"the privacy ledger cannot be used ({error})") from error
            self._gate = None

    def _key(self, request: TrainRequest) -> ReleaseKey:
        received = hashlib.sha256(np.ascontiguousarray(request.parameters).data).hexdigest()
        return ReleaseKey(self._run, self._site, request.version, request.turn, received)
