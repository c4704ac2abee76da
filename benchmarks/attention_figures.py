"""Figures and table of ``attention.py``: how well tiles are ranked by what is under test.

Shapes: N tiles of a slide, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

Ranking = dict[int, dict[str, np.ndarray]]  # values (N,) of a slide's tiles, by seed and slide
Line = dict[str, Any]


@dataclass(frozen=True)
class TestedSlide:
    """A tumour slide.

    Attributes:
        slide_id, site: Its name and its hospital.
        share_N: Share of every tile that is tumour.
        features_ND: The bag's features.
    """

    slide_id: str
    site: str
    share_N: np.ndarray
    features_ND: np.ndarray

    def tumour(self, rule: float) -> np.ndarray:
        """Which tiles count as tumour, bool (N,)."""
        return self.share_N >= rule


def measure(
    slides: Sequence[TestedSlide],
    rankings: Mapping[str, Ranking],
    feature_names: Sequence[str],
    rule: float,
) -> Iterator[Line]:
    """A line for everything that ranks tiles.

    Args:
        slides: Those that count.
        rankings: What was trained, by name.
        feature_names: D names.
        rule: Share from which on a tile is tumour; slides without such a tile are left out.
    """
    slides = [slide for slide in slides if slide.tumour(rule).any()]
    for name, ranking in rankings.items():
        precision_S = np.array([_of_slide(slide, ranking, rule) for slide in slides])
        pooled = [_pooled(slides, values, rule) for values in ranking.values()]
        yield _line(name, slides, precision_S, float(np.mean(pooled)), rule)
    yield from _single_features(slides, feature_names, rule)
    even = {slide.slide_id: np.zeros(len(slide.share_N)) for slide in slides}
    precision_S = np.array([_of_slide(slide, {0: even}, rule) for slide in slides])
    yield _line("chance", slides, precision_S, _pooled(slides, even, rule), rule)


def _single_features(
    slides: Sequence[TestedSlide], names: Sequence[str], rule: float
) -> Iterator[Line]:
    """The best feature of all slides, and the best one of every hospital, with hindsight."""
    columns = [(f"{sign}{n}", d) for sign in "+-" for d, n in enumerate(names)]
    precision_SF, pooled_F = _all_features(slides, rule)
    best, best_pooled = int(precision_SF.mean(axis=0).argmax()), int(pooled_F.argmax())
    yield _line(
        "best single feature", slides, precision_SF[:, best], float(pooled_F[best_pooled]), rule
    ) | {"feature": columns[best][0], "feature_pooled": columns[best_pooled][0]}
    own_S, chosen = np.empty(len(slides)), {}
    for site in sorted({slide.site for slide in slides}):
        here = np.array([slide.site == site for slide in slides])
        column = int(precision_SF[here].mean(axis=0).argmax())
        own_S[here], chosen[site] = precision_SF[here, column], columns[column][0]
    name = "best single feature of every hospital"
    yield _line(name, slides, own_S, None, rule) | {"feature": chosen}


def _all_features(slides: Sequence[TestedSlide], rule: float) -> tuple[np.ndarray, np.ndarray]:
    """Average precision of both signs of every feature, by slide (S, 2D) and pooled (2D,)."""

    def both(tumour: np.ndarray, features_ND: np.ndarray) -> list[float]:
        signed = np.concatenate([features_ND, -features_ND], axis=1)
        return [float(average_precision_score(tumour, column)) for column in signed.T]

    precision_SF = np.array([both(s.tumour(rule), s.features_ND) for s in slides])
    tumour = np.concatenate([slide.tumour(rule) for slide in slides])
    pooled = both(tumour, np.concatenate([slide.features_ND for slide in slides]))
    return precision_SF, np.array(pooled)


def _of_slide(slide: TestedSlide, ranking: Ranking, rule: float) -> float:
    """Average precision of a slide, mean over the seeds in which it was test."""
    tumour = slide.tumour(rule)
    found = [
        by_slide[slide.slide_id] for by_slide in ranking.values() if slide.slide_id in by_slide
    ]
    return float(np.mean([average_precision_score(tumour, values_N) for values_N in found]))


def _pooled(slides: Sequence[TestedSlide], values: Mapping[str, np.ndarray], rule: float) -> float:
    """Average precision over the tiles of all slides together."""
    tested = [slide for slide in slides if slide.slide_id in values]
    tumour = np.concatenate([slide.tumour(rule) for slide in tested])
    ranked = np.concatenate([values[slide.slide_id] for slide in tested])
    return float(average_precision_score(tumour, ranked))


def _line(
    name: str,
    slides: Sequence[TestedSlide],
    precision_S: np.ndarray,
    pooled: float | None,
    rule: float,
) -> Line:
    sites = np.array([slide.site for slide in slides])
    by_site = {str(site): round(float(precision_S[sites == site].mean()), 3) for site in set(sites)}
    deviation = float(precision_S.std(ddof=1)) if len(slides) > 1 else float("nan")
    return {
        "ranked_by": name,
        "tumour_from_share": rule,
        "slides": len(slides),
        "mean": round(float(precision_S.mean()), 3),
        "standard_error": round(deviation / np.sqrt(len(slides)), 3),
        "pooled": None if pooled is None else round(pooled, 3),
        "by_hospital": dict(sorted(by_site.items())),
    }


def table_of(lines: Sequence[Line], head: Mapping[str, int]) -> str:
    """The lines as a markdown table; the other rules are columns."""
    first, *others = dict.fromkeys(line["tumour_from_share"] for line in lines)
    sites = list(lines[0]["by_hospital"])
    titles = ["tiles ranked by", "mean over slides ± s.e.", "pooled", *sites]
    titles += [f"mean, tumour from {rule:.0%}" for rule in others]
    rows = [titles, ["---"] * len(titles)]
    for line in (line for line in lines if line["tumour_from_share"] == first):
        same = [other for other in lines if other["ranked_by"] == line["ranked_by"]][1:]
        pooled = "–" if line["pooled"] is None else f"{line['pooled']:.3f}"
        mean = f"{line['mean']:.3f} ± {line['standard_error']:.3f}"
        values = [*line["by_hospital"].values(), *(other["mean"] for other in same)]
        rows.append([line["ranked_by"], mean, pooled, *(f"{value:.3f}" for value in values)])
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{text}\n\n{', '.join(f'{name}: {n}' for name, n in head.items())}\n"
