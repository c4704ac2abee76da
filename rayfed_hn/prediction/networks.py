"""Which network speaks for a site: its own under the run's readout, or what all share.

The files of a site are for features as they are in the bag store: the standardisation of training
is in their first layer.

Shapes: C networks, P parameters, B bags, E evidence, N tiles, S predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.mixture import combine
from rayfed_hn.federation.plan import POOLED
from rayfed_hn.models.attending import WITHOUT_ATTENTION, attention_of
from rayfed_hn.models.labelled_bag import LabelledBag
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.scoring import score_bags
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.standardise import Standardisation, agree, measure
from rayfed_hn.models.tasks import Task
from rayfed_hn.prediction.finished import FinishedRun

PERSONAL, SHARED = "personal", "shared"


@dataclass(frozen=True, eq=False)
class Network:
    """What scores the bags of a site.

    Attributes:
        kind: ``personal``, ``shared`` or ``pooled``.
        readout: ``last``, ``best`` or ``mixture``; of a shared network empty.
        model: Its shapes.
        task: What it predicts.
        candidates: Networks, float32 (P,) each; one unless the readout is a mixture.
        share_C: What their evidence is multiplied by, float64 (C,).
        scale: What features are standardised by; None where the networks do it.
    """

    kind: str
    readout: str
    model: SiteModel
    task: Task
    candidates: tuple[Tensor, ...]
    share_C: np.ndarray
    scale: Standardisation | None = None

    @property
    def name(self) -> str:
        """For tables: whose it is, and which of them."""
        return f"{self.kind}, {self.readout}" if self.readout else self.kind

    def predict(self, bag: LabelledBag) -> np.ndarray:
        """What the task predicts of a bag, float32 (S,), as ``Task.predict`` gives it.

        Raises:
            DataError: It is not a number, because the features are none.
        """
        evidence_1E = self._evidence(replace(bag, standardisation=self.scale))
        if not np.isfinite(evidence_1E).all():
            raise DataError("its features are no numbers that a network can use; embed it again")
        return self.task.predict(evidence_1E)[0]

    def attention(self, bag: LabelledBag) -> np.ndarray:
        """Attention of every tile, float64 (N,), which sums to one.

        Of a mixture the mean of its networks' attention, by their shares of the evidence.
        """
        scaled = replace(bag, standardisation=self.scale)
        rows = [attention_of(self.model, network, scaled) for network in self.candidates]
        return self.share_C @ np.stack(rows) / self.share_C.sum()

    def _evidence(self, bag: LabelledBag) -> np.ndarray:
        scored = [
            score_bags(self.model, network, [bag], self.task).evidence_BE
            for network in self.candidates
        ]
        return scored[0] if len(scored) == 1 else combine(np.stack(scored), self.share_C)


def network_for(run: FinishedRun, site: str, bags: Callable[[], Sequence[LabelledBag]]) -> Network:
    """The network for a site.

    Args:
        run: A finished run.
        site: Its name; it need not have taken part.
        bags: Its bags, asked for where the run has every site scale its features by itself.

    Raises:
        ConfigError: The run has nothing for this site.
        DataError: A file is damaged.
    """
    pooled = run.config.method.name == POOLED
    owner = run.folder / "sites" / (POOLED if pooled else site)
    if site in run.sites and (owner / "network_last.safetensors").is_file():
        return _own(run, owner, site)
    if pooled:
        return _one(run, POOLED, "last", _vector(run, owner / "network_last.safetensors"))
    try:
        origin = run.origin
    except ConfigError:
        raise ConfigError(
            f"{site} has no network in {run.folder}, and method.name="
            f"{run.config.method.name} shares none that could stand in; its sites are "
            f"{', '.join(run.sites)}"
        ) from None
    scale = origin.scale
    if run.config.model.standardise == "site":
        scale = agree([measure(np.concatenate(bag.parts()) for bag in bags())])
    return replace(_one(run, SHARED, "", origin.base), scale=scale)


def check_attention(run: FinishedRun) -> None:
    """Refuse models that do not attend.

    Raises:
        ConfigError: Names the model and those that do.
    """
    name = run.config.model.name
    if name in WITHOUT_ATTENTION:
        raise ConfigError(
            f"RUN: {run.folder} was trained with model.name={name}, which has no attention: "
            "every tile counts alike, or one alone. Train with gated_attention, attention, "
            "clam_sb, clam_mb, dsmil or set_transformer for a heatmap"
        )


def _own(run: FinishedRun, owner: Path, site: str) -> Network:
    pooled, readout = run.config.method.name == POOLED, run.config.evaluation.readout
    kind, file = POOLED if pooled else PERSONAL, owner / "network_last.safetensors"
    if readout == "best":
        file = owner / f"network_best{f'_{site}' if _many(run, pooled) else ''}.safetensors"
    elif readout == "mixture" and _one_of_several(file):
        row = run.sites.index(site) if pooled else 0
        return _mixture(run, owner / "network_mixture.safetensors", row, kind)
    return _one(run, kind, readout, _vector(run, file))


def _one_of_several(last: Path) -> bool:
    """Whether a site kept more than its last network; of a single one there is no mixture."""
    try:
        with safe_open(last, framework="pt") as file:
            return int((file.metadata() or {}).get("candidates", "1")) > 1
    except (SafetensorError, OSError, ValueError) as error:
        raise _unfit(last, error) from None


def _many(run: FinishedRun, pooled: bool) -> bool:
    """Whether one participant kept a network for each of several hospitals."""
    return pooled and len(run.sites) > 1


def _one(run: FinishedRun, kind: str, readout: str, network_P: Tensor) -> Network:
    return Network(kind, readout, run.model, run.task, (network_P,), np.ones(1))


def _mixture(run: FinishedRun, path: Path, row: int, kind: str) -> Network:
    tensors, size = _load(path), ParameterLayout.of(run.model).size
    try:
        candidates_CP, share_OC = tensors["candidates"], tensors["weights"].double().numpy()
        share_C = share_OC[row]
        fits = candidates_CP.shape == (len(share_C), size) and np.isfinite(share_C).all()
        if not fits or not bool(torch.isfinite(candidates_CP).all()):
            raise ValueError("shapes or values")
    except (KeyError, IndexError, ValueError) as error:
        raise _unfit(path, error) from None
    candidates = tuple(network_P.float() for network_P in candidates_CP)
    return Network(kind, "mixture", run.model, run.task, candidates, share_C)


def _vector(run: FinishedRun, path: Path) -> Tensor:
    try:
        network_P = ParameterLayout.of(run.model).flatten(_load(path))
    except ValueError as error:
        raise _unfit(path, error) from None
    if not bool(torch.isfinite(network_P).all()):
        raise _unfit(path, "values that are no numbers")
    return network_P


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unfit(path, error) from None


def _unfit(path: Path, why: object) -> DataError:
    return DataError(
        f"{path} is no network of this run ({why}); copy the run directory again, or train again"
    )
