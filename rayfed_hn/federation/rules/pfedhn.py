"""pFedHN as published, for comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    stack,
)
from rayfed_hn.federation.rules.optimisers import Optimiser, RowState, clip_norm
from rayfed_hn.models.site_features import MLP, normal_embeddings, uniform
from rayfed_hn.seeds import derive

HIDDEN, DEPTH = 100, 3  # pFedHN's hidden width and number of hidden layers
CLIP = 50.0  # of the joint norm of all gradients


class PFedHN(Rule):
    """Shamsian et al. 2021, algorithm 1: theta_i = h(v_i; phi).

    v_i in R^V with V = int(1 + K/4); an MLP m (Linear, then three times ReLU and Linear, all of
    width 100); one linear head for every tensor, together one map theta = m(v) W + b. An update u_i
    is pulled back through the *current* hypernetwork, also when it is late, so nothing of an older
    version has to be kept:

        phi <- phi - eta clip(1/B sum_k w_k s(tau_k) J_phi(v_k)^T u_k)
        v_k <- v_k - eta s(tau_k) J_v(v_k)^T u_k

    with SGD (rate 1e-2, momentum .9, weight decay 1e-3) and the joint norm of the gradients clipped
    to 50. One site a step (buffer 1, one site at a time) is the paper. Unlike the authors' code,
    the rows of sites that did not take part stay where they are.

    With ``chunks`` > 1 the network is made in so many pieces by one smaller head that also sees a
    learned embedding of the piece (von Oswald et al. 2020): less memory, more sharing.

    Args:
        size: P.
        num_sites: K.
        dim: V (default: int(1 + K/4)).
        optimiser: Moves phi and the rows of v.
        chunks: Pieces.
        seed: The run's.
    """

    def __init__(
        self,
        size: int,
        num_sites: int,
        dim: int | None,
        optimiser: Optimiser,
        chunks: int,
        seed: int,
    ) -> None:
        dim = dim or int(1 + num_sites / 4)
        self._size, self._chunks = size, chunks
        width = -(-size // chunks)
        self._rows = RowState(normal_embeddings(num_sites, dim, seed), optimiser)
        self._mlp = MLP((dim * (2 if chunks > 1 else 1), *[HIDDEN] * (DEPTH + 1)), seed)
        generator = torch.Generator().manual_seed(derive(seed, "heads"))
        tensors = self._mlp.tensors | {
            "head": uniform((HIDDEN, width), HIDDEN, generator),
            "bias": uniform((width,), HIDDEN, generator),
        }
        if chunks > 1:
            tensors["chunks"] = torch.randn(chunks, dim, generator=generator)
        self._shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._phi = {n: RowState(t.reshape(1, -1), optimiser) for n, t in tensors.items()}

    def parameters_for(self, site: int) -> np.ndarray:
        return self.generate([site])[0].numpy().copy()

    def shared(self) -> np.ndarray | None:
        """The mean of the sites' networks."""
        return self.generate(list(range(len(self._rows.table)))).mean(dim=0).numpy()

    def site_embeddings(self) -> SiteEmbeddings | None:
        """The rows v_i."""
        return SiteEmbeddings(self._rows.table.double().numpy(), learned=True, by_chance=True)

    def generate(self, sites: list[int]) -> Tensor:
        """Networks of some sites, float32 (S, P)."""
        return self._make(self._rows.table[sites], self._tensors())

    def _make(self, rows_SV: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        features = self._features(rows_SV, tensors)
        flat = (features @ tensors["head"] + tensors["bias"]).reshape(len(rows_SV), -1)
        return flat[:, : self._size]

    def generator(self) -> Generator:
        tensors = {name: tensor.clone() for name, tensor in self._tensors().items()}
        return Generator(
            self._rows.table.mean(dim=0), lambda v_V: self._make(v_V[None], tensors)[0]
        )

    def apply(self, contributions: Sequence[Contribution], *, complete: bool, among: int) -> None:
        sites, updates_BP = stack(contributions)
        count = len(contributions)
        tensors = self._tensors()
        late_B = torch.tensor([c.discount for c in contributions])
        share_B = late_B * torch.tensor([c.weight for c in contributions]) / count
        pieces_BCW = self._pieces(updates_BP.float())
        rows_BV = self._rows.table[sites]
        small = {n: t for n, t in tensors.items() if n not in ("head", "bias")}
        features, pull = vjp(self._features, rows_BV, small)[:2]
        cotangent = pieces_BCW @ tensors["head"].T
        # Pulled back in two: what all share carries the weights and 1/B, the rows do not.
        _, phi = pull(share_B[:, None, None] * cotangent)
        rows, _ = pull(late_B[:, None, None] * cotangent)
        shared_BCW = share_B[:, None, None] * pieces_BCW
        phi["head"] = torch.einsum("bch,bcw->hw", features, shared_BCW)
        phi["bias"] = shared_BCW.sum(dim=(0, 1))
        names = list(self._phi)
        clipped = clip_norm([phi[name] for name in names] + [rows / count], CLIP)
        for name, gradient in zip(names, clipped, strict=False):
            self._phi[name].step([0], gradient.reshape(1, -1))
        unique = sorted(set(sites))
        of_site = torch.tensor([[float(s == u) for s in sites] for u in unique])
        self._rows.step(unique, of_site @ clipped[-1] * count)

    def _features(self, rows_SV: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """M of every site and piece, (S, C, H)."""
        if self._chunks == 1:
            return self._mlp(tensors, rows_SV)[:, None, :]
        sites_SCV = rows_SV[:, None, :].expand(-1, self._chunks, -1)
        chunks_SCV = tensors["chunks"][None].expand(len(rows_SV), -1, -1)
        return self._mlp(tensors, torch.cat([sites_SCV, chunks_SCV], dim=2))

    def _pieces(self, vectors_BP: Tensor) -> Tensor:
        """Cut vectors (B, P) into pieces (B, C, W), the last one filled up with zeros."""
        missing = self._chunks * self._shapes["bias"][0] - self._size
        padded = torch.nn.functional.pad(vectors_BP, (0, missing))
        return padded.reshape(len(vectors_BP), self._chunks, -1)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: state.table.view(self._shapes[name]) for name, state in self._phi.items()}

    def state(self) -> dict[str, Tensor]:
        parts = [self._rows.state("site_embeddings")]
        parts += [state.state(f"phi.{name}") for name, state in self._phi.items()]
        return {name: tensor for part in parts for name, tensor in part.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        same_shape(state, "site_embeddings", self._rows.table)
        self._rows.load_state(state, "site_embeddings")
        for name, own in self._phi.items():
            own.load_state(state, f"phi.{name}")
