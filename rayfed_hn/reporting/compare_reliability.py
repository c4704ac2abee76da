"""The picture of whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayfed_hn.evaluation.markdown import number
from rayfed_hn.reporting.figures import WIDTH
from rayfed_hn.reporting.theme import MUTED, Look, drawing, new_axes, printable, to_svg


@dataclass(frozen=True)
class Curve:
    """Mean probability and share of hits of every bin of a method, by rising probability."""

    method: str
    predicted: Sequence[float]
    observed: Sequence[float]
    look: Look


def reliability_chart(name: str, curves: Sequence[Curve], *, share: str) -> str:
    """Draw a line a method, and the diagonal that a calibrated one lies on.

    Args:
        name: Unique in the page.
        curves: One bin at least in each.
        share: Of what, for the axis.
    """
    words = "; ".join(
        f"{curve.method} "
        + ", ".join(
            f"{number(p)} to {number(o)}"
            for p, o in zip(curve.predicted, curve.observed, strict=True)
        )
        for curve in curves
    )
    with drawing():
        figure, axes = new_axes(WIDTH, 3.3)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
        for curve in curves:
            axes.plot(
                curve.predicted,
                curve.observed,
                curve.look.dash,
                color=curve.look.colour,
                marker=curve.look.marker,
                markersize=5,
                fillstyle=curve.look.fill,
                markerfacecoloralt="none",
                label=printable(curve.method).lstrip("_"),
                clip_on=False,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_xlabel("predicted probability")
        axes.set_ylabel(f"share of bags that are {share}")
        figure.legend(loc="outside right upper", frameon=False)
        return to_svg(figure, name, f"Predicted to observed, a point a bin: {words}.")
