"""Networks of few degrees of freedom, so that little has to leave a site, and little be noised.

A network moves within theta + B c, where B is a fixed, public map from K numbers to P parameters:
every parameter belongs to one number, with a random sign. Its columns are orthonormal, so that
lengths are the same on both sides: noise of K numbers is sqrt(K) long, and not sqrt(P).

Training in a random subspace is of Li et al. 2018 (Measuring the intrinsic dimension of objective
landscapes); parameters that share numbers are of Chen et al. 2015 (hashing trick).

Shapes: P parameters, K numbers.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


class Subspace:
    """The map between K numbers and P parameters.

    Args:
        size: P.
        dim: K, at most P.
        seed: Of the map; everybody has the same.
    """

    def __init__(self, size: int, dim: int, seed: int) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        self.size, self.dim = size, dim
        self._number_P = torch.from_numpy(rng.permutation(size) % dim)
        sharing_K = torch.bincount(self._number_P, minlength=dim)
        sign_P = torch.from_numpy(rng.choice([-1.0, 1.0], size))
        self._weight_P = (sign_P / sharing_K[self._number_P].sqrt()).float()

    @property
    def rate(self) -> float:
        """What a learning rate is multiplied by, so that parameters move as far as without."""
        return math.sqrt(self.size / self.dim)

    def project(self, vector_P: Tensor) -> Tensor:
        """The nearest numbers, float32 (K,)."""
        weighted_P = (vector_P * self._weight_P.to(vector_P)).double()
        sums_K = torch.zeros(self.dim, dtype=torch.float64, device=vector_P.device)
        return sums_K.index_add_(0, self._number_P.to(vector_P.device), weighted_P).float()

    def lift(self, numbers_K: Tensor) -> Tensor:
        """The parameters of numbers, float32 (P,)."""
        return numbers_K[self._number_P.to(numbers_K.device)] * self._weight_P.to(numbers_K)


class Freedom:
    """What an optimiser moves: a network's tensors, or few numbers that they follow.

    Args:
        theta: The network (P,), whose tensors are views into it.
        tensors: These, with gradients after a backward pass.
        subspace: Where the network may go; None: anywhere.
    """

    def __init__(
        self, theta: Tensor, tensors: list[torch.nn.Parameter], subspace: Subspace | None
    ) -> None:
        self._theta, self._tensors, self._subspace = theta, tensors, subspace
        self._start = theta.clone() if subspace is not None else theta
        self._numbers = None
        if subspace is not None:
            self._numbers = torch.nn.Parameter(torch.zeros(subspace.dim, device=theta.device))

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What the optimiser moves."""
        return self._tensors if self._numbers is None else [self._numbers]

    @property
    def rate(self) -> float:
        """Factor of its learning rate."""
        return 1.0 if self._subspace is None else self._subspace.rate

    def gradients(self) -> list[Tensor]:
        """Gradients of ``parameters``, by those of the network's tensors."""
        parts = [torch.zeros_like(t) if t.grad is None else t.grad for t in self._tensors]
        if self._subspace is None:
            return parts
        return [self._subspace.project(torch.cat([part.flatten() for part in parts]))]

    def prepare(self) -> None:
        """Give the optimiser the gradients of what it moves."""
        if self._numbers is not None:
            (self._numbers.grad,) = self.gradients()

    def follow(self) -> None:
        """Let the network follow a step of the optimiser."""
        if self._subspace is not None and self._numbers is not None:
            self._theta.copy_(self._start + self._subspace.lift(self._numbers.detach()))
