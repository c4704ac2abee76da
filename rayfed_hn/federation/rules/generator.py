"""Base plus generator: the hypernetwork that this project recommends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import vjp

from rayfed_hn.federation.rules.base import (
    Contribution,
    Generator,
    Rule,
    SiteEmbeddings,
    same_shape,
)
from rayfed_hn.federation.rules.blocks import blocks, generate, places, total
from rayfed_hn.federation.rules.optimisers import Optimiser, RowState
from rayfed_hn.federation.rules.robust import Trimming, combine
from rayfed_hn.models.site_features import MLP, normal_embeddings, unit_embeddings

MLP_HIDDEN = 100  # pFedHN's width


class SiteFeatures:
    """h_i, a unit vector for every site: fixed, learned, or learned through an MLP.

    Fixed ones are orthonormal where the dimension allows, so that the step of a site is known
    exactly. Learning them quickly makes all rows alike and costs accuracy; learning them slowly was
    found to be harmless and to add nothing. Hence the default.

    Args:
        kind: fixed; learned (h_i = v_i / |v_i|); or mlp (h_i = m(v_i) / |m(v_i)|).
        num_sites: K.
        dim: E.
        rate: Adam's learning rate of whatever is learned.
        seed: The run's.
    """

    def __init__(
        self,
        kind: Literal["fixed", "learned", "mlp"],
        num_sites: int,
        dim: int,
        rate: float,
        seed: int,
    ) -> None:
        adam = Optimiser("adam", rate)
        self._fixed_KE = unit_embeddings(num_sites, dim, seed)
        self._rows: RowState | None = None
        self._mlp: MLP | None = None
        self._weights: dict[str, RowState] = {}
        if kind == "learned":
            self._rows = RowState(self._fixed_KE.float(), adam)
        elif kind == "mlp":
            self._rows = RowState(normal_embeddings(num_sites, dim, seed), adam)
            self._mlp = MLP((dim, MLP_HIDDEN, MLP_HIDDEN, dim), seed)
            self._weights = {
                name: RowState(tensor.reshape(1, -1), adam)
                for name, tensor in self._mlp.tensors.items()
            }

    def __call__(self, sites: list[int]) -> Tensor:
        """Rows h_i, float64 (len(sites), E)."""
        if self._rows is None:
            return self._fixed_KE[sites]
        return self._map(self._rows.table[sites], self._tensors()).double()

    def embeddings(self) -> Tensor:
        """What features are made from: v_i of an MLP, and h_i itself without, float32 (K, V)."""
        if self._mlp is None or self._rows is None:
            return self(list(range(len(self._fixed_KE)))).float()
        return self._rows.table.clone()

    def frozen(self) -> Callable[[Tensor], Tensor]:
        """From any embedding (V,) to its features (E,) as of now, differentiable."""
        if self._mlp is None:
            return lambda embedding_V: embedding_V
        tensors = {name: tensor.clone() for name, tensor in self._tensors().items()}
        return lambda embedding_V: self._map(embedding_V[None], tensors)[0]

    @property
    def learned(self) -> bool:
        """Whether anything of them is learned."""
        return self._rows is not None

    @property
    def began_orthonormal(self) -> bool:
        """Whether all rows were equally far apart before anything was learned."""
        num_sites, dim = self._fixed_KE.shape
        return self._mlp is None and dim >= num_sites

    def learn(self, sites: list[int], gradient_SE: Tensor) -> None:
        """Move what is learned by the gradient with respect to the rows of different sites."""
        if self._rows is None:
            return
        tensors = self._tensors()
        values, pull = vjp(self._map, self._rows.table[sites], tensors)[:2]
        rows, weights = pull(gradient_SE.to(values.dtype))
        self._rows.step(sites, rows)
        for name, state in self._weights.items():
            state.step([0], weights[name].reshape(1, -1))

    def _map(self, rows_SV: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        values = rows_SV if self._mlp is None else self._mlp(tensors, rows_SV)
        return values / values.norm(dim=1, keepdim=True)

    def _tensors(self) -> dict[str, Tensor]:
        shapes = {} if self._mlp is None else self._mlp.tensors
        return {name: self._weights[name].table.view(t.shape) for name, t in shapes.items()}

    def state(self) -> dict[str, Tensor]:
        if self._rows is None:
            return {"site_embeddings": self._fixed_KE}
        parts = [self._rows.state("site_embeddings")]
        parts += [state.state(f"mlp.{name}") for name, state in self._weights.items()]
        return {name: tensor for part in parts for name, tensor in part.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self._rows is None:
            self._fixed_KE = same_shape(state, "site_embeddings", self._fixed_KE)
            return
        self._rows.load_state(state, "site_embeddings")
        for name, own in self._weights.items():
            own.load_state(state, f"mlp.{name}")


class Hypernetwork(Rule):
    """Base plus generator, in the manner of Lin et al. 2023 on pFedHN (Shamsian et al. 2021).

    theta_i = theta_0 + h_i W with |h_i| = 1; W starts at zero. A complete round of updates u_i does

        theta_0 <- theta_0 - mean_i u_i
        W       <- W - rho s sum_i h_i (u_i - mean u)^T,   s = min(1, 1 / (rho lambda_max(H H^T)))

    The second line is pFedHN's pull-back of the updates through the generator, centred so that
    theta_0 stays the mean of the sites' networks and *summed*, not averaged, so that the step of a
    site does not shrink with their number. With orthonormal h_i the step of a site is the mean
    update plus rho times its own deviation from it: rho = 0 is FedAvg with equal weights, rho = 1
    isolated training. s keeps the sum stable where rows overlap (fewer dimensions than sites).

    Where the updates of others are not at hand, the uncentred twin of the same step is taken:

        theta_0 <- theta_0 - (1 - rho)/M sum_k w_k s(tau_k) u_k,    W <- W - rho s sum_k h_k u_k^T

    M is the size of the cohort where a version waits for it, so that rho = 0 is FedAvg and rho = 1
    isolated training there too; where nobody waits it is K, the weight that each has in a complete
    round.

    Lateness discounts the shared base only: what a site learned for itself is not out of date.

    With ``trimming`` the terms of theta_0 are combined without their extremes, deviations are from
    that middle, and what is shared is the middle of the sites' networks. What a site says of itself
    still moves its own row: where rows are orthonormal, its own network and no other.

    Args:
        initial: theta_0 at the start, float32 (P,).
        num_sites: K.
        features: Gives h_i.
        dim: E, their length.
        rho: Share of what sites do not agree on that stays personal.
        discount_all: Whether lateness discounts the personal part too.
        trimming: Which terms of every shared parameter do not count.
    """

    def __init__(
        self,
        initial: Tensor,
        num_sites: int,
        features: SiteFeatures,
        dim: int,
        rho: float,
        discount_all: bool = False,
        trimming: Trimming | None = None,
    ) -> None:
        self.theta_0 = initial.detach().clone().to(torch.float32)
        self.head_EP = torch.zeros(dim, self.theta_0.numel(), device=initial.device)
        self.features = features
        self.rho = rho
        self._num_sites = num_sites
        self._discount_all = discount_all
        self._trimming = trimming

    @property
    def size(self) -> int:
        return self.theta_0.numel()

    def networks(self, sites: Sequence[int]) -> list[np.ndarray]:
        return generate(self.theta_0, self._on_device(self.features(list(sites))), self.head_EP)

    def shared(self) -> np.ndarray | None:
        """The mean of the sites' networks; theta_0 as long as rounds are complete."""
        sites = list(range(self._num_sites))
        rows_KE = self.features(sites)
        if self._trimming is None:
            mean_1E = self._on_device(rows_KE.mean(dim=0)[None])
            return generate(self.theta_0, mean_1E, self.head_EP)[0]
        shared_P, rows_KE = np.empty(self.size, np.float32), self._on_device(rows_KE)
        even_K = torch.full((len(sites),), 1 / len(sites), dtype=torch.float64)
        for place in places(self.size, len(sites), self.head_EP.device):
            networks_KW = torch.addmm(self.theta_0[place], rows_KE, self.head_EP[:, place])
            shared_P[place] = combine(even_K, sites, networks_KW, self._trimming).cpu().numpy()
        return shared_P

    def _on_device(self, rows: Tensor) -> Tensor:
        return rows.to(self.head_EP.device, torch.float32)

    def site_embeddings(self) -> SiteEmbeddings | None:
        """The rows h_i."""
        rows_KE = self.features(list(range(self._num_sites)))
        return SiteEmbeddings(
            rows_KE.numpy(), self.features.learned, not self.features.began_orthonormal
        )

    def generator(self) -> Generator:
        """theta_0 + h W; h of a new site is not held to length 1, so that 0 is the base."""
        head_EP, theta_0 = (t.to("cpu", copy=True) for t in (self.head_EP, self.theta_0))
        features = self.features.frozen()
        start_V = self.features.embeddings().mean(dim=0)
        return Generator(start_V, lambda v_V: theta_0 + features(v_V) @ head_EP)

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        sites = [c.site for c in contributions]
        rows_BE = self.features(sites)
        base_B, late_B = self._shares(contributions, complete, among)
        vectors, device = [c.update for c in contributions], self.head_EP.device
        scales = [c.scale for c in contributions]
        if self.rho == 0 and self._trimming is None:
            scale_B = torch.tensor(scales, dtype=torch.float64)
            self.theta_0.sub_(total(scale_B * base_B, vectors, device))
            return
        even_B = torch.full_like(base_B, 1 / len(sites))
        # A mean is subtracted from the rows, which are small; a middle has to be from the updates.
        centred = complete and self._trimming is None
        # W <- W - step H^T (own U): the small product first, so that nothing of P rows is made.
        mix_EB = self._on_device(-self._step(rows_BE) * _own(rows_BE, late_B, centred).T)
        pulled_BE = torch.zeros(rows_BE.shape, device=device)
        for place, updates_BW in blocks(vectors, device, scales):
            head_EW = self.head_EP[:, place]
            self.theta_0[place].sub_(combine(base_B, sites, updates_BW, self._trimming))
            if self.rho == 0:
                continue
            if complete and not centred:
                updates_BW -= combine(even_B, sites, updates_BW, self._trimming).float()
            if self.features.learned:  # pulled back through the old head, as in one step
                pulled_BE += updates_BW @ head_EW.T
            head_EW.addmm_(mix_EB, updates_BW)
        if self.features.learned:
            unique = sorted(set(sites))
            of_site = torch.tensor([[float(s == u) for s in sites] for u in unique])
            self.features.learn(unique, of_site @ _own(pulled_BE.cpu(), late_B, centred).float())

    def _shares(
        self, contributions: Sequence[Contribution], complete: bool, among: int
    ) -> tuple[Tensor, Tensor]:
        """What of each update moves theta_0, and what lateness leaves of its own, float64 (B,)."""
        base_B = torch.tensor([c.discount * c.weight for c in contributions], dtype=torch.float64)
        late = [c.discount if self._discount_all else 1.0 for c in contributions]
        share = 1 / len(contributions) if complete else (1 - self.rho) / among
        return share * base_B, torch.tensor(late, dtype=torch.float64)

    def _step(self, rows_BE: Tensor) -> float:
        # Both products have the same largest eigenvalue; the smaller one is cheap for many sites.
        gram = rows_BE @ rows_BE.T if len(rows_BE) < rows_BE.shape[1] else rows_BE.T @ rows_BE
        return min(self.rho, 1 / float(torch.linalg.eigvalsh(gram)[-1]))

    def state(self) -> dict[str, Tensor]:
        return {"theta_0": self.theta_0, "head": self.head_EP, **self.features.state()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        device = self.head_EP.device
        self.theta_0 = same_shape(state, "theta_0", self.theta_0).to(device, copy=True)
        self.head_EP = same_shape(state, "head", self.head_EP).to(device, copy=True)
        self.features.load_state(state)


def _own(rows_BE: Tensor, late_B: Tensor, centred: bool) -> Tensor:
    """The rows of what is each site's own, float64: centred on their mean, or discounted.

    Centring is symmetric: applied to the rows of H it is applied to the updates.
    """
    rows_BE = rows_BE.double()
    return rows_BE - rows_BE.mean(dim=0) if centred else late_B[:, None] * rows_BE
