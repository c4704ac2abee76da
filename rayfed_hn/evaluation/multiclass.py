"""Metrics of classes without an order, None where they are undefined: never a stand-in."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rayfed_hn.evaluation.checks import as_classes, as_numbers
from rayfed_hn.evaluation.metrics import auc


def macro_auc(labels_B: ArrayLike, probabilities_BC: ArrayLike) -> float | None:
    """Return the mean over the defined classes of the AUC of one class versus the rest.

    A class is defined where some bags are of it and some are not. A site that lacks a class is
    thus judged by those it has, and its mean is comparable only with means over the same classes.
    scikit-learn's ``multi_class="ovr"`` is the same mean (Provost and Domingos 2000, unweighted),
    but refuses to work unless all classes are there.

    Args:
        labels_B: B classes, 0 to C - 1.
        probabilities_BC: B rows of C probabilities (shape (0, C) without bags). They need not sum
            to 1, as those of C independent outputs do not.

    Returns:
        The mean, or None where no class is defined: no bags, or all of one class.

    Raises:
        ValueError: A probability is NaN or outside 0 to 1 (logits order bags differently), a label
            is no class, or the shapes do not fit.
    """
    probability_BC = as_numbers(probabilities_BC, name="probabilities")
    label_shape = np.shape(labels_B)
    if probability_BC.ndim != 2 or probability_BC.shape[:1] != label_shape:
        raise ValueError(
            f"labels {label_shape} and probabilities {probability_BC.shape} must be B and B x C"
        )
    if probability_BC.min(initial=0) < 0 or probability_BC.max(initial=1) > 1:
        raise ValueError("the macro AUC needs probabilities, but some are outside 0 to 1")
    label_B = as_classes(labels_B, probability_BC.shape[1], name="labels")
    areas = [auc(label_B == number, column_B) for number, column_B in enumerate(probability_BC.T)]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else None
