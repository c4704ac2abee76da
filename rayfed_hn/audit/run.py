"""A finished run as an auditor sees it: the bags, and what passed between sites and server.

The auditor stands at the sites: it knows all bags, and which of them were trained on. The adversary
whom it plays is the honest but curious server, which knows every network that it sent and every
update that came back, and tries to learn of the bags.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.data import SiteBag, SiteData
from rayfed_hn.federation.exchanges import FOLDER, Exchange, ExchangeFiles
from rayfed_hn.federation.experiment import Outcome
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.replay import replay, replay_of
from rayfed_hn.federation.server import Server
from rayfed_hn.loading import load
from rayfed_hn.models.standardise import Standardisation, agree, measure

KEPT = "kept by the run"
SAME = "made again from the seed of the run, which ended in the same bits"
OTHER = (
    "made again with the settings of the run; not its own messages, since its noise or the order "
    "of its answers cannot be repeated. Train with run.keep_messages=true to attack those"
)
ALLOWED = ("audit.", "data.bags=")  # of the words that may be given


@dataclass(frozen=True, eq=False)
class AuditedSite:
    """One participant.

    Attributes:
        data: Its bags, on the scale that its network sees.
        exchanges: What is attacked of its messages, by turn.
    """

    data: SiteData
    exchanges: tuple[Exchange, ...]

    @property
    def name(self) -> str:
        return self.data.name


@dataclass(frozen=True, eq=False)
class AuditedRun:
    """What is attacked.

    Attributes:
        plan: Of the run.
        sites: By name, those with at least one exchange.
        source: Where the messages come from, in words.
    """

    plan: Plan
    sites: Mapping[str, AuditedSite]
    source: str

    @property
    def num_exchanges(self) -> int:
        """Of all sites."""
        return sum(len(site.exchanges) for site in self.sites.values())


def spread(number: int, of: int) -> tuple[int, ...]:
    """At most ``number`` of the numbers below ``of``, spread evenly, the first and last included.

    Of a single one, the last.
    """
    if number == 1:
        return (of - 1,)
    return tuple(sorted(set(np.linspace(0, of - 1, min(number, of)).round().astype(int).tolist())))


def read_run(
    folder: Path,
    words: Sequence[str] = (),
    on_version: Callable[[int, int], object] = lambda done, total: None,
) -> AuditedRun:
    """Read a run directory of train, or make the run again where it kept no messages.

    Args:
        folder: The run directory.
        words: ``audit.key=value``, and ``data.bags`` where the bags have moved.
        on_version: Called after every version that is made again.

    Raises:
        ConfigError: It is no finished run of train, or a word cannot be given.
        DataError: Bags or files are not what they were.
    """
    config = _configuration(folder, words)
    if config.data.bags is None or not Path(config.data.bags).is_dir():
        raise ConfigError(
            f"data.bags: {config.data.bags} is not there; give the bag store of the run, as "
            "data.bags=FOLDER"
        )
    summary = _summary(folder)
    plan = make_plan(config, Path(config.data.bags).resolve())
    scale = _same_bags(folder, plan)
    messages = ExchangeFiles(folder / FOLDER)
    if messages.sites():
        return audited(
            plan, {name: _kept(messages, name, plan) for name in _names(plan)}, KEPT, scale
        )
    heard, server = make_again(plan, on_version)
    digest = Outcome(server, (), (), (), 0.0, None).digest
    source = SAME if digest == summary.get("digest") else OTHER
    return audited(plan, heard, source, server.standardisation)


def make_again(
    plan: Plan, on_version: Callable[[int, int], object] = lambda done, total: None
) -> tuple[dict[str, tuple[Exchange, ...]], Server]:
    """Make a run again in this process, and keep what ``audit`` attacks.

    Returns:
        The exchanges of every site that had any, by turn, and the server at its last version.
    """
    total, heard = plan.config.rounds.num_versions, Heard(plan)
    server = replay(replay_of(plan), heard.tell, lambda report: on_version(report.version, total))
    return heard.chosen(), server


class Heard:
    """Exchanges of every attacked site, spread evenly over a run, of which few are held at a time.

    Args:
        plan: Of the run.
    """

    def __init__(self, plan: Plan) -> None:
        self._most = plan.config.audit.exchanges
        self._by_site = {name: _Thinned(self._most) for name in _names(plan)}

    def tell(self, exchange: Exchange) -> None:
        """Take one."""
        if exchange.site in self._by_site:
            self._by_site[exchange.site].add(exchange)

    def chosen(self) -> dict[str, tuple[Exchange, ...]]:
        """Those of every site that had any, by turn."""
        return {
            name: tuple(own.kept[i] for i in spread(self._most, len(own.kept)))
            for name, own in self._by_site.items()
            if own.kept
        }


class _Thinned:
    """Exchanges of a site, at most twice as many as are wanted."""

    def __init__(self, most: int) -> None:
        self.kept: list[Exchange] = []
        self._most, self._every, self._heard = most, 1, 0

    def add(self, exchange: Exchange) -> None:
        if self._heard % self._every == 0:
            self.kept.append(exchange)
        self._heard += 1
        if len(self.kept) > 2 * self._most:
            del self.kept[1::2]
            self._every *= 2


def _kept(messages: ExchangeFiles, site: str, plan: Plan) -> tuple[Exchange, ...]:
    files = messages.of(site)
    if not files:
        return ()
    chosen = spread(plan.config.audit.exchanges, len(files))
    return tuple(messages.read(files[i]) for i in chosen)


def audited(
    plan: Plan,
    exchanges: Mapping[str, Sequence[Exchange]],
    source: str,
    scale: Standardisation | None = None,
) -> AuditedRun:
    """What is attacked of a run.

    Args:
        plan: Of the run.
        exchanges: Of every site that is attacked.
        source: Where they come from, in words.
        scale: What the sites agreed on; None: it is measured again where they did.

    Raises:
        DataError: There is nothing to attack.
    """
    data = on_scale(plan, scale)
    sites = {
        name: AuditedSite(data[name], tuple(sorted(own, key=lambda exchange: exchange.turn)))
        for name, own in sorted(exchanges.items())
        if own
    }
    if not sites:
        raise DataError("no update of the attacked sites is known; give audit.sites others")
    return AuditedRun(plan, sites, source)


def on_scale(plan: Plan, scale: Standardisation | None = None) -> dict[str, SiteData]:
    """The bags of every participant, on the scale that its network sees."""
    found = {name: plan.site_data(name) for name in plan.participants}
    if plan.standardise == "none":
        return found
    if plan.standardise == "site":
        own = {name: agree([measured(data.train)]) for name, data in found.items()}
        return {name: data.standardised(own[name]) for name, data in found.items()}
    if scale is None:
        scale = agree([measured(data.train) for data in found.values()])
    return {name: data.standardised(scale) for name, data in found.items()}


def measured(bags: Sequence[SiteBag]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every feature as stored, float64 (D,)."""
    return measure(np.concatenate(bag.parts()) for bag in bags)


