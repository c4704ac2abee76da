"""What predictions are measured by: the task's metric, and others beside it.

Every measure is of R samples of the same B bags at once: ``weight_BR`` says how often each sample
holds every bag. With a single column of ones it is the plain metric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayfed_hn.evaluation import calibration, called
from rayfed_hn.evaluation.judging import Judge, Truth
from rayfed_hn.evaluation.pairs import weighted_concordance

Of = Callable[[Judge, Truth, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measure:
    """A number that says how good predictions are.

    Attributes:
        name: In tables.
        of: From judge, truth, predictions (B, S) and weights (B, R) to values (R,); NaN where
            undefined.
        about: What it is, in words.
        bounds: Between which it lies.
        lower_is_better: Whether it is an error.
        resampled: Whether samples of the cases say how sure a difference of it is.
    """

    name: str
    of: Of
    about: str
    bounds: tuple[float, float] = (0.0, 1.0)
    lower_is_better: bool = False
    resampled: bool = True

    def value(self, judge: Judge, truth: Truth, predictions_BS: np.ndarray) -> float | None:
        """The measure of bags that are there once; None where undefined."""
        if len(truth) == 0:
            return None
        found = float(self.of(judge, truth, predictions_BS, np.ones((len(truth), 1)))[0])
        return None if np.isnan(found) else found

    def told(self) -> dict[str, Any]:
        """What ``summary.json`` says of it."""
        about = {"metric": self.name, "about": self.about}
        return about | {"lower_is_better": self.lower_is_better}


def main_measure(judge: Judge) -> Measure:
    """The task's own metric, ``Judge.value``."""
    of = {"binary": _auc, "multiclass": _macro_auc, "ordinal": _kappa, "survival": _c_index}
    return Measure(judge.name, of[judge.kind], "the task's metric", judge.bounds)


def more_measures(judge: Judge) -> tuple[Measure, ...]:
    """What classes are judged by besides; nothing of grades and of times.

    Scores of survival hold a risk and no curve, so that there is no Brier score of them.
    """
    if judge.kind not in ("binary", "multiclass"):
        return ()
    two = judge.kind == "binary"
    rule = "called positive from a probability of .5" if two else "called the likeliest class"
    who = "probability of class 1" if two else "probability of the likeliest class"
    what = "share of class 1" if two else "share of bags it is right for"
    f1 = "of class 1" if two else "mean of the classes there are"
    return (
        Measure("balanced accuracy", _balanced, f"mean sensitivity of the classes, bags {rule}"),
        Measure("F1" if two else "macro F1", _f1, f"{f1}, bags {rule}"),
        Measure(
            "Brier score",
            lambda _, truth, p_BS, w_BR: calibration.brier(truth.label_B, p_BS, w_BR),
            f"mean squared error of the probabilities{'' if two else ', summed over classes'}",
            bounds=(0.0, 1.0 if two else 2.0),
            lower_is_better=True,
        ),
        Measure(
            "calibration error",
            lambda judge, truth, p_BS, w_BR: calibration.calibration_error(
                *confidence(judge, truth, p_BS), w_BR
            ),
            f"expected distance of the {who} from the {what}, over bins of equal mass: at most "
            f"{calibration.MOST_BINS}, with at least {calibration.LEAST_IN_BIN} bags each",
            lower_is_better=True,
            resampled=False,  # samples with bags twice raise it: their intervals would be too high
        ),
    )


def confidence(
    judge: Judge, truth: Truth, predictions_BS: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What is claimed of every bag and whether it is so, both float64 (B,).

    Of two classes the probability of class 1, and whether a bag is of it; of several that of the
    likeliest, and whether it is right.
    """
    if judge.kind == "binary":
        return predictions_BS[:, 0].astype(float), truth.label_B.astype(float)
    hit_B = judge.decided(predictions_BS) == truth.label_B
    return predictions_BS.max(axis=1).astype(float), hit_B.astype(float)


def _auc(_: Judge, truth: Truth, scores_BS: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    return _one_auc(truth.label_B, scores_BS[:, 0], weight_BR)


def _one_auc(label_B: np.ndarray, score_B: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    return weighted_concordance(label_B, score_B, np.ones(len(label_B), bool), weight_BR)


def _macro_auc(_: Judge, truth: Truth, scores_BS: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    areas_SR = np.array([
        _one_auc((truth.label_B == number).astype(np.int64), scores_BS[:, number], weight_BR)
        for number in range(scores_BS.shape[1])
    ])  # fmt: skip
    return mean_of_defined(areas_SR)


def _kappa(judge: Judge, truth: Truth, scores_BS: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    """As ``ordinal.quadratic_kappa``; every sum in it is one over bags."""
    label_B, called_B = truth.label_B, judge.decided(scores_BS)
    terms = (np.ones(len(label_B)), (label_B - called_B) ** 2, label_B**2 + called_B**2)
    num_R, observed_R, squares_R = np.array(terms, float) @ weight_BR
    expected_R = num_R * squares_R - 2 * (label_B @ weight_BR) * (called_B @ weight_BR)
    undefined_R = np.full_like(num_R, np.nan)
    return 1 - np.divide(num_R * observed_R, expected_R, out=undefined_R, where=expected_R > 0)


def _c_index(
    judge: Judge, truth: Truth, scores_BS: np.ndarray, weight_BR: np.ndarray
) -> np.ndarray:
    """As ``survival.concordance_index``."""
    _, time_rank_B = np.unique(truth.time_B, return_inverse=True)
    rank_B = 2 * time_rank_B + ~truth.event_B
    return weighted_concordance(rank_B, -scores_BS[:, 0], truth.event_B, weight_BR)


def _balanced(
    judge: Judge, truth: Truth, scores_BS: np.ndarray, weight_BR: np.ndarray
) -> np.ndarray:
    called_B = judge.decided(scores_BS)
    return called.balanced_accuracy(truth.label_B, called_B, judge.num_classes, weight_BR)


def _f1(judge: Judge, truth: Truth, scores_BS: np.ndarray, weight_BR: np.ndarray) -> np.ndarray:
    called_B = judge.decided(scores_BS)
    if judge.kind == "binary":
        return called.f1_of_class(truth.label_B, called_B, weight_BR)
    return called.macro_f1(truth.label_B, called_B, judge.num_classes, weight_BR)


def mean_of_defined(values_SR: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where everything is."""
    defined_SR = ~np.isnan(values_SR)
    num_R = defined_SR.sum(axis=0)
    sum_R = np.where(defined_SR, values_SR, 0.0).sum(axis=0)
    return np.divide(sum_R, num_R, out=np.full(num_R.shape, np.nan), where=num_R > 0)
