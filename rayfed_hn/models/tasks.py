"""What is predicted of a bag: how logits are trained, compared between networks, and read.

Every task maps a network's O logits to *evidence*, numbers that can be averaged over networks and
over the slides of a case, and evidence to predictions.

Shapes: B bags, O outputs, E evidence, S predictions, K classes or grades, T intervals of time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit, softmax
from torch import Tensor

from rayfed_hn.evaluation.judging import Judge, Kind
from rayfed_hn.models.padding import send
from rayfed_hn.models.site_model import BagTarget

if TYPE_CHECKING:
    from rayfed_hn.models.labelled_bag import LabelledBag


@dataclass(frozen=True)
class Task(ABC):
    """A kind of prediction.

    Attributes:
        names: Classes, grades from low to high, or intervals of time.
        unit: Whether a bag is a slide, or the union of the slides of a case.
        kind: Its name in the configuration.
    """

    kind: ClassVar[Kind]
    names: tuple[str, ...]
    unit: str = "slide"

    @property
    def judge(self) -> Judge:
        """What judges its predictions."""
        return Judge(self.kind, len(self.names))

    @property
    def num_outputs(self) -> int:
        """O, the logits of a network."""
        return len(self.names)

    @property
    @abstractmethod
    def num_evidence(self) -> int:
        """E."""

    def stratum(self, bag: LabelledBag) -> int:
        """Which bags are alike for class-balanced sampling."""
        return bag.label

    @abstractmethod
    def target(self, bag: LabelledBag, smoothing: float = 0.0) -> BagTarget:
        """What training knows of a bag.

        Args:
            bag: Its label is a class, a grade or an interval of time.
            smoothing: Share of the label's weight that goes to all classes alike.
        """

    @abstractmethod
    def losses(
        self, logits_BO: Tensor, bags: Sequence[LabelledBag], smoothing: float = 0.0
    ) -> Tensor:
        """What the targets of B bags say of their logits, (B,), at one go."""

    @abstractmethod
    def evidence(self, logits_BO: Tensor) -> Tensor:
        """float32 (B, E)."""

    @abstractmethod
    def predict(self, evidence_BE: np.ndarray) -> np.ndarray:
        """float32 (B, S), as ``Judge`` takes it."""

    def case_label(self, labels: set[int]) -> int | None:
        """The label of a case whose slides have these; None where that is not decided."""
        return next(iter(labels)) if len(labels) == 1 else None


@dataclass(frozen=True)
class Binary(Task):
    """Class 1 or not, by two logits and cross-entropy, as HistoFL has it.

    Evidence is the log-odds of class 1, the prediction its probability. A case is of class 1 if one
    of its slides is.
    """

    kind: ClassVar[Kind] = "binary"

    @property
    def num_evidence(self) -> int:
        return 1

    def target(self, bag: LabelledBag, smoothing: float = 0.0) -> BagTarget:
        return _classes(bag.label, 2, smoothing)

    def losses(
        self, logits_BO: Tensor, bags: Sequence[LabelledBag], smoothing: float = 0.0
    ) -> Tensor:
        return _class_losses(logits_BO, bags, smoothing)

    def evidence(self, logits_BO: Tensor) -> Tensor:
        return logits_BO[:, 1:] - logits_BO[:, :1]

    def predict(self, evidence_BE: np.ndarray) -> np.ndarray:
        return expit(evidence_BE.astype(np.float64)).astype(np.float32)

    def case_label(self, labels: set[int]) -> int | None:
        return max(labels)


@dataclass(frozen=True)
class Multiclass(Task):
    """One of K classes, by K logits and cross-entropy.

    Evidence is the logits without their mean, the prediction the probability of every class.
    """

    kind: ClassVar[Kind] = "multiclass"

    @property
    def num_evidence(self) -> int:
        return len(self.names)

    def target(self, bag: LabelledBag, smoothing: float = 0.0) -> BagTarget:
        return _classes(bag.label, len(self.names), smoothing, absent_counts=True)

    def losses(
        self, logits_BO: Tensor, bags: Sequence[LabelledBag], smoothing: float = 0.0
    ) -> Tensor:
        return _class_losses(logits_BO, bags, smoothing)

    def evidence(self, logits_BO: Tensor) -> Tensor:
        return logits_BO - logits_BO.mean(dim=1, keepdim=True)

    def predict(self, evidence_BE: np.ndarray) -> np.ndarray:
        return softmax(evidence_BE.astype(np.float64), axis=1).astype(np.float32)


@dataclass(frozen=True)
class Ordinal(Task):
    """One of K grades in order, by K - 1 logits: P(y > k | y >= k) = sigmoid(l_k).

    The continuation-ratio model (Fienberg 1980; for networks Shi et al. 2023, CORN): probabilities
    of grades are products, so that P(y > k) falls with k for any logits. The loss is the
    cross-entropy of those probabilities, evidence the logits. A case has the highest grade of its
    slides.
    """

    kind: ClassVar[Kind] = "ordinal"

    @property
    def num_outputs(self) -> int:
        return len(self.names) - 1

    @property
    def num_evidence(self) -> int:
        return len(self.names) - 1

    def target(self, bag: LabelledBag, smoothing: float = 0.0) -> BagTarget:
        def loss(logits_O: Tensor) -> Tensor:
            label = torch.tensor(bag.label, device=logits_O.device)
            return F.cross_entropy(_log_grades(logits_O), label, label_smoothing=smoothing)

        # Output k is about bags of grade k and above only.
        present_O = tuple(
            bag.label > k if bag.label >= k else None for k in range(self.num_outputs)
        )
        return BagTarget(loss, present_O, absent_counts=True)

    def losses(
        self, logits_BO: Tensor, bags: Sequence[LabelledBag], smoothing: float = 0.0
    ) -> Tensor:
        return _class_losses(_log_grades(logits_BO), bags, smoothing)

    def evidence(self, logits_BO: Tensor) -> Tensor:
        return logits_BO

    def predict(self, evidence_BE: np.ndarray) -> np.ndarray:
        higher_BE = expit(evidence_BE.astype(np.float64))
        reached_BK = np.cumprod(np.pad(higher_BE, ((0, 0), (1, 0)), constant_values=1), axis=1)
        stays_BK = np.pad(1 - higher_BE, ((0, 0), (0, 1)), constant_values=1)
        return (reached_BK * stays_BK).astype(np.float32)

    def case_label(self, labels: set[int]) -> int | None:
        return max(labels)


@dataclass(frozen=True)
class Survival(Task):
    """Time until an event, by T hazards h_t = sigmoid(l_t) of intervals of time.

    S_t = prod_{j <= t} (1 - h_j). The loss of a case in interval y is HistoFL's (Lu et al. 2022,
    code; Zadeh & Schmid 2020), alpha = ``task.uncensored_weight``:

        event     -(log S_{y-1} + log h_y)
        censored  -(1 - alpha) log S_y

    Evidence and prediction are the risk -sum_t S_t.

    Attributes:
        cuts: T - 1 times between the intervals; an interval begins with its cut.
        uncensored_weight: alpha.
    """

    cuts: tuple[float, ...] = ()
    uncensored_weight: float = 0.0

    kind: ClassVar[Kind] = "survival"

    @property
    def num_evidence(self) -> int:
        return 1

    def interval(self, time: float) -> int:
        """Which interval a time lies in."""
        return int(np.searchsorted(self.cuts, time, side="right"))

    def stratum(self, bag: LabelledBag) -> int:
        return int(bag.event)

    def target(self, bag: LabelledBag, smoothing: float = 0.0) -> BagTarget:
        def loss(logits_T: Tensor) -> Tensor:
            log_stays_T = F.logsigmoid(-logits_T)
            if bag.event:
                before = log_stays_T[: bag.label].sum()
                return -(before + F.logsigmoid(logits_T[bag.label]))
            return -(1 - self.uncensored_weight) * log_stays_T[: bag.label + 1].sum()

        return BagTarget(loss)

    def losses(
        self, logits_BO: Tensor, bags: Sequence[LabelledBag], smoothing: float = 0.0
    ) -> Tensor:
        device = logits_BO.device
        labels_B = _labels(bags, device)
        events_B = send(torch.tensor([bool(bag.event) for bag in bags]), device)
        # Intervals that were lived through: an event's own is not, a censored one's is.
        ends_B = labels_B + (~events_B).long()
        lived_BT = torch.arange(logits_BO.shape[1], device=device) < ends_B[:, None]
        log_lived_B = F.logsigmoid(-logits_BO).masked_fill(~lived_BT, 0.0).sum(dim=1)
        log_event_B = F.logsigmoid(logits_BO.gather(1, labels_B[:, None]).squeeze(1))
        censored_B = (1 - self.uncensored_weight) * log_lived_B
        return -torch.where(events_B, log_lived_B + log_event_B, censored_B)

    def evidence(self, logits_BO: Tensor) -> Tensor:
        survival_BT = torch.exp(torch.cumsum(F.logsigmoid(-logits_BO), dim=1))
        return -survival_BT.sum(dim=1, keepdim=True)

    def predict(self, evidence_BE: np.ndarray) -> np.ndarray:
        return evidence_BE.astype(np.float32)


def _classes(
    label: int, num_classes: int, smoothing: float, *, absent_counts: bool = False
) -> BagTarget:
    def loss(logits_O: Tensor) -> Tensor:
        target = torch.tensor(label, device=logits_O.device)
        return F.cross_entropy(logits_O, target, label_smoothing=smoothing)

    present_O = tuple(k == label for k in range(num_classes))
    return BagTarget(loss, present_O, absent_counts)


def _class_losses(logits_BK: Tensor, bags: Sequence[LabelledBag], smoothing: float) -> Tensor:
    labels_B = _labels(bags, logits_BK.device)
    return F.cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=smoothing)


def _labels(bags: Sequence[LabelledBag], device: torch.device) -> Tensor:
    return send(torch.tensor([int(bag.label) for bag in bags]), device)


def _log_grades(logits_O: Tensor) -> Tensor:
    """Log-probabilities of K grades, (K,) or (B, K)."""
    zero = logits_O.new_zeros((*logits_O.shape[:-1], 1))
    reached_K = torch.cat([zero, torch.cumsum(F.logsigmoid(logits_O), dim=-1)], dim=-1)
    return reached_K + torch.cat([F.logsigmoid(-logits_O), zero], dim=-1)
