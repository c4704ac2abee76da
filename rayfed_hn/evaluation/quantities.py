"""Bytes, times and p-values in tables."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def in_bytes(value: float | None) -> str:
    """Return bytes in the decimal unit that suits them, or a dash."""
    if value is None:
        return "–"
    size, unit = float(value), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def in_seconds(value: float | None) -> str:
    """Return a time in seconds or, of long ones, hours; or a dash."""
    if value is None:
        return "–"
    return f"{value / 3600:.2f} h" if value >= 3600 else f"{value:.3g} s"


def p_value(value: float | None) -> str:
    """Return a p-value, or a dash where it is undefined."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
