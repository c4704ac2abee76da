"""pFedHN as published, for comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import vjp

from rayfed_hn.federation.rules.base import (
    BLOCK,
    Contribution,
    Generator,
    Rule,
    SiteEmbeddings,
    same_shape,
)
from rayfed_hn.federation.rules.optimisers import Optimiser, RowState
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
        sites, count = [c.site for c in contributions], len(contributions)
        late_B = torch.tensor([c.discount for c in contributions])
        share_B = late_B * torch.tensor([c.weight for c in contributions]) / count
        small = {n: t for n, t in self._tensors().items() if n not in ("head", "bias")}
        features_BCH, pull = vjp(self._features, self._rows.table[sites], small)[:2]
        cotangent_BCH, gram_NN = self._read(contributions)
        # Pulled back in two: what all share carries the weights and 1/B, the rows do not.
        _, phi = pull(share_B[:, None, None] * cotangent_BCH)
        rows, _ = pull(late_B[:, None, None] * cotangent_BCH)
        # What the head is moved by is shared_NH^T U; its norm follows from the products of U.
        shared_NH = (share_B[:, None, None] * features_BCH).flatten(0, 1)
        bias_N = share_B.repeat_interleave(self._chunks)
        weights_NN = shared_NH.double() @ shared_NH.double().T + torch.outer(bias_N, bias_N)
        squares = [float((weights_NN * gram_NN).sum())]
        squares += [float(g.double().square().sum()) for g in (*phi.values(), rows / count)]
        scale = min(1.0, CLIP / max(math.sqrt(max(sum(squares), 0.0)), 1e-30))
        self._move_head(contributions, scale * shared_NH, scale * bias_N)
        for name, gradient in phi.items():
            self._phi[name].step([0], scale * gradient.reshape(1, -1))
        unique = sorted(set(sites))
        of_site = torch.tensor([[float(s == u) for s in sites] for u in unique])
        self._rows.step(unique, of_site @ (scale * rows))

    def _read(self, contributions: Sequence[Contribution]) -> tuple[Tensor, Tensor]:
        """The updates through the head, (B, C, H), and the products of their pieces, (N, N).

        N = B C pieces of all updates.
        """
        head_HW = self._tensors()["head"]
        count = len(contributions) * self._chunks
        cotangent_NH, gram_NN = torch.zeros(count, HIDDEN), torch.zeros(count, count).double()
        for place, pieces_Nw in self._blocks(contributions):
            cotangent_NH += pieces_Nw @ head_HW[:, place].T
            gram_NN += pieces_Nw @ pieces_Nw.T
        return cotangent_NH.view(len(contributions), self._chunks, HIDDEN), gram_NN

    def _move_head(
        self, contributions: Sequence[Contribution], shared_NH: Tensor, bias_N: Tensor
    ) -> None:
        head, bias = self._phi["head"], self._phi["bias"]
        head.begin_whole()
        bias.begin_whole()
        for place, pieces_Nw in self._blocks(contributions):
            head.move_part(lambda t, p=place: t.view(HIDDEN, -1)[:, p], shared_NH.T @ pieces_Nw)
            bias.move_part(lambda t, p=place: t[0, p], bias_N @ pieces_Nw)

    def _blocks(self, contributions: Sequence[Contribution]) -> Iterator[tuple[slice, Tensor]]:
        """Pieces of all updates, some columns of the head at a time: (N, block), in site order."""
        width = self._shapes["bias"][0]
        for start in range(0, width, BLOCK):
            place = slice(start, min(start + BLOCK, width))
            pieces_BCw = np.zeros((len(contributions), self._chunks, place.stop - start), "f4")
            for row, contribution in enumerate(contributions):
                for chunk in range(self._chunks):
                    first = chunk * width
                    part = contribution.update[first + start : first + place.stop]
                    pieces_BCw[row, chunk, : len(part)] = part
            yield place, torch.from_numpy(pieces_BCw).flatten(0, 1)

    def _features(self, rows_SV: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """M of every site and piece, (S, C, H)."""
        if self._chunks == 1:
            return self._mlp(tensors, rows_SV)[:, None, :]
        sites_SCV = rows_SV[:, None, :].expand(-1, self._chunks, -1)
        chunks_SCV = tensors["chunks"][None].expand(len(rows_SV), -1, -1)
        return self._mlp(tensors, torch.cat([sites_SCV, chunks_SCV], dim=2))

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
