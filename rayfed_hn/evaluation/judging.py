"""How the predictions of each kind of task are judged, as far as they can be.

Shapes: B bags, S numbers that are predicted of a bag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.evaluation.multiclass import macro_auc
from rayfed_hn.evaluation.ordinal import quadratic_kappa
from rayfed_hn.evaluation.survival import concordance_index

Kind = Literal["binary", "multiclass", "ordinal", "survival"]

NAMES: dict[Kind, str] = {
    "binary": "AUC",
    "multiclass": "macro AUC",
    "ordinal": "quadratic kappa",
    "survival": "C-index",
}


@dataclass(frozen=True)
class Truth:
    """What is true of B bags.

    Attributes:
        label_B: Class, grade or interval of time, int64.
        time_B: Follow-up, float64; 0 where the task is not survival.
        event_B: Whether it ended with the event, bool.
    """

    label_B: np.ndarray
    time_B: np.ndarray
    event_B: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> Truth:
        return Truth(self.label_B[chosen], self.time_B[chosen], self.event_B[chosen])

    def __len__(self) -> int:
        return len(self.label_B)


@dataclass(frozen=True)
class Judge:
    """Judges predictions: probabilities of classes or grades, or risks.

    Predictions (B, S) are the probability of class 1 (binary, S = 1), of every class or grade
    (S = number of them), or a risk (survival, S = 1).

    Attributes:
        kind: What is predicted.
        num_classes: Classes, grades or intervals of time.
    """

    kind: Kind
    num_classes: int

    @property
    def name(self) -> str:
        """Of the metric that results are reported in."""
        return NAMES[self.kind]

    @property
    def ranking_name(self) -> str:
        """Of the metric that networks are chosen by."""
        return "rescaled kappa, (1 + kappa) / 2" if self.kind == "ordinal" else self.name

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which values the reported metric lies."""
        return (-1.0 if self.kind == "ordinal" else 0.0), 1.0

    @property
    def chance(self) -> float:
        """What the reported metric is of predictions that know nothing, on average."""
        return 0.0 if self.kind == "ordinal" else 0.5

    def value(self, truth: Truth, predictions_BS: np.ndarray) -> float | None:
        """The metric that results are reported in; None where it is undefined.

        AUC, its mean over classes, Cohen's kappa with quadratic weights of the rounded mean grade,
        or Harrell's concordance index.
        """
        if self.kind == "ordinal":
            return quadratic_kappa(truth.label_B, self.decided(predictions_BS), self.num_classes)
        return self.ranking(truth, predictions_BS)

    def decided(self, predictions_BS: np.ndarray) -> np.ndarray:
        """Which class or grade every bag is called, int64 (B,): the likeliest, the mean grade.

        Of two classes a bag is of class 1 if its probability is at least one half.
        """
        if self.kind == "binary":
            return (predictions_BS[:, 0] >= 0.5).astype(np.int64)
        if self.kind == "ordinal":
            return np.rint(mean_grade(predictions_BS)).astype(np.int64)
        if self.kind == "multiclass":
            return np.argmax(predictions_BS, axis=1)
        raise ValueError(f"nothing is decided about bags of a {self.kind} task")

    def ranking(self, truth: Truth, predictions_BS: np.ndarray) -> float | None:
        """What networks are chosen by, 0 to 1 and .5 by chance; None where it is undefined.

        The reported metric; kappa is rescaled. (How well grades are put in order was tried in its
        place: it does not see whether they are called right, and chose networks too early.)
        """
        if len(truth) == 0:
            return None
        if self.kind == "binary":
            return auc(truth.label_B, predictions_BS[:, 0])
        if self.kind == "multiclass":
            return macro_auc(truth.label_B, predictions_BS)
        if self.kind == "ordinal":
            kappa = self.value(truth, predictions_BS)
            return None if kappa is None else (1 + kappa) / 2
        return concordance_index(truth.time_B, truth.event_B, predictions_BS[:, 0])

    def of_records(self, records: Sequence[Mapping[str, Any]]) -> float | None:
        """``value`` of records of bags, as ``record_of`` makes them."""
        return self.value(*self.read(records)) if records else None

    def read(self, records: Sequence[Mapping[str, Any]]) -> tuple[Truth, np.ndarray]:
        """Truth and predictions (B, S) of records of bags, at least one."""
        truth = Truth(
            np.array([record["label"] for record in records], np.int64),
            np.array([record.get("time", 0.0) for record in records], np.float64),
            np.array([record.get("event", True) for record in records], bool),
        )
        rows = [record.get("probabilities", [record["score"]]) for record in records]
        return truth, np.array(rows, np.float64).reshape(len(records), -1)

    def record_of(self, truth: Truth, predictions_BS: np.ndarray, bag: int) -> dict[str, Any]:
        """What is true and what was predicted of one bag, JSON-ready.

        ``score`` is the probability of class 1, the mean grade, the risk, or, of several classes,
        the probability of the true one.
        """
        label, row = int(truth.label_B[bag]), predictions_BS[bag]
        record: dict[str, Any] = {"label": label, "score": float(row[0])}
        if self.kind == "survival":
            record |= {"time": float(truth.time_B[bag]), "event": bool(truth.event_B[bag])}
        elif self.kind != "binary":
            graded = self.kind == "ordinal"
            score = mean_grade(predictions_BS[bag : bag + 1])[0] if graded else row[label]
            record |= {"score": float(score), "probabilities": [float(p) for p in row]}
        return record


def mean_grade(probabilities_BK: np.ndarray) -> np.ndarray:
    """Expected grade, float64 (B,)."""
    return probabilities_BK.astype(np.float64) @ np.arange(probabilities_BK.shape[1])
