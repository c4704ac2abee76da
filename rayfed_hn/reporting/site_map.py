"""The part of a training report about the sites as the server sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rayfed_hn.reporting import page
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.site_map_figures import distance_square, point_map
from rayfed_hn.reporting.site_map_file import Embedded, SeenSites, read_site_map

TITLE = "What the server learned about the sites"
_MAX_SQUARE = 30  # sites in a square of distances
_MAX_ROWS = 12  # sites in sight; of more, the table is folded
_ALIKE = 0.9  # smallest by largest distance from which on no groups are seen
_CHANCE = "in this method can also be chance (see below)"
CAUTION = (
    "Personal networks and learned embeddings describe the data of a site: this is information "
    "about the sites that the server holds, and this page shows it. Show it only to those who may "
    "know it."
)


def site_map(run: Run) -> str:
    """Return the section; nothing of a run without the file, as older ones are.

    Raises:
        DataError: The file is broken.
    """
    seen = read_site_map(run.folder)
    if seen is None or run.summary["method"] == "local":  # isolated sites have no server
        return ""
    if seen.distances_MM is None:
        return page.section(TITLE, page.paragraph(_nothing(seen)))
    order = np.argsort(seen.points_M2[:, 0], kind="stable")
    pictures = [_map(run, seen, seen.distances_MM), _square(seen, seen.distances_MM, order)]
    embedded = seen.embeddings
    by_chance = embedded is not None and embedded.by_chance
    if embedded is not None and embedded.learned:
        pictures.append(_embedding_square(seen, embedded, order))
    table = _table(run, seen, seen.distances_MM)
    if len(seen.sites) > _MAX_ROWS:
        table = page.details("Every site", table)
    return page.section(
        TITLE,
        page.paragraph(_sentence(seen.mapped, seen.distances_MM, by_chance)),
        page.figures(pictures),
        table,
        *(page.paragraph(text, "quiet") for text in _notes(run, seen)),
    )


def _nothing(seen: SeenSites) -> str:
    if any(value is None for value in seen.personal.values()):
        return "The networks are not finite numbers, so that they cannot be compared."
    return (
        "The server ends with one and the same network for all sites. It keeps nothing personal "
        "of any of them, so that there is no map."
    )


def _sentence(names: Sequence[str], distances_MM: np.ndarray, by_chance: bool) -> str:
    """Say in words which sites are alike to the server."""
    apart = distances_MM[~np.eye(len(names), dtype=bool)]
    low, high = float(apart.min()), float(apart.max())
    if len(names) == 2:
        return (
            f"The networks that the server made for {names[0]} and {names[1]} differ by "
            f"{_percent(high)} of the size of their mean."
        )
    if low >= _ALIKE * high:
        return (
            "Every site has a network of its own, and all of them are about equally far apart: the "
            "server sees no groups of sites that are alike."
        )
    one, other = _closest(distances_MM)
    odd = names[int(distances_MM.sum(axis=1).argmax())]
    return (
        f"To the server, {names[one]} and {names[other]} are the most alike and {odd} differs most "
        "from all others. Sites that lie close together have received similar networks, which "
        f"{_CHANCE if by_chance else 'happens where their slides teach similar things'}."
    )


def _map(run: Run, seen: SeenSites, distances_MM: np.ndarray) -> str:
    bags = {site["site"]: float(site["num_train"]) for site in run.summary["sites"]}
    weights_M = np.array([bags.get(name, 0.0) for name in seen.mapped])
    one, other = _closest(distances_MM)
    first, last = np.unravel_index(int(distances_MM.argmax()), distances_MM.shape)
    names, share = seen.mapped, f"{100 * seen.share:.0f} %"
    alt = (
        f"Map of {len(names)} sites; {names[one]} and {names[other]} have the smallest distance, "
        f"{_percent(distances_MM[one, other])}, {names[first]} and {names[last]} the largest, "
        f"{_percent(distances_MM[first, last])}."
    )
    svg = point_map("site-map", seen.points_M2, names, weights_M, alt=alt)
    caption = (
        "Distances between the sites' networks as far as a plane can show them: it keeps "
        f"{share} of the variance (equally distant sites: "
        f"{100 * min(1.0, 2 / (len(names) - 1)):.0f} %). Area: training bags. Scales: share of the "
        "mean network's norm."
    )
    if len(names) > _MAX_ROWS:
        caption += " Names that would cover others are left out."
    if len(names) < len(seen.sites):
        caption += (
            f" A sample: {len(names)} of {len(seen.sites):,} sites, evenly spaced in the order of "
            "their names."
        )
    return page.figure("Map of the sites", svg, caption)


def _square(seen: SeenSites, distances_MM: np.ndarray, order: np.ndarray) -> str:
    if len(order) > _MAX_SQUARE:
        return ""
    names = [seen.mapped[number] for number in order]
    alt = f"Square of distances between networks: {_nearest_words(seen.mapped, distances_MM)}."
    ordered_MM = distances_MM[np.ix_(order, order)]
    svg = distance_square("site-distances", ordered_MM, names, percent=True, alt=alt)
    caption = (
        f"{_range(distances_MM)} % of the mean network's norm; the darker, the closer. In the "
        "order of the map's first direction."
    )
    return page.figure("Distances between networks", svg, caption)


def _embedding_square(seen: SeenSites, embedded: Embedded, order: np.ndarray) -> str:
    if len(order) > _MAX_SQUARE:
        return ""
    names = [seen.mapped[number] for number in order]
    words = _nearest_words(seen.mapped, embedded.distances_MM)
    ordered_MM = embedded.distances_MM[np.ix_(order, order)]
    svg = distance_square(
        "embedding-distances",
        ordered_MM,
        names,
        percent=False,
        alt=f"Square of distances between embeddings: {words}.",
    )
    caption = "Of the learned vectors that networks are made from; same order, own scale."
    return page.figure("Distances between embeddings", svg, caption)


def _table(run: Run, seen: SeenSites, distances_MM: np.ndarray) -> str:
    bags = {site["site"]: site["num_train"] for site in run.summary["sites"]}
    embedded = seen.embeddings if seen.embeddings and seen.embeddings.learned else None
    near = dict(zip(seen.mapped, _nearest(distances_MM), strict=True))
    near_embedded = _nearest(embedded.distances_MM) if embedded else np.zeros(0, int)
    rows = []
    for site in seen.sites:
        at = seen.mapped.index(site) if site in near else None
        row = [site, "–" if at is None else seen.mapped[near[site]]]
        if embedded:
            row.append("–" if at is None else seen.mapped[near_embedded[at]])
        row.append("–" if at is None else _percent(distances_MM[at, near[site]]))
        personal = seen.personal[site]
        row += ["–" if personal is None else _percent(personal), str(bags.get(site, "–"))]
        rows.append(row)
    caption = (
        "Personal part: a site's network minus the mean network of all sites. Distance: between "
        "the networks of a site and of its nearest. Both as a share of the mean network's norm."
    )
    by_embedding = ["nearest by embedding"] if embedded else []
    header = ["site", "nearest site", *by_embedding, "distance", "personal part", "training bags"]
    return page.table(caption, header, rows, text_columns=2 + len(by_embedding))


def _notes(run: Run, seen: SeenSites) -> list[str]:
    """Return what has to be known to read the pictures, and the caution."""
    notes, embedded = [], seen.embeddings
    if embedded is None:
        notes.append("This method has no embeddings of sites; only networks are compared.")
    elif not embedded.learned:
        how = (
            "equally far apart (√2) by construction" if embedded.equally_far else "drawn at random"
        )
        notes.append(
            f"The embeddings of this run are fixed and {how}: distances between them say nothing "
            "about the sites. What is shown are distances between what was made from them, the "
            "personal networks."
        )
    if embedded is not None and embedded.by_chance:
        notes.append(
            "Networks are made from embeddings that began as random draws, some closer than "
            "others: sites that are close here may have been so from the start, by chance."
        )
    privacy = run.summary.get("privacy") or {}
    if privacy.get("mechanism", "none") != "none":
        notes.append("The noise that sites add to what they send is part of every distance.")
    return [*notes, CAUTION]


def _nearest(distances_MM: np.ndarray) -> np.ndarray:
    """Number of every site's nearest other site, int (M,)."""
    return (distances_MM + np.diag(np.full(len(distances_MM), np.inf))).argmin(axis=1)


def _closest(distances_MM: np.ndarray) -> tuple[int, int]:
    """The two sites with the smallest distance."""
    nearest = _nearest(distances_MM)
    one = int(distances_MM[np.arange(len(nearest)), nearest].argmin())
    return one, int(nearest[one])


def _nearest_words(names: Sequence[str], distances_MM: np.ndarray) -> str:
    pairs = list(zip(names, _nearest(distances_MM), strict=True))
    words = [f"{name} nearest to {names[at]}" for name, at in pairs[:_MAX_ROWS]]
    return ", ".join([*words, *(["the others in the table"] if len(pairs) > _MAX_ROWS else [])])


def _range(distances_MM: np.ndarray) -> str:
    apart = distances_MM[~np.eye(len(distances_MM), dtype=bool)]
    return f"{100 * apart.min():.3g} to {100 * apart.max():.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
