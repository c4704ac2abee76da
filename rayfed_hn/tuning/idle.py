"""Keys that are searched although they change nothing, or nothing beyond some value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.config import RELEASE_NOTHING, Config
from rayfed_hn.loading import value_of
from rayfed_hn.tuning.dimensions import Dimension

EMBEDDING_DIM = "hypernetwork.embedding_dim"
_HYPERNETWORK = ("hypernetwork", "hypernetwork_ft")
_PFEDHN = ("pfedhn", "pfedhn_pc", "pfedhn_ft")
_LEARNED = ("learned", "mlp")
# A key, and what another key must be for it to have any effect.
_ONLY_WITH: dict[str, tuple[tuple[str, tuple[Any, ...]], ...]] = {
    "hypernetwork.rho": (
        ("method.name", _HYPERNETWORK),
        ("hypernetwork.estimate", ("none",)),
    ),
    "hypernetwork.estimate": (("method.name", _HYPERNETWORK),),
    "hypernetwork.features": (
        ("method.name", _HYPERNETWORK),
        ("hypernetwork.estimate", ("none",)),
    ),
    "hypernetwork.feature_rate": (
        ("method.name", _HYPERNETWORK),
        ("hypernetwork.features", _LEARNED),
    ),
    "hypernetwork.gate": (("method.name", _HYPERNETWORK),),
    "hypernetwork.optimiser": (("method.name", _PFEDHN),),
    "hypernetwork.learning_rate": (("method.name", _PFEDHN),),
    "hypernetwork.weight_decay": (("method.name", _PFEDHN),),
    "hypernetwork.moments": (("method.name", _PFEDHN),),
    "hypernetwork.chunks": (("method.name", _PFEDHN),),
    EMBEDDING_DIM: (("method.name", _HYPERNETWORK + _PFEDHN),),
    "training.proximal_mu": (("method.name", ("fedprox",)),),
    "training.fine_tuning_steps": (("method.name", ("hypernetwork_ft", "pfedhn_ft", "fedavg_ft")),),
    "privacy.noise_scale": (("privacy.mechanism", ("paper",)),),
    "privacy.noise_multiplier": (("privacy.mechanism", ("site_ldp", "slide_dpsgd")),),
    "privacy.target_epsilon": (("privacy.mechanism", ("site_ldp", "slide_dpsgd")),),
    "privacy.clip_norm": (("privacy.mechanism", ("site_ldp", "slide_dpsgd")),),
}


def idle(config: Config, found: Sequence[Dimension]) -> list[dict[str, Any]]:
    """Keys that have no effect in any trial.

    Returns:
        Each ``key`` with the reason, ``because``.
    """
    searched = {dimension.key: dimension for dimension in found}
    rows = []
    for key in searched:
        for other, needed in _ONLY_WITH.get(key, ()):
            taken = _taken(config, searched, other)
            if not set(taken) & set(needed):
                names = " or ".join(map(str, needed))
                rows.append({"key": key, "because": f"it has an effect only with {other}={names}"})
                break
        else:
            if key.startswith("privacy.") and _releases_nothing(config, searched):
                rows.append({"key": key, "because": "the method releases nothing"})
    return rows


def _taken(config: Config, searched: Mapping[str, Dimension], key: str) -> tuple[Any, ...]:
    return searched[key].values if key in searched else (value_of(config, key),)


def _releases_nothing(config: Config, searched: Mapping[str, Dimension]) -> bool:
    return set(_taken(config, searched, "method.name")) <= set(RELEASE_NOTHING)


def alike_from(config: Config, num_sites: int) -> int | None:
    """From which length of the site embeddings on all settings make the same model.

    Fixed embeddings of as many numbers as there are sites, or more, are orthonormal: the generator
    then does the same whatever their length, up to rounding.

    Args:
        config: Of a trial.
        num_sites: Sites that take part.

    Returns:
        None where every length makes a model of its own.
    """
    knobs = config.hypernetwork
    if config.method.name not in _HYPERNETWORK:
        return None
    if knobs.estimate != "none":
        return 1  # no embeddings are made
    return num_sites if knobs.features == "fixed" else None
