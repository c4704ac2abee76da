"""The ways in which a new site can come to a network, from the same labelled bags.

Shapes: P parameters, V embedding, B bags, E evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from rayfed_hn.config import OnboardConfig
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.onboarding.origin import Origin
from rayfed_hn.federation.rules import Generator
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.standardise import Standardisation, agree, measure
from rayfed_hn.models.training import train_locally
from rayfed_hn.seeds import derive

ZERO_SHOT, NEAREST, FEDAVG = "zero-shot", "nearest site", "FedAvg"
EMBEDDING, EMBEDDING_FT = "embedding only", "embedding + fine-tuning"
BASE_FT, FEDAVG_FT, ISOLATED = "base + fine-tuning", "FedAvg + fine-tuning", "isolated"
TRAINED = (BASE_FT, FEDAVG_FT, ISOLATED)  # what the recommended mixture is made of

WORDS = {
    ZERO_SHOT: "the federation's base, as it is",
    NEAREST: "the network of the site whose network has the lowest loss on the labelled bags",
    FEDAVG: "the model of the FedAvg run, as it is",
    EMBEDDING: "the frozen hypernetwork with an embedding fitted to the labelled bags",
    EMBEDDING_FT: "that network, trained further on the labelled bags",
    BASE_FT: "the base, trained further",
    FEDAVG_FT: "the model of the FedAvg run, trained further",
    ISOLATED: "a fresh network on the labelled bags, its own scale: as if there were no federation",
}


@dataclass(frozen=True, eq=False)
class Fitted:
    """One network for the new site.

    Attributes:
        network_P: float32 (P,).
        scale: Of the features that it is for.
        embedding_V: What the hypernetwork made it from, where it did.
    """

    network_P: Tensor
    scale: Standardisation | None
    embedding_V: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Arms:
    """Fits all arms.

    Attributes:
        origin: The federation that the site joins.
        fedavg: The same federation under FedAvg, if there is such a run.
        config: Steps and rates.
        seed: The run's.
        site: The new site.
        pool: Bags that are not under test, whatever is known of their labels: where every site
            scales features by itself, this one does by these.
    """

    origin: Origin
    fedavg: Origin | None
    config: OnboardConfig
    seed: int
    site: str
    pool: tuple[SiteBag, ...] = ()

    def fit(
        self, bags: Sequence[SiteBag], draw: int, only: Sequence[str] | None = None
    ) -> dict[str, Fitted]:
        """One network an arm; without labelled bags only those that need none.

        Args:
            bags: The labelled ones.
            draw: Tells repetitions apart: everything random follows from (seed, site, draw).
            only: Which of ``TRAINED``; None: all arms.
        """
        starts = self._starts(bags)
        if only is not None:
            return {arm: self._tuned(starts[arm], bags, draw) for arm in only}
        arms = {ZERO_SHOT: starts[BASE_FT]}
        if FEDAVG_FT in starts:
            arms[FEDAVG] = starts[FEDAVG_FT]
        if not bags:
            return arms
        scale = starts[BASE_FT].scale
        arms[NEAREST] = Fitted(self._nearest(bags, scale), scale)
        if self.origin.generator is not None:
            made = self._embedded(bags, scale, self.origin.generator)
            tuned = self._tuned(made, bags, draw)
            arms |= {EMBEDDING: made, EMBEDDING_FT: replace(tuned, embedding_V=made.embedding_V)}
        return arms | {arm: self._tuned(start, bags, draw) for arm, start in starts.items()}

    def evidence(self, fitted: Fitted, bags: Sequence[SiteBag]) -> np.ndarray:
        """What a network says of bags, float32 (B, E)."""
        origin = self.origin
        scaled = _on(bags, fitted.scale)
        return score_bags(origin.model, fitted.network_P, scaled, origin.task).evidence_BE

    def _starts(self, bags: Sequence[SiteBag]) -> dict[str, Fitted]:
        """What the trained arms begin with."""
        origin, fedavg = self.origin, self.fedavg
        starts = {
            BASE_FT: Fitted(origin.base, self._scale(origin, bags)),
            ISOLATED: Fitted(origin.initial, _own_scale(origin, bags)),
        }
        if fedavg is not None:
            starts[FEDAVG_FT] = Fitted(fedavg.base, self._scale(fedavg, bags))
        return starts

    def _scale(self, origin: Origin, bags: Sequence[SiteBag]) -> Standardisation | None:
        asked = origin.config.model.standardise
        return origin.scale if asked != "site" else _own_scale(origin, self.pool or bags)

    def _nearest(self, bags: Sequence[SiteBag], scale: Standardisation | None) -> Tensor:
        origin, scaled = self.origin, _on(bags, scale)
        losses = {
            site: score_bags(origin.model, network_P, scaled, origin.task).loss
            for site, network_P in origin.networks.items()
        }
        return origin.networks[min(losses, key=lambda site: losses[site])]

    def _embedded(
        self, bags: Sequence[SiteBag], scale: Standardisation | None, generator: Generator
    ) -> Fitted:
        """Fit the embedding alone, by Adam on the mean loss of all labelled bags.

        Shamsian et al. 2021, section 5.3, describes it; the hypernetwork does not move.
        """
        model, task = self.origin.model, self.origin.task
        layout = ParameterLayout.of(model)
        embedding_V = generator.start_V.clone().requires_grad_(True)
        adam = torch.optim.Adam([embedding_V], lr=self.config.embedding_rate)
        scaled = _on(bags, scale)
        for _ in range(self.config.embedding_steps):
            network_P = generator.make(embedding_V)
            # One bag at a time: the graphs of all together would take several times their size.
            leaf_P = network_P.detach().requires_grad_(True)
            for bag in scaled:
                logits_O, _ = functional_call(model, layout.unflatten(leaf_P), (bag.tensor(),))
                (task.target(bag).loss(logits_O) / len(scaled)).backward()
            adam.zero_grad()
            network_P.backward(leaf_P.grad)
            adam.step()
        fitted_V = embedding_V.detach()
        return Fitted(generator.make(fitted_V).detach(), scale, fitted_V)

    def _tuned(self, start: Fitted, bags: Sequence[SiteBag], draw: int) -> Fitted:
        origin = self.origin
        trained = train_locally(
            origin.model,
            start.network_P.detach(),
            _on(bags, start.scale),
            origin.config.training,
            task=origin.task,
            learning_rate=origin.learning_rate,
            num_steps=self.config.steps,
            seed=derive(self.seed, "onboarding", self.site, draw),
        )
        return Fitted(trained.parameters, start.scale)


def _own_scale(origin: Origin, bags: Sequence[SiteBag]) -> Standardisation | None:
    if origin.config.model.standardise == "none" or not bags:
        return None
    return agree([measure(np.concatenate(bag.parts()) for bag in bags)])


def _on(bags: Sequence[SiteBag], scale: Standardisation | None) -> list[SiteBag]:
    return [replace(bag, standardisation=scale) for bag in bags]
