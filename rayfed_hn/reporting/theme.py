"""How reports look: colours by role, in light and dark, and matplotlib drawings that follow them.

Figures are drawn in fixed colours, which become CSS variables in the SVG: one drawing serves both
themes and print. Hues are Okabe and Ito's (2008); marks differ in shape as well as in colour.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Role: colour as drawn and shown in light, colour in dark. Drawn colours must differ.
INK, MUTED, RULE = "#15191e", "#5a626b", "#d5d9de"
_DARK = {INK: "#e9ecef", MUTED: "#a3abb4", RULE: "#3a4149"}
_SERIES_DARK = {
    "#d55e00": "#f0813a",  # vermillion
    "#0072b2": "#4fa8dc",  # blue
    "#009e73": "#2fc49a",  # bluish green
    "#b3588f": "#dc94bf",  # reddish purple, darkened to 3:1 on white
    "#b37a00": "#e8ab2a",  # orange, darkened likewise
    "#2a86b8": "#7cc8f0",  # sky blue, darkened likewise
}
SERIES = tuple(_SERIES_DARK)
MARKERS = ("o", "s", "^", "D", "v", "P")
# A method looks alike in every figure and run: its family has the colour and the shape of the mark,
# the variant is how the mark is filled and the line is dashed.
_PLACE = {"hypernetwork": 0, "local": 1, "fedavg": 2, "pooled": 3, "pfedhn": 4, "fedper": 5}
_PLAIN, _TUNED, _OTHER = ("full", "-"), ("none", "--"), ("left", ":")
_VARIANTS = {
    "hypernetwork_ft": ("hypernetwork", _TUNED),
    "pfedhn_ft": ("pfedhn", _TUNED),
    "pfedhn_pc": ("pfedhn", _OTHER),
    "fedavg_ft": ("fedavg", _TUNED),
    "fedprox": ("fedavg", _OTHER),
}

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a site may be called "$"
    "font.size": 9.0,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Look:
    """How a series is drawn: colour, marker, matplotlib's fill style of it, and line style."""

    colour: str = SERIES[1]
    marker: str = "o"
    fill: Any = "full"
    dash: str = "-"


def look(name: str, position: int) -> Look:
    """Return the look of a method, or of the series at ``position`` if it is none."""
    family, (fill, dash) = _VARIANTS.get(name, (name, _PLAIN))
    place = _PLACE.get(family, position) % len(SERIES)
    return Look(SERIES[place], MARKERS[place], fill, dash)


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the house style, whatever the user's matplotlibrc says."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        # Only the layout is measured with matplotlib's font; the browser draws the text with its
        # own, which has the characters of more scripts.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph.*missing from")
        warnings.filterwarnings("ignore", message=".*constrained_layout not applied")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure (inches) without pyplot, whose global state reports must not touch."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def printable(text: object, limit: int = 40) -> str:
    """Return one line of text that XML can hold, cut to ``limit`` characters."""
    line = "".join(c if c.isprintable() else " " for c in str(text)).strip() or "?"
    return line if len(line) <= limit else line[: limit - 1] + "…"


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """Return an ``<svg>`` element that stands in a page.

    Args:
        figure: The drawing.
        name: Unique in the page; every id starts with it.
        alt: What the picture shows, for those who do not see it.
    """
    file = io.StringIO()
    matplotlib.rcParams["svg.hashsalt"] = name  # ids repeat from run to run
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*(<metadata>.*?</metadata>|<!--.*?-->)", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for colour in (*_DARK, *_SERIES_DARK):
        text = text.replace(colour, f"var(--{_variable(colour)})")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    label = html.escape(alt, quote=True)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        rf'viewBox="\1" role="img" aria-label="{_literal(label)}">',
        text,
        count=1,
    )


def css_variables() -> str:
    """Return the colours as CSS custom properties for light, dark and print."""
    drawn = {**_DARK, **_SERIES_DARK}
    light = "".join(f"--{_variable(c)}:{c};" for c in drawn)
    dark = "".join(f"--{_variable(c)}:{d};" for c, d in drawn.items())
    return (
        f":root{{color-scheme:light dark;--paper:#ffffff;--panel:#f6f7f8;{light}}}\n"
        "@media screen and (prefers-color-scheme:dark)"
        f"{{:root{{--paper:#14171a;--panel:#1c2024;{dark}}}}}\n"
    )


def _variable(colour: str) -> str:
    roles = {INK: "ink", MUTED: "muted", RULE: "rule"}
    return roles.get(colour) or f"series-{SERIES.index(colour)}"


def _literal(text: str) -> str:
    """Escape what ``re.sub`` would read as a group."""
    return text.replace("\\", r"\\")