def _names(plan: Plan) -> tuple[str, ...]:
    asked = plan.config.audit.sites
    strangers = sorted(set(asked) - set(plan.participants))
    if strangers:
        raise ConfigError(
            f"audit.sites: {', '.join(strangers)} took no part in the run; it has "
            f"{', '.join(plan.participants)}"
        )
    return tuple(asked) or plan.participants


def _configuration(folder: Path, words: Sequence[str]) -> Config:
    for word in words:
        if not word.startswith(ALLOWED):
            raise ConfigError(
                f"'{word}': audit attacks the run as it is; only audit.key=value, and data.bags "
                "where the bags have moved, can be given"
            )
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"RUN: {folder} has no config.yaml; give the run.dir of a train")
    return load(folder / "config.yaml", words)


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"RUN: {folder} has no summary.json; give the run.dir of a train that has finished"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); run train again") from None
    if not isinstance(summary, dict) or summary.get("verb") != "train":
        raise ConfigError(f"RUN: {folder} is no run of train, and has no messages to attack")
    return summary


def _same_bags(folder: Path, plan: Plan) -> Standardisation | None:
    """Refuse bags that are not those of the run; return the scale that its sites agreed on."""
    path = folder / "checkpoints" / "last.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            names = [name for name in file.keys() if name.startswith("input.")]  # noqa: SIM118
            scale = Standardisation.of({name: file.get_tensor(name) for name in names})
    except (SafetensorError, OSError) as error:
        raise DataError(f"{folder}: its checkpoint cannot be read ({error})") from None
    if about.get("data") != plan.digest:
        raise DataError(
            "data.bags: the bag store is not what it was when the run began: slides that were not "
            "trained on would count as trained on. Train again, then audit"
        )
    return scale
