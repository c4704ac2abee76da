"""From a finished run and a slide's bag to the attention of its tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rayfed_hn.bags.bag import Bag
from rayfed_hn.bags.store import SiteBags, list_sites
from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.models.tasks import Task
from rayfed_hn.prediction.finished import FinishedRun
from rayfed_hn.prediction.heat import Heat
from rayfed_hn.prediction.networks import check_attention, network_for
from rayfed_hn.prediction.scores import (
    called,
    columns,
    groups,
    leave_out_unfit,
    slide_of,
    unlabelled,
    values,
    whole,
)
from rayfed_hn.slides.manifest import is_name


def site_of(root: Path, slide: str, site: str | None) -> str:
    """The site under which a store has a slide.

    Args:
        root: The bag store.
        slide: Its slide_id.
        site: Where it must be; None: wherever it is.

    Raises:
        ConfigError: It is not there, or at several sites and none was named.
    """
    known = list_sites(root)
    if site is not None and site not in known:
        raise ConfigError(f"--site: {root} has no bags of {site}; it has {', '.join(known)}")
    places = [] if not is_name(slide) else [
        name for name in known if (root / f"site={name}" / f"{slide}.arrow").is_file()
    ]  # fmt: skip
    found = [name for name in places if site in (None, name)]
    if not found:
        where = f"; it is a slide of {', '.join(places)}" if places else ""
        raise ConfigError(f"--slide: {root} has no bag of {slide!r} at {site or 'any site'}{where}")
    if len(found) > 1:
        raise ConfigError(f"--site: {slide} is a slide of {', '.join(found)}; name one")
    return found[0]


def heat_of(run: FinishedRun, root: Path, site: str, slide: str) -> tuple[Heat, Bag]:
    """Attention of the site's network over a slide, and the slide's bag.

    Where a bag is a case, its network sees all slides of it, and this is the part on one of them.

    Raises:
        ConfigError: The model has no attention, the run has no network for the site, or it is not
            known where the tiles lie.
        DataError: The bag or a network is damaged.
    """
    check_attention(run)
    bags = SiteBags(root, site, tile_filter(run.config.data))
    unfit = {one.slide_id: f"{slide}: {one.reason}" for one in leave_out_unfit(run, bags)}
    names = [entry.slide_id for entry in bags.entries]
    if slide not in names:
        raise DataError(unfit.get(slide) or _why_unusable(bags, slide))
    index = names.index(slide)
    group = next(own for own in groups(run.task, bags.entries) if index in own)
    network = network_for(run, site, lambda: list(whole(bags)))
    asked, bag = unlabelled(bags, group), bags.load(index)
    predicted_S, attention_N = network.predict(asked), network.attention(asked)
    begin = sum(len(bags.load(i)) for i in group[: group.index(index)])
    heat = Heat(
        *(slide, site, run.folder.resolve().name, network.name, _said(run.task, predicted_S)),
        *(bag.coords_N2, bag.tile_size0, attention_N[begin : begin + len(bag)], bag.mpp),
    )
    if not heat.placed:
        raise ConfigError(
            f"--slide: the bag of {slide} does not say where its tiles lie (its features were "
            "imported without coordinates); import them with coords, or embed the slide"
        )
    return heat, bag


def _why_unusable(bags: SiteBags, slide: str) -> str:
    """What the store says of the slide's own file: complaints begin with its path."""
    own = (why for why in bags.unusable if slide_of(why) == slide)
    other = f"{slide}.arrow holds another slide than its name says; rayfed-hn embed makes it again"
    return next(own, other)


def _said(task: Task, predicted_S: np.ndarray) -> str:
    """A prediction in a few words."""
    shown = dict(zip(columns(task), values(task, predicted_S).tolist(), strict=True))
    if task.kind == "survival":
        return f"risk {shown['risk']:.3g}"
    name = called(task, predicted_S)[0]
    return f"{name}, probability {shown[f'probability_{name}']:.2f}"
