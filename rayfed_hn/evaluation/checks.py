"""What every metric of classes, grades and times asks of its lists before it counts anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def same_length(**list_by_name: ArrayLike) -> None:
    """Refuse anything but lists of one length.

    Raises:
        ValueError: One is no list (a table, a single number), or the lengths differ.
    """
    shapes = {name: np.shape(values) for name, values in list_by_name.items()}
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
        named = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"these must be lists of one length: {named}")


def as_classes(values: ArrayLike, num_classes: int, *, name: str) -> np.ndarray:
    """Return class numbers as int64, of the shape given.

    Raises:
        ValueError: One is not a whole number from 0 to ``num_classes`` - 1 (NaN is none).
    """
    found = np.asarray(values)
    if not np.isin(found, np.arange(num_classes)).all():
        raise ValueError(f"{name} must be whole numbers from 0 to {num_classes - 1}")
    return found.astype(np.int64)


def as_numbers(values: ArrayLike, *, name: str) -> np.ndarray:
    """Return numbers as float64, of the shape given; infinite ones have an order and pass.

    Raises:
        ValueError: One is NaN.
    """
    found = np.asarray(values, dtype=np.float64)
    if np.isnan(found).any():
        raise ValueError(f"{np.isnan(found).sum()} of {found.size} {name} are NaN")
    return found
