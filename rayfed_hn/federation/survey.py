"""What a bag store holds for a configuration: who can take part, and in what task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayfed_hn.bags import set_aside as unmade
from rayfed_hn.bags.splits import check_leakage
from rayfed_hn.bags.store import SiteBags, list_sites, read_recipe, recipe_digest
from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError, SetAside
from rayfed_hn.federation.cards import SiteCard, card_of
from rayfed_hn.federation.data import Folds, open_sites
from rayfed_hn.federation.labels import check_cases, find_task, notes, task_of
from rayfed_hn.models.tasks import Survival, Task


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        hospitals: Sites with bags to train on, sorted.
        set_aside: Sites of which something, or everything, cannot be used, with the reason.
        task: What is predicted, with the names of classes that all sites share.
        feature_dim: D.
        num_bags: Training, validation and test bags of every hospital.
        num_unnamed: Bags that the tables of ``data.splits`` put into no part of this fold.
        digest: Of what decides the division of the cases: recipe, slides, cases, labels, tables.
        notes: What a user should know of the labels.
        num_cases: Training cases of every hospital; empty where bags are not of cases.
        recipe: SHA-256 of how all bags were made (hex).
    """

    hospitals: tuple[str, ...]
    set_aside: tuple[tuple[str, SetAside], ...]
    task: Task
    feature_dim: int
    num_bags: Mapping[str, tuple[int, int, int]]
    num_unnamed: int
    digest: str
    notes: tuple[str, ...]
    num_cases: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    recipe: str = field(default="", kw_only=True)


def survey(config: Config, root: Path) -> Survey:
    """Look at the metadata of all bags.

    Raises:
        DataError, ConfigError: As ``make_plan`` says.
    """
    folds, recipe = Folds.of(config), recipe_digest(read_recipe(root))
    sites = open_sites(root, _taking_part(root, config), config.data)
    entries = {name: bags.entries for name, bags in sites.items()}
    check_leakage(entries)
    folds.check(entries, _without_bag(root, config, sites))
    shapes = task_of(config, ())
    cards = [card_of(config, bags, folds, shapes, recipe) for bags in sites.values()]
    task = task_of_cards(config, cards)
    check_cases(task, {name: bags.entries for name, bags in sites.items()})
    return merge(config, cards, task)


def task_of_cards(config: Config, cards: Sequence[SiteCard]) -> Task:
    """What the labels of all sites make.

    Raises:
        DataError: They do not make a task.
    """
    labels = {label for card in cards for label in (*card.labels, *card.strange)}
    return find_task(config, labels, [card.times for card in cards if card.num_known])


def merge(config: Config, cards: Sequence[SiteCard], task: Task) -> Survey:
    """What the cards of all sites say together.

    Raises:
        DataError: Features are of different lengths or recipes, or no site has anything to train
            on.
    """
    cards = sorted(cards, key=lambda card: card.site)
    known = [card for card in cards if card.num_known]
    hospitals = tuple(card.site for card in known if card.num_bags[0])
    if not hospitals:
        raise DataError("no site has a case to train on; lower the number of folds")
    return Survey(
        hospitals,
        (*_damaged(cards), *_unlabelled(cards, task), *_idle(known)),
        task,
        _alike({card.site: card.feature_dim for card in cards}, "features of different lengths"),
        {card.site: card.num_bags for card in known},
        sum(card.num_unnamed for card in known),
        _digest(config, cards),
        (*_left_out(config), *notes(task, {card.site: card.labels for card in known})),
        num_cases={card.site: card.num_cases for card in known},
        recipe=_alike({card.site: card.recipe for card in cards}, "bags of different recipes"),
    )


def _left_out(config: Config) -> list[str]:
    out = config.data.leave_out
    return [f"{', '.join(out)} takes no part (data.leave_out)"] if out else []


def _without_bag(root: Path, config: Config, sites: Mapping[str, SiteBags]) -> list[str]:
    """Slides that tables of splits may name although they take no part."""
    emptied = [name for bags in sites.values() for name in bags.emptied]
    failed = [entry.slide_id for entry in unmade.list_all(root)]
    folders = [root / f"site={name}" for name in config.data.leave_out]
    out = [path.stem for folder in folders for path in folder.glob("*.arrow")]
    return [*emptied, *failed, *out]


def _alike(found: Mapping[str, Any], what: str) -> Any:
    if len(set(found.values())) != 1:
        raise DataError(f"sites have {what}: {dict(found)}; embed them alike")
    return next(iter(found.values()))


def _taking_part(root: Path, config: Config) -> list[str]:
    names, out = list_sites(root), config.data.leave_out
    strangers = sorted(set(out) - set(names))
    if strangers:
        raise ConfigError(
            f"data.leave_out: {', '.join(strangers)} is no site of {root}; it has "
            f"{', '.join(names)}"
        )
    left = [name for name in names if name not in out]
    if out and not left:
        raise ConfigError(f"data.leave_out: names every site of {root}; leave at least one in")
    return left


def _idle(cards: Sequence[SiteCard]) -> list[tuple[str, SetAside]]:
    return [(card.site, _NO_TRAINING) for card in cards if card.num_bags[0] == 0]


def _unlabelled(cards: Sequence[SiteCard], task: Task) -> list[tuple[str, SetAside]]:
    timed = isinstance(task, Survival)
    what = "no time" if timed else f"none of the labels {', '.join(task.names)}"
    remedy = f"correct the manifest and embed again{'' if timed else ', or task.classes'}"
    return [
        (
            card.site,
            SetAside(f"{card.num_unknown} of its bags have {what}{_instead(card)}", remedy),
        )
        for card in cards
        if card.num_unknown
    ]


def _instead(card: SiteCard) -> str:
    found = [f"{label!r} ({count})" for label, count in sorted(card.strange.items())]
    return f", but {', '.join(found)}" if found else ""


_NO_TRAINING = SetAside(
    "the site has no case to train on in this fold",
    "give it more cases or lower the number of folds",
)


def _digest(config: Config, cards: Sequence[SiteCard]) -> str:
    """What a continued run must find unchanged."""
    hasher = hashlib.sha256(cards[0].recipe.encode())
    hasher.update(repr(tile_filter(config.data)).encode())
    hasher.update(Folds.of(config).digest.encode())
    for card in cards:
        hasher.update(repr((card.site, card.digest)).encode())
    return hasher.hexdigest()


def _damaged(cards: Sequence[SiteCard]) -> list[tuple[str, SetAside]]:
    remedy = "run rayfed-hn embed again: it finds such bags and makes them anew"
    return [
        (card.site, SetAside(f"{card.num_unusable} of its bags cannot be read", remedy))
        for card in cards
        if card.num_unusable
    ]
