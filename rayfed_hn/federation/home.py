"""A site counts its bags where they lie, for a plan that is made elsewhere."""

from __future__ import annotations

from pathlib import Path

from rayfed_hn.bags.store import list_sites, read_recipe, recipe_digest
from rayfed_hn.config import Config
from rayfed_hn.errors import DataError
from rayfed_hn.federation.cards import SiteCard, card_of
from rayfed_hn.federation.data import Folds, open_sites
from rayfed_hn.federation.failures import failure_message
from rayfed_hn.federation.labels import check_cases, task_of
from rayfed_hn.federation.site import note_failure
from rayfed_hn.federation.wire import Message
from rayfed_hn.storage.elsewhere import bring_bags


def card_at_home(config: Config, root: Path, site: str) -> SiteCard | Message:
    """The card of a site, or what it says when it cannot make one.

    Args:
        config: Of the run.
        root: The bag store as this machine has it; other sites in it are not opened.
        site: Its name.
    """
    try:
        return _card(config, root, site)
    except Exception as error:  # its text could name a slide or a case
        log = root / f"site={site}" / "site.log"
        return failure_message(error, note_failure(log) if log.parent.is_dir() else 0)


def _card(config: Config, root: Path, site: str) -> SiteCard:
    bring_bags(root, [site])
    if site not in list_sites(root):
        raise DataError(f"{root} has no bags of {site}")
    return counted(config, root, site)


def counted(config: Config, root: Path, site: str) -> SiteCard:
    """The card of a site whose bags are here.

    Raises:
        DataError: They cannot be used.
    """
    bags = open_sites(root, [site], config.data)[site]
    recipe = recipe_digest(read_recipe(root))
    card = card_of(config, bags, Folds.of(config), task_of(config, ()), recipe)
    # Which of the names is positive does not decide whether slides of a case agree.
    names = tuple(config.task.classes) or tuple(sorted(card.labels))
    check_cases(task_of(config, names), {site: bags.entries})
    return card
