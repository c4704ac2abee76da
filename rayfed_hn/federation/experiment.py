"""One training run from a configuration: who takes part, with what network, under which rule.

A ``Plan`` is made once, before anything starts, from the configuration and the bag store's
metadata; it builds the server and every site, wherever they will live.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rayfed_hn.bags import set_aside as unmade
from rayfed_hn.bags.splits import check_leakage
from rayfed_hn.bags.store import SiteBags, list_sites, read_recipe, recipe_digest
from rayfed_hn.bags.tile_filter import tile_filter
from rayfed_hn.config import Config
from rayfed_hn.errors import DataError, SetAside
from rayfed_hn.federation.data import Folds, find_classes, load_site, open_sites, pool
from rayfed_hn.federation.loop import Executor, InProcessExecutor, evaluate_sites, run_federation
from rayfed_hn.federation.messages import Request, Scores, SiteLost, failure_message
from rayfed_hn.federation.rules import make_rule
from rayfed_hn.federation.server import Server, VersionReport
from rayfed_hn.federation.site import Site, note_failure
from rayfed_hn.models.mil import initial_parameters, learning_rate, make_model, widths
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.privacy.mechanisms import PaperNoise
from rayfed_hn.seeds import derive

POOLED = "pooled"


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        config: The run's configuration.
        root: The bag store.
        hospitals: Sites with bags to train on, sorted.
        set_aside: Sites of which something, or everything, cannot be used, with the reason.
        classes: Negative and positive label.
        feature_dim: D.
        num_bags: Training, validation and test bags of every hospital.
        num_unnamed: Bags that the tables of ``data.splits`` put into no part of this fold.
        digest: Of what decides the division of the cases: recipe, slides, cases, labels, tables.
    """

    config: Config
    root: Path
    hospitals: tuple[str, ...]
    set_aside: tuple[tuple[str, SetAside], ...]
    classes: tuple[str, str]
    feature_dim: int
    num_bags: Mapping[str, tuple[int, int, int]]
    num_unnamed: int
    digest: str

    @property
    def pooled(self) -> bool:
        """Whether all bags are put in one place."""
        return self.config.method.name == "pooled"

    @property
    def participants(self) -> tuple[str, ...]:
        """Who answers requests: the hospitals, or a single pooled site."""
        return (POOLED,) if self.pooled else self.hospitals

    def model(self) -> nn.Module:
        """The site network (shapes only)."""
        return make_model(self.feature_dim, len(self.classes), self.config.model)

    @property
    def learning_rate(self) -> float:
        """Of the local optimiser, as configured or by the network's width."""
        hidden, _ = widths(self.feature_dim, self.config.model)
        return self.config.training.learning_rate or learning_rate(hidden)

    def initial(self) -> Tensor:
        """The network that everybody starts from, float32 (P,)."""
        seed = derive(self.config.run.seed, "initial parameters")
        return initial_parameters(ParameterLayout.of(self.model()), seed)

    def server(self) -> Server:
        """The server at version 0."""
        rule = make_rule(self.config, self.initial(), len(self.participants))
        return Server(rule, self.participants, self.config.rounds.num_versions)

    def site(self, name: str, folder: Path | None = None, device: str = "cpu") -> Site:
        """A participant with its bags.

        A pooled site takes as many steps as all hospitals together: every method visits bags
        equally often.
        """
        hospitals = self.hospitals if self.pooled else (name,)
        folds = Folds.of(self.config)
        opened = self._open(hospitals).values()
        data = [load_site(bags, self.classes, folds) for bags in opened]
        return Site(
            pool(data, POOLED) if self.pooled else data[0],
            self.model(),
            self.config,
            learning_rate=self.learning_rate,
            num_steps=self.config.training.steps * len(hospitals),
            mechanism=self.mechanism(),
            log=self.log(name),
            folder=folder,
            device=device,
        )

    def mechanism(self) -> PaperNoise:
        """What sites do before release; nothing for the baselines in which nothing is released."""
        privacy = self.config.privacy
        shares = self.config.method.name not in ("local", "pooled")
        return PaperNoise(privacy.noise_scale if shares else 0.0, privacy.noise_source)

    def log(self, participant: str) -> Path:
        """A participant's own log, on its own ground and not in the run directory."""
        return self.root / ("" if self.pooled else f"site={participant}") / "site.log"

    def origins(self, participant: str) -> tuple[str, ...]:
        """The hospitals whose bags a participant scores."""
        return self.hospitals if self.pooled else (participant,)

    def _open(self, hospitals: Sequence[str]) -> dict[str, SiteBags]:
        return open_sites(self.root, hospitals, self.config.data)


