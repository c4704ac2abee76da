"""Numbers and lists as words."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def counted(number: object, thing: str) -> str:
    """Return so many things."""
    return f"{number} {thing}{'s' * (number != 1)}"


def percent(share: float | None) -> str:
    """Return a share, or a dash where it is undefined."""
    return "–" if share is None else f"{100 * share:.0f} %"


def listed(items: Sequence[str]) -> str:
    """Return one or more items as a list in a sentence."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
