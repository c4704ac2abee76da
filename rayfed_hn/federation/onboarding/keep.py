"""The files that a new site ends up with: one network an arm, and the recommended mixture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from rayfed_hn.federation.onboarding.arms import Fitted
from rayfed_hn.federation.onboarding.recommend import Recommendation
from rayfed_hn.files import write_atomically
from rayfed_hn.models.parameters import ParameterLayout


def keep_networks(
    folder: Path,
    site: str,
    layout: ParameterLayout,
    fitted: Mapping[str, Fitted],
    recommendation: Recommendation,
) -> Path:
    """Write ``network_<arm>.safetensors`` for every arm and ``network_recommended.safetensors``.

    All are for features as they are in the bag store. The recommended file has ``candidates``
    (C, P) and ``weights`` (1, C) over their evidence, as the ``network_mixture`` of other sites.

    Returns:
        The file of the recommendation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for arm, own in fitted.items():
        named = layout.unflatten(_folded(own, layout))
        tensors = {name: tensor.contiguous() for name, tensor in named.items()}
        _write(folder / f"network_{file_name(arm)}.safetensors", tensors, site)
        if own.embedding_V is not None:
            embedding = {"site_embedding": own.embedding_V.contiguous()}
            _write(folder / "site_embedding.safetensors", embedding, site)
    candidates = [_folded(fitted[arm], layout) for arm in recommendation.weights]
    path = folder / "network_recommended.safetensors"
    mixture = {
        "candidates": torch.stack(candidates),
        "weights": torch.from_numpy(recommendation.shares)[None],
    }
    _write(path, mixture, site)
    return path


def file_name(arm: str) -> str:
    """An arm's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "_", arm.lower())


def _folded(fitted: Fitted, layout: ParameterLayout) -> Tensor:
    scale = fitted.scale
    return fitted.network_P if scale is None else scale.fold(fitted.network_P, layout)


def _write(path: Path, tensors: Mapping[str, Tensor], site: str) -> None:
    about = {"format": "pt", "site": site}
    write_atomically(path, lambda to: save_file(dict(tensors), to, metadata=about))
