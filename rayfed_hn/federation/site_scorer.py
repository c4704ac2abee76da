"""How good networks are on a site's own bags, and which of them is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rayfed_hn.evaluation.metrics import auc
from rayfed_hn.federation import mixture
from rayfed_hn.federation.data import SiteBag, SiteData
from rayfed_hn.federation.readouts import BestVersions
from rayfed_hn.federation.score_messages import CandidateMetrics, EvaluateRequest, Scores
from rayfed_hn.files import write_atomically
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.training import BagScores, score_bags

_BEST_SO_FAR = "best_so_far.safetensors"


class SiteScorer:
    """Validates what a site receives, and scores its test bags under every readout.

    Args:
        data: The site's bags.
        model: The network whose shapes a parameter vector fills.
        folder: Where to keep state and networks; None keeps them in memory only.
        device: Where to compute.
    """

    def __init__(self, data: SiteData, model: nn.Module, folder: Path | None, device: str) -> None:
        self._data = data
        self._scale: Standardisation | None = None
        self._model = model
        self._layout = ParameterLayout.of(model)
        self._folder = folder
        self._device = device
        self._best = BestVersions(len(data.origins))
        self._final: Tensor | None = None
        self._final_auc: float | None = None
        self._candidates: list[Tensor] = []
        self._logits_CB = np.zeros((0, 0), np.float32)
        self._metric_OC = np.zeros((0, 0))

    def resume(self) -> None:
        """Take up what was kept in the folder."""
        if self._folder is not None:
            self._best.load(self._folder / _BEST_SO_FAR)

    def use(self, data: SiteData, scale: Standardisation) -> None:
        """Score these bags, which are the same on another scale of their features."""
        self._data, self._scale = data, scale

    def validate(self, version: int, network: Tensor) -> tuple[BagScores, float | None]:
        """Score the validation bags; the AUC is the mean over hospitals where it is defined."""
        scores = self._score(network, self._data.validation)
        aucs = self._aucs(scores.scores_B)
        if self._best.observe(version, aucs, network) and self._folder is not None:
            self._best.save(self._folder / _BEST_SO_FAR)
        defined = [value for value in aucs if value is not None]
        return scores, float(np.mean(defined)) if defined else None

    def judge(
        self, version: int, last: Tensor, tuned: Tensor | None, candidates: list[Tensor]
    ) -> CandidateMetrics:
        """Take the last network, the fine-tuned one if there is one, and the candidates.

        Returns:
            The candidates' AUCs on the validation bags; without candidates the last network's.
        """
        _, self._final_auc = self.validate(version, last)
        self._final = last
        if tuned is not None:
            _, self._final_auc = self.validate(version, tuned)
            self._final = tuned
        self._candidates = candidates or [self._final]
        bags = self._data.validation
        scored = [self._score(network, bags) for network in self._candidates]
        self._logits_CB = np.stack([scores.logits_B for scores in scored])
        rows = [self._aucs(scores.scores_B) for scores in scored]
        table_CO = np.array([[np.nan if v is None else v for v in row] for row in rows], float)
        self._metric_OC = table_CO.T.copy()
        return CandidateMetrics(self._data.name, version, self._metric_OC)

    def score(self, request: EvaluateRequest) -> Scores:
        """Score the test bags.

        Raises:
            ValueError: The candidates were not judged before.
        """
        if self._final is None or request.mean_metric_C.shape != (len(self._candidates),):
            raise ValueError("scoring was asked for before the candidates were judged")
        test, version = self._data.test, request.version
        chosen = [best.choose(version, self._final) for best in self._best.by_origin]
        weight_OC = self._weights(request.mean_metric_C)
        self._keep_networks(version, chosen, weight_OC)
        return Scores(
            site=self._data.name,
            version=version,
            validation_metric=self._final_auc,
            best_version_O=np.array([number for number, _ in chosen]),
            origin_B=_column(test, "origin"),
            slide_B=_column(test, "slide"),
            case_B=_column(test, "case"),
            label_B=_column(test, "label"),
            last_B=self._score(self._final, test).scores_B,
            best_B=self._by_origin([network for _, network in chosen]),
            mixture_B=self._mixture(weight_OC),
        )

    def _weights(self, mean_metric_C: np.ndarray) -> np.ndarray:
        """Weights over scales, one row a hospital, float64 (O, C)."""
        origin_B = _column(self._data.validation, "origin")
        rows = []
        for number, auc_C in enumerate(self._metric_OC):
            own = origin_B == number
            weight_C = mixture.weights(auc_C, int(own.sum()), mean_metric_C)
            rows.append(weight_C / mixture.scales(self._logits_CB[:, own]))
        return np.stack(rows)

    def _mixture(self, weight_OC: np.ndarray) -> np.ndarray:
        test = self._data.test
        logits_CB = np.stack([self._score(n, test).logits_B for n in self._candidates])
        origin_B = _column(test, "origin")
        scores_B = np.empty(len(test), np.float32)
        for number, weight_C in enumerate(weight_OC):
            own = origin_B == number
            scores_B[own] = mixture.combine(logits_CB[:, own], weight_C)
        return scores_B

    def _by_origin(self, networks: list[Tensor]) -> np.ndarray:
        """Score every test bag with the network of its own hospital, float32 (B,)."""
        test = self._data.test
        scores_B = np.empty(len(test), np.float32)
        for number, network in enumerate(networks):
            own = [i for i, bag in enumerate(test) if bag.origin == number]
            scores_B[own] = self._score(network, tuple(test[i] for i in own)).scores_B
        return scores_B

    def _aucs(self, scores_B: np.ndarray) -> list[float | None]:
        """AUC on the validation bags of every hospital."""
        bags = self._data.validation
        label_B, origin_B = _column(bags, "label"), _column(bags, "origin")
        numbers = range(len(self._data.origins))
        return [auc(label_B[origin_B == n], scores_B[origin_B == n]) for n in numbers]

    def _score(self, parameters: Tensor, bags: tuple[SiteBag, ...]) -> BagScores:
        return score_bags(self._model, parameters, bags, self._device)

    def _keep_networks(
        self, version: int, chosen: list[tuple[int, Tensor]], weight_OC: np.ndarray
    ) -> None:
        if self._folder is None or self._final is None:
            return
        self._keep("last", version, self._final)
        for origin, (number, network) in zip(self._data.origins, chosen, strict=True):
            self._keep("best" if len(chosen) == 1 else f"best_{origin}", number, network)
        if len(self._candidates) > 1:
            tensors = {
                "candidates": torch.stack([self._folded(n) for n in self._candidates]),
                "weights": torch.from_numpy(weight_OC),
            }
            self._write("mixture", version, tensors)

    def _keep(self, name: str, version: int, network: Tensor) -> None:
        named = self._layout.unflatten(self._folded(network))
        self._write(name, version, {k: v.contiguous() for k, v in named.items()})

    def _folded(self, network: Tensor) -> Tensor:
        """A network for features as they are in the bag store, which is what files are for."""
        return network if self._scale is None else self._scale.fold(network, self._layout)

    def _write(self, name: str, version: int, tensors: dict[str, Tensor]) -> None:
        assert self._folder is not None
        about = {"format": "pt", "version": str(version), "site": self._data.name}
        write_atomically(
            self._folder / f"network_{name}.safetensors",
            lambda temporary: save_file(tensors, temporary, metadata=about),
        )


def _column(bags: tuple[SiteBag, ...], name: str) -> np.ndarray:
    return np.array([getattr(bag, name) for bag in bags], dtype=np.int64)
