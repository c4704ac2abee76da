"""What the server and its sites must have in common, and what cannot be done over a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rayfed_hn.bags.store import list_sites
from rayfed_hn.config import RELEASE_NOTHING, Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.cards import SiteCard
from rayfed_hn.federation.home import counted
from rayfed_hn.federation.labels import task_of_config
from rayfed_hn.models.tasks import Task
from rayfed_hn.trees import flatten

_SHARED = (
    *("task.", "model.", "training.", "method.", "hypernetwork.", "rounds.", "simulation."),
    *("privacy.", "evaluation.", "run.seed", "data.folds", "data.fold", "data.positive_label"),
    "data.max_",
    "run.keep_commits",  # by which a site keeps what it may be asked for again (``kept_turns``)
)
# Files of the server's machine, and what each side does at home.
_OWN = (
    *("rounds.replay", "rounds.answer_timeout", "simulation.durations", "simulation.absences"),
    "evaluation.attention_maps",
)


def settings(config: Config) -> dict[str, Any]:
    """What both sides must have in common, by key, ready for JSON; privacy first."""
    found = [(k, v) for k, v in flatten(asdict(config)) if k.startswith(_SHARED)]
    kept = {key: value for key, value in found if not key.startswith(_OWN)}
    return dict(sorted(kept.items(), key=lambda item: not item[0].startswith("privacy.")))


def check_settings(config: Config, theirs: Mapping[str, Any]) -> None:
    """Refuse a server that runs something else than was agreed on.

    Args:
        config: The site's own.
        theirs: ``settings`` of the server.

    Raises:
        ConfigError: Names the first key that differs, privacy first.
    """
    own = settings(config)
    for key, value in own.items():
        if key not in theirs:
            raise ConfigError(f"{key}: the server does not know it; its version is another")
        other = theirs[key]
        if other != value or isinstance(other, bool) != isinstance(value, bool):
            raise ConfigError(
                f"{key}: {value!r} here, but the server has {other!r}; nothing was sent but this "
                "site's card. Agree on one configuration, and give both sides the same file"
            )
    if strange := sorted(theirs.keys() - own.keys()):
        raise ConfigError(f"{strange[0]}: of the server's settings; unknown to this version")


def stated_task(config: Config) -> Task:
    """The task, as far as the configuration states it; nothing of it is asked of any bag.

    Raises:
        ConfigError: It does not.
    """
    knobs = config.task
    if knobs.kind == "survival" and not knobs.cuts:
        raise ConfigError(
            "task.cuts: missing; quantiles of event times would be told to the server, and of few "
            "events they are the times themselves. Agree on times to cut at"
        )
    if knobs.kind != "survival" and not knobs.classes:
        raise ConfigError(
            "task.classes: missing; what is typed as a label at a site is not sent, so name the "
            "classes in the configuration that all share"
        )
    return task_of_config(config)


def check_possible(config: Config) -> None:
    """Refuse what makes no sense, or cannot be done, when sites are apart.

    Raises:
        ConfigError: Names the key and the remedy.
    """
    if config.method.name in RELEASE_NOTHING:
        raise ConfigError(
            f"method.name: {config.method.name} is a baseline of a simulation; over a network "
            "nothing would be won by it. Choose another"
        )
    if config.data.splits is not None:
        raise ConfigError(
            "data.splits: tables name slides of all hospitals, which no site may know; leave it "
            "out, and every site divides its own cases by data.folds and run.seed"
        )
    stated_task(config)


def own_card(config: Config, root: Path, site: str) -> SiteCard:
    """What a site says of its own bags.

    Raises:
        ConfigError: There are none of this site.
        DataError: Its bags cannot be used.
    """
    stated_task(config)
    if site not in list_sites(root):
        raise ConfigError(
            f"data.bags: {root} has no bags of {site}, the site that the certificate is of; it has "
            f"{', '.join(list_sites(root)) or 'none'}"
        )
    return counted(config, root, site)
