"""Searches in which later settings follow from earlier results, by Optuna."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from rayfed_hn.errors import ConfigError
from rayfed_hn.seeds import derive
from rayfed_hn.tuning.dimensions import Dimension
from rayfed_hn.tuning.search import Search

_SEED_BITS = 32  # Optuna's samplers take no more


def check_optuna() -> None:
    """Raises ``ConfigError`` if it is not installed."""
    _optuna()


def optuna_search(search: Search, records: Sequence[Mapping[str, Any]]) -> Any:
    """A searcher for Ray Tune that begins where earlier trials have ended.

    Args:
        search: What is searched.
        records: Of trials that have ended; those without a metric say nothing.
    """
    optuna = _optuna()
    from ray.tune.search.optuna import OptunaSearch

    seed = derive(search.config.run.seed, "optuna", len(records)) % 2**_SEED_BITS
    told = [r for r in records if r["validation_metric"] is not None]
    before = {
        "points_to_evaluate": [dict(r["settings"]) for r in told],
        "evaluated_rewards": [r["validation_metric"] for r in told],
    }
    return OptunaSearch(
        space={d.key: _distribution(optuna, d) for d in search.dimensions},
        metric="validation_metric",
        mode="max",
        seed=seed,
        **(before if told else {}),
    )


def _distribution(optuna: Any, dimension: Dimension) -> Any:
    kinds = optuna.distributions
    if dimension.listed:
        return kinds.CategoricalDistribution(list(dimension.values))
    kind = kinds.IntDistribution if dimension.whole else kinds.FloatDistribution
    return kind(*dimension.values, log=dimension.kind == "loguniform")


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError:
        raise ConfigError(
            "tune.search: optuna is not installed; pip install 'rayfed_hn[optuna]', or set "
            "tune.search=random"
        ) from None
