"""How a knob is declared."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def knob(
    default: Any,
    about: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    each_of: tuple[str, ...] | None = None,
) -> Any:
    """Declare one knob with its help text and the range it is checked against."""
    limits = {"at_least": at_least, "at_most": at_most, "above": above, "each_of": each_of}
    metadata = {"about": about, **{k: v for k, v in limits.items() if v is not None}}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)
