"""The mixture readout: several networks of a site, weighted by its validation bags.

Candidates are moving averages of the network that all share and of the network that the site has
trained, at a quarter, at half and at the end of a run. Their evidence (log-odds, where two classes
are told apart) is brought to one scale and averaged with weights proportional to

    exp(n_i M_ik + 20 mean_j M_jk),    M_ik the AUC, or C-index, of candidate k at site i,

n_i being the validation bags of site i: what all sites say of candidate k counts as twenty bags.
A site whose metric is undefined (one class) takes the federation's word alone. Ours.

Shapes: C candidates, P parameters, B bags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MEMORY = 0.8  # of the moving averages, per round
MARKS = (0.25, 0.5)  # of the run; its end is the third
PSEUDO_BAGS = 20


@dataclass(frozen=True)
class MovingAverage:
    """A moving average, corrected for its start, and what it was at the marks.

    Attributes:
        total: Uncorrected average, float32 (P,); None before the first value.
        weight: Sum of the weights in it, 1 - .8^n after n rounds.
        marked: Corrected averages at the marks that are past.
    """

    total: Tensor | None = None
    weight: float = 0.0
    marked: tuple[Tensor, ...] = ()

    def add(self, value: Tensor, rounds: float, progress: float) -> MovingAverage:
        """Take a value in.

        Args:
            value: float32 (P,).
            rounds: Rounds since the value before, 1 in synchronous ones.
            progress: Share of the run that is done with this value.
        """
        keep = MEMORY**rounds
        old = torch.zeros_like(value) if self.total is None else self.total
        total = keep * old + (1 - keep) * value
        average = MovingAverage(total, keep * self.weight + (1 - keep), self.marked)
        passed = sum(progress >= mark for mark in MARKS)
        # Each mark a tensor of its own: safetensors does not write one twice.
        new = [average.value() for _ in range(passed - len(self.marked))]
        return MovingAverage(total, average.weight, (*self.marked, *new))

    def value(self) -> Tensor:
        """The average, corrected for its start."""
        assert self.total is not None
        return self.total / self.weight

    def candidates(self) -> tuple[Tensor, ...]:
        """The averages at the marks and at the end; a mark that was never passed is the end."""
        end = self.value()
        missing = len(MARKS) - len(self.marked)
        return (*self.marked, *[end] * missing, end)

    def state(self) -> dict[str, Tensor]:
        """As named tensors."""
        if self.total is None:
            return {}
        marked = {f"average.marked{i}": tensor for i, tensor in enumerate(self.marked)}
        weight = torch.tensor(self.weight, dtype=torch.float64)
        return {"average": self.total, "average.weight": weight, **marked}

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> MovingAverage:
        """From a ``state()``, which may hold other tensors too."""
        if "average" not in state:
            return cls()
        marked = [f"average.marked{i}" for i in range(len(MARKS))]
        found = tuple(state[name] for name in marked if name in state)
        return cls(state["average"], float(state["average.weight"]), found)


def mean_metrics(metrics: Sequence[np.ndarray]) -> np.ndarray:
    """Mean metric of every candidate over the hospitals that have it; .5 where none has.

    Args:
        metrics: One (C,) a hospital, NaN where undefined.
    """
    table = np.stack(list(metrics))
    defined = ~np.isnan(table)
    totals = np.where(defined, table, 0).sum(axis=0)
    return np.where(defined.any(axis=0), totals / np.maximum(defined.sum(axis=0), 1), 0.5)


def weights(metric_C: np.ndarray, num_bags: int, mean_metric_C: np.ndarray) -> np.ndarray:
    """Weights of a hospital's candidates, float64 (C,), adding up to 1."""
    own_C = np.where(np.isnan(metric_C), 0.0, metric_C) * num_bags
    if np.isnan(metric_C).any():
        own_C = np.zeros_like(own_C)
    exponent_C = own_C + PSEUDO_BAGS * mean_metric_C
    raised_C = np.exp(exponent_C - exponent_C.max())
    return raised_C / raised_C.sum()


def scales(evidence_CBE: np.ndarray) -> np.ndarray:
    """Standard deviation of every candidate's evidence on the validation bags; 1 where it is 0.

    Of several numbers a bag, the root of the mean of their variances: all have one scale.
    """
    if evidence_CBE.shape[1] == 0:
        return np.ones(len(evidence_CBE))
    exact_CBE = evidence_CBE.astype(np.float64)
    spread_C = np.sqrt(exact_CBE.var(axis=1).mean(axis=1))
    # Equal evidence deviates by its rounding, which is no scale.
    smallest_C = 1e-6 * (1 + np.abs(exact_CBE).max(axis=(1, 2)))
    return np.where(spread_C > smallest_C, spread_C, 1.0)


def shares(weight_C: np.ndarray, scale_C: np.ndarray) -> np.ndarray:
    """What evidence is multiplied by: weights over scales, times the mean scale, float64 (C,).

    So a mixture of copies of one network is that network, also where its scale matters (grades).
    """
    return weight_C / scale_C * (weight_C @ scale_C)


def combine(evidence_CBE: np.ndarray, weight_C: np.ndarray) -> np.ndarray:
    """Evidence of the mixture, float32 (B, E); the weights are ``shares``."""
    return np.einsum("c,cbe->be", weight_C, evidence_CBE.astype(np.float64)).astype(np.float32)