def make_plan(config: Config, root: Path) -> Plan:
    """Check the bag store against the configuration.

    Raises:
        DataError: Cases shared by sites, labels that are not two classes, features of different
            lengths, tables of splits that do not fit, or no site with anything to train on.
        ConfigError: There is no such fold.
    """
    folds = Folds.of(config)
    sites = open_sites(root, list_sites(root), config.data)
    entries = {name: bags.entries for name, bags in sites.items()}
    check_leakage(entries)
    emptied = [name for bags in sites.values() for name in bags.emptied]
    folds.check(entries, [*emptied, *(entry.slide_id for entry in unmade.list_all(root))])
    labels = [entry.label for bags in sites.values() for entry in bags.entries]
    classes = find_classes(labels, config.data.positive_label)
    dims = {name: bags.feature_dim for name, bags in sites.items()}
    if len(set(dims.values())) != 1:
        raise DataError(f"sites have features of different lengths: {dims}; embed them alike")
    num_bags = {name: _num_bags(folds, bags) for name, bags in sites.items()}
    idle = [name for name, (num_train, _, _) in num_bags.items() if num_train == 0]
    hospitals = tuple(name for name in sorted(sites) if name not in idle)
    if not hospitals:
        raise DataError("no site has a case to train on; lower the number of folds")
    set_aside = (*_damaged(sites), *((name, _NO_TRAINING) for name in sorted(idle)))
    num_unnamed = len(labels) - sum(sum(numbers) for numbers in num_bags.values())
    dim, digest = next(iter(dims.values())), _digest(config, root, sites, folds)
    return Plan(config, root, hospitals, set_aside, classes, dim, num_bags, num_unnamed, digest)


_NO_TRAINING = SetAside(
    "the site has no case to train on in this fold",
    "give it more cases or lower the number of folds",
)


def _num_bags(folds: Folds, bags: SiteBags) -> tuple[int, int, int]:
    parts = folds.split(bags.entries)
    return len(parts.train), len(parts.validation), len(parts.test)


def _digest(config: Config, root: Path, sites: Mapping[str, SiteBags], folds: Folds) -> str:
    """Cheap, from metadata: what a continued run must find unchanged."""
    hasher = hashlib.sha256(recipe_digest(read_recipe(root)).encode())
    hasher.update(repr(tile_filter(config.data)).encode())
    hasher.update(folds.digest.encode())
    for name, bags in sorted(sites.items()):
        for e in bags.entries:
            hasher.update(repr((name, e.slide_id, e.case_id, e.label, e.num_tiles)).encode())
    return hasher.hexdigest()


def _damaged(sites: Mapping[str, SiteBags]) -> list[tuple[str, SetAside]]:
    remedy = "run rayfed-hn embed again: it finds such bags and makes them anew"
    return [
        (name, SetAside(f"{len(bags.unusable)} of its bags cannot be read", remedy))
        for name, bags in sorted(sites.items())
        if bags.unusable
    ]


class SiteHost:
    """Holds some participants of a plan: all of them in this process, or an actor's share.

    A participant whose bags cannot be read is not an error of the others: it answers every request
    with a failure message.

    Args:
        plan: The run.
        names: Which participants.
        folder: The run directory, for what sites keep; None keeps it in memory.
        device: Where to train.
        resume: Take up what the sites kept.
    """

    def __init__(
        self,
        plan: Plan,
        names: Sequence[str],
        folder: Path | None = None,
        device: str = "cpu",
        resume: bool = False,
    ) -> None:
        # One thread here and in every actor: results must not depend on the number of threads.
        torch.set_num_threads(1)
        self._sites: dict[str, Site] = {}
        self._failed: dict[str, bytes] = {}
        for name in names:
            try:
                own = None if folder is None else folder / "sites" / name
                self._sites[name] = plan.site(name, own, device)
                if resume:
                    self._sites[name].resume()
            except Exception as error:
                note_failure(plan.log(name))
                self._failed[name] = failure_message(error)

    def answer(self, request: Request) -> bytes:
        """A participant's answer."""
        failed = self._failed.get(request.site)
        return failed if failed is not None else self._sites[request.site].answer(request)


@dataclass(frozen=True)
class Outcome:
    """What a finished federation leaves behind.

    Attributes:
        server: At its last version.
        scores: Of every participant that could still answer.
        lost: Everybody who was lost, and when.
    """

    server: Server
    scores: tuple[Scores, ...]
    lost: tuple[SiteLost, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the final state: equal runs have equal ones."""
        hasher = hashlib.sha256()
        for name, tensor in sorted(self.server.rule.state().items()):
            hasher.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return hasher.hexdigest()


def run_in_process(
    plan: Plan, on_version: Callable[[VersionReport], object] = lambda report: None
) -> Outcome:
    """Train and evaluate without a cluster."""
    torch.set_num_threads(1)  # before the server computes anything
    server, executor = plan.server(), InProcessExecutor(SiteHost(plan, plan.participants))
    for report in run_federation(server, executor):
        on_version(report)
    return finish(plan, server, executor)


def finish(plan: Plan, server: Server, executor: Executor) -> Outcome:
    """Score the test bags and close the books."""
    scores, lost = evaluate_sites(server, executor)
    fitting = [s for s in scores if len(s.best_version_O) == len(plan.origins(s.site))]
    reason = "its answer was refused: scores of other hospitals than its own"
    odd = [SiteLost(s.site, s.version, reason) for s in scores if all(s is not f for f in fitting)]
    return Outcome(server, tuple(fitting), (*server.lost_before, *server.lost, *lost, *odd))
