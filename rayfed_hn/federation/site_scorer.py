"""How good networks are on a site's own bags, and which of them is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from rayfed_hn.evaluation.judging import Truth
from rayfed_hn.federation import attention_maps, mixture
from rayfed_hn.federation.data import SiteBag, SiteData
from rayfed_hn.federation.readouts import BestVersions
from rayfed_hn.federation.score_messages import CandidateMetrics, EvaluateRequest, Scores
from rayfed_hn.files import write_atomically
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.scoring import BagScores, score_bags
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.standardise import Standardisation
from rayfed_hn.models.tasks import Task

_BEST_SO_FAR = "best_so_far.safetensors"


class SiteScorer:
    """Validates what a site receives, and scores its test bags under every readout.

    Args:
        data: The site's bags.
        model: The network whose shapes a parameter vector fills.
        task: What is predicted.
        folder: Where to keep state and networks; None keeps them in memory only.
        device: Where to compute.
    """

    def __init__(
        self, data: SiteData, model: SiteModel, task: Task, folder: Path | None, device: str
    ) -> None:
        self._data, self._task = data, task
        self._scale: Standardisation | None = None
        self._model = model
        self._layout = ParameterLayout.of(model)
        self._folder = folder
        self._device = device
        self._best = BestVersions(len(data.origins))
        self._final: Tensor | None = None
        self._final_metric: float | None = None
        self._candidates: list[Tensor] = []
        self._evidence_CBE = np.zeros((0, 0, 0), np.float32)
        self._metric_OC = np.zeros((0, 0))

    def resume(self) -> None:
        """Take up what was kept in the folder."""
        if self._folder is not None:
            self._best.load(self._folder / _BEST_SO_FAR)

    def use(self, data: SiteData, scale: Standardisation) -> None:
        """Score these bags, which are the same on another scale of their features."""
        self._data, self._scale = data, scale

    def validate(self, version: int, network: Tensor) -> tuple[BagScores, float | None]:
        """Score the validation bags; the metric is the mean over hospitals where it is defined."""
        scores = self._score(network, self._data.validation)
        metrics = self._metrics(scores.evidence_BE)
        if self._best.observe(version, metrics, network) and self._folder is not None:
            self._best.save(self._folder / _BEST_SO_FAR)
        defined = [value for value in metrics if value is not None]
        return scores, float(np.mean(defined)) if defined else None

    def judge(
        self, version: int, last: Tensor, tuned: Tensor | None, candidates: list[Tensor]
    ) -> CandidateMetrics:
        """Take the last network, the fine-tuned one if there is one, and the candidates.

        Returns:
            The candidates' metrics on the validation bags; without candidates the last network's.
        """
        _, self._final_metric = self.validate(version, last)
        self._final = last
        if tuned is not None:
            _, self._final_metric = self.validate(version, tuned)
            self._final = tuned
        self._candidates = candidates or [self._final]
        bags = self._data.validation
        scored = [self._score(network, bags) for network in self._candidates]
        self._evidence_CBE = np.stack([scores.evidence_BE for scores in scored])
        rows = [self._metrics(scores.evidence_BE) for scores in scored]
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
        bags, version = (*self._data.test, *self._data.test_slides), request.version
        chosen = [best.choose(version, self._final) for best in self._best.by_origin]
        weight_OC = self._weights(request.mean_metric_C)
        self._keep_networks(version, chosen, weight_OC)
        truth, last_BE = _truth(bags), self._score(self._final, bags).evidence_BE
        whole = self._task.unit == "case"
        return Scores(
            site=self._data.name,
            version=version,
            validation_metric=self._final_metric,
            best_version_O=np.array([number for number, _ in chosen]),
            origin_B=_column(bags, "origin"),
            slide_B=_column(bags, "slide"),
            case_B=_column(bags, "case"),
            whole_case_B=np.arange(len(bags)) < (len(self._data.test) if whole else 0),
            label_B=truth.label_B,
            time_B=truth.time_B,
            event_B=truth.event_B,
            last_BE=last_BE,
            best_BE=self._by_origin(bags, [network for _, network in chosen], last_BE),
            mixture_BE=self._mixture(bags, weight_OC, last_BE),
        )

    def draw(self, folder: Path, count: int, version: int) -> None:
        """Draw where the last network looks on the first test bags."""
        if self._final is not None:
            bags, network = self._data.test[:count], (self._model, self._final)
            attention_maps.write_maps(folder, bags, self._task.names, network, version)

    def _weights(self, mean_metric_C: np.ndarray) -> np.ndarray:
        """Weights over scales, one row a hospital, float64 (O, C)."""
        origin_B = _column(self._data.validation, "origin")
        rows = []
        for number, auc_C in enumerate(self._metric_OC):
            own = origin_B == number
            weight_C = mixture.weights(auc_C, int(own.sum()), mean_metric_C)
            rows.append(mixture.shares(weight_C, mixture.scales(self._evidence_CBE[:, own])))
        return np.stack(rows)

    def _mixture(
        self, bags: tuple[SiteBag, ...], weight_OC: np.ndarray, last_BE: np.ndarray
    ) -> np.ndarray:
        evidence_CBE = np.stack([
            last_BE if n is self._final else self._score(n, bags).evidence_BE
            for n in self._candidates
        ])  # fmt: skip
        origin_B = _column(bags, "origin")
        mixed_BE = np.empty(evidence_CBE.shape[1:], np.float32)
        for number, weight_C in enumerate(weight_OC):
            own = origin_B == number
            mixed_BE[own] = mixture.combine(evidence_CBE[:, own], weight_C)
        return mixed_BE

    def _by_origin(
        self, bags: tuple[SiteBag, ...], networks: list[Tensor], last_BE: np.ndarray
    ) -> np.ndarray:
        """Score every bag with the network of its own hospital, float32 (B, E)."""
        if len(networks) == 1 and networks[0] is self._final:
            return last_BE  # nothing else was ever validated
        evidence_BE = np.empty((len(bags), self._task.num_evidence), np.float32)
        for number, network in enumerate(networks):
            own = [i for i, bag in enumerate(bags) if bag.origin == number]
            scores = self._score(network, tuple(bags[i] for i in own))
            evidence_BE[own] = scores.evidence_BE
        return evidence_BE

    def _metrics(self, evidence_BE: np.ndarray) -> list[float | None]:
        """How well the validation bags of every hospital are put in order."""
        bags = self._data.validation
        truth, origin_B = _truth(bags), _column(bags, "origin")
        predictions_BS = self._task.predict(evidence_BE)
        of_origin = [origin_B == number for number in range(len(self._data.origins))]
        return [self._task.judge.ranking(truth[own], predictions_BS[own]) for own in of_origin]

    def _score(self, parameters: Tensor, bags: tuple[SiteBag, ...]) -> BagScores:
        return score_bags(self._model, parameters, bags, self._task, self._device)

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
        about |= {"candidates": str(len(self._candidates))}
        write_atomically(
            self._folder / f"network_{name}.safetensors",
            lambda temporary: save_file(tensors, temporary, metadata=about),
        )


def _column(bags: tuple[SiteBag, ...], name: str) -> np.ndarray:
    return np.array([getattr(bag, name) for bag in bags], dtype=np.int64)


def _truth(bags: tuple[SiteBag, ...]) -> Truth:
    times, events = [bag.time for bag in bags], [bag.event for bag in bags]
    return Truth(_column(bags, "label"), np.array(times, float), np.array(events, bool))
