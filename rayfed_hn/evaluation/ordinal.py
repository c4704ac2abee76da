"""Metrics of grades, classes with an order; None where they are undefined: never a stand-in."""

from __future__ import annotations

from numpy.typing import ArrayLike

from rayfed_hn.evaluation.checks import as_classes, same_length


def quadratic_kappa(labels: ArrayLike, predicted: ArrayLike, num_classes: int) -> float | None:
    """Return Cohen's kappa with quadratic weights (Cohen 1968).

    It is 1 less the observed over the expected disagreement, where two grades disagree by the
    square of their distance and the expected disagreement pairs every label with every prediction.

    Args:
        labels: B grades, 0 to ``num_classes`` - 1.
        predicted: B predicted grades, likewise.
        num_classes: Grades there are. Checks the lists only: a scale of the weights cancels.

    Returns:
        Kappa, at most 1 and at least -1; None without bags, and where the expected disagreement is
        0 (every label and every prediction is the same grade).

    Raises:
        ValueError: A label or a prediction is no grade, or the lengths differ.
    """
    same_length(labels=labels, predicted=predicted)
    label_B = as_classes(labels, num_classes, name="labels")
    predicted_B = as_classes(predicted, num_classes, name="predicted grades")
    observed = int(((label_B - predicted_B) ** 2).sum())
    # The sum of (a - b)^2 over all B^2 pairs, opened: whole numbers, so that 0 is exact.
    squares = int((label_B**2).sum()) + int((predicted_B**2).sum())
    expected = len(label_B) * squares - 2 * int(label_B.sum()) * int(predicted_B.sum())
    return 1 - len(label_B) * observed / expected if expected else None
