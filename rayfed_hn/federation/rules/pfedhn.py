"""pFedHN as published, for comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

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
from rayfed_hn.federation.rules.blocks import blocks, generate
from rayfed_hn.federation.rules.optimisers import Optimiser, RowState
from rayfed_hn.federation.rules.robust import Trimming, pull_in
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

    With ``trimming``, what is pulled back are updates whose extremes were replaced by the values
    next to them, parameter by parameter.

    Args:
        size: P.
        num_sites: K.
        dim: V (default: int(1 + K/4)).
        optimiser: Moves phi and the rows of v.
        chunks: Pieces.
        seed: The run's.
        device: Where the head is kept and moved.
        trimming: What is extreme.
    """

    def __init__(
        self,
        size: int,
        num_sites: int,
        dim: int | None,
        optimiser: Optimiser,
        chunks: int,
        seed: int,
        device: torch.device | str = "cpu",
        trimming: Trimming | None = None,
    ) -> None:
        dim = dim or int(1 + num_sites / 4)
        self._size, self._chunks, self._trimming = size, chunks, trimming
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
        # Only what is as long as a network belongs on a GPU.
        self._phi = {
            name: RowState(
                tensor.reshape(1, -1).to(device if name in ("head", "bias") else "cpu"), optimiser
            )
            for name, tensor in tensors.items()
        }

    @property
    def size(self) -> int:
        return self._size

    def networks(self, sites: Sequence[int]) -> list[np.ndarray]:
        return self._made_of(self._features(self._rows.table[list(sites)], self._tensors()))

    def shared(self) -> np.ndarray | None:
        """The mean of the sites' networks, made of their mean features: the head is linear."""
        features_KCH = self._features(self._rows.table, self._tensors())
        return self._made_of(features_KCH.mean(dim=0, keepdim=True))[0]

    def _made_of(self, features_SCH: Tensor) -> list[np.ndarray]:
        """Networks of features, each float32 (P,)."""
        tensors = self._tensors()
        rows_NH = features_SCH.flatten(0, 1).to(tensors["head"].device)
        pieces, count = generate(tensors["bias"], rows_NH, tensors["head"]), self._chunks
        if count == 1:
            return pieces
        starts = range(0, len(pieces), count)
        return [np.concatenate(pieces[i : i + count])[: self._size] for i in starts]

    def site_embeddings(self) -> SiteEmbeddings | None:
        """The rows v_i."""
        return SiteEmbeddings(self._rows.table.double().numpy(), learned=True, by_chance=True)

    def generator(self) -> Generator:
        tensors = {name: tensor.to("cpu", copy=True) for name, tensor in self._tensors().items()}

        def make(row_V: Tensor) -> Tensor:
            features_1CH = self._features(row_V[None], tensors)
            return (features_1CH @ tensors["head"] + tensors["bias"]).flatten()[: self._size]

        return Generator(self._rows.table.mean(dim=0), make)

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
        count, device = len(contributions) * self._chunks, head_HW.device
        cotangent_NH = torch.zeros(count, HIDDEN, device=device)
        gram_NN = torch.zeros(count, count, dtype=torch.float64, device=device)
        for place, pieces_NW in self._blocks(contributions, device):
            cotangent_NH.addmm_(pieces_NW, head_HW[:, place].T)
            gram_NN += pieces_NW @ pieces_NW.T
        return cotangent_NH.view(len(contributions), self._chunks, HIDDEN).cpu(), gram_NN.cpu()

    def _move_head(
        self, contributions: Sequence[Contribution], shared_NH: Tensor, bias_N: Tensor
    ) -> None:
        head, bias = self._phi["head"], self._phi["bias"]
        head.begin_whole()
        bias.begin_whole()
        shared_HN, bias_1N = shared_NH.T.to(head.table.device), bias_N[None].to(head.table.device)
        for place, pieces_NW in self._blocks(contributions, head.table.device):
            head.move_part(lambda t, p=place: t.view(HIDDEN, -1)[:, p], shared_HN, pieces_NW)
            bias.move_part(lambda t, p=place: t[:, p], bias_1N, pieces_NW)

    def _blocks(
        self, contributions: Sequence[Contribution], device: torch.device
    ) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of the pieces of all updates, without extremes."""
        sites = [c.site for c in contributions]
        scales = [c.scale for c in contributions for _ in range(self._chunks)]
        for place, pieces_NW in blocks(self._pieces(contributions), device, scales):
            yield place, pull_in(sites, pieces_NW, self._chunks, self._trimming)

    def _pieces(self, contributions: Sequence[Contribution]) -> list[np.ndarray]:
        """All updates in pieces of one length, in site order; the last of each ends in zeros."""
        if self._chunks == 1:
            return [c.update for c in contributions]
        width = self._shapes["bias"][0]
        starts = [width * chunk for chunk in range(self._chunks)]
        pieces = [c.update[start : start + width] for c in contributions for start in starts]
        return [p if len(p) == width else np.pad(p, (0, width - len(p))) for p in pieces]

    def _features(self, rows_SV: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """M of every site and piece, (S, C, H)."""
        if self._chunks == 1:
            return self._mlp(tensors, rows_SV)[:, None, :]
        sites_SCV = rows_SV[:, None, :].expand(-1, self._chunks, -1)
        chunks_SCV = tensors["chunks"][None].expand(len(rows_SV), -1, -1)
        rows_NV = torch.cat([sites_SCV, chunks_SCV], dim=2).flatten(0, 1)
        return self._mlp(tensors, rows_NV).unflatten(0, (len(rows_SV), self._chunks))

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
