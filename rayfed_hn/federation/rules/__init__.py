"""Methods: which network a site receives, and what the updates of sites change."""

from __future__ import annotations

from torch import Tensor

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Generator, Rule
from rayfed_hn.federation.rules.estimated import EstimatedHypernetwork
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import HIDDEN, PFedHN
from rayfed_hn.federation.rules.robust import Trimming
from rayfed_hn.models.parameters import ParameterLayout

__all__ = ["Contribution", "Generator", "Rule", "check_memory", "make_rule"]

MAX_STATE_BYTES = 8 * 2**30  # of a rule that keeps many networks


def make_rule(config: Config, initial: Tensor, layout: ParameterLayout, num_sites: int) -> Rule:
    """Make the rule that ``method.name`` asks for.

    Args:
        config: ``method``, ``hypernetwork``, ``rounds`` and ``run.seed``.
        initial: The network that everybody starts from, float32 (P,), where the rule computes.
        layout: Where its tensors lie.
        num_sites: K.
    """
    name = config.method.name.removesuffix("_ft").removesuffix("_pc")
    trimming = Trimming.of(config.rounds)
    if name == "hypernetwork":
        rule = _hypernetwork(config, initial, layout, num_sites)
        rule.gate = config.hypernetwork.gate
        return rule
    if name == "pfedhn":
        knobs = config.hypernetwork
        half = knobs.moments == "bfloat16"
        optimiser = Optimiser(knobs.optimiser, knobs.learning_rate, 0.9, knobs.weight_decay, half)
        dim, seed = knobs.embedding_dim, config.run.seed
        return PFedHN(
            layout.size, num_sites, dim, optimiser, knobs.chunks, seed, initial.device, trimming
        )
    if name == "local":
        return Local(initial.cpu(), num_sites)  # keeps networks, and computes next to nothing
    # fedprox and fedper differ at the sites; pooled is the same with a single site
    return FedAvg(initial, None if name == "pooled" else trimming)


def check_memory(config: Config, size: int, num_sites: int) -> None:
    """Refuse a rule that would take more memory than a server should.

    Args:
        config: ``method`` and ``hypernetwork``.
        size: P.
        num_sites: K.

    Raises:
        ConfigError: Says what takes it and what to do.
    """
    knobs, name = config.hypernetwork, config.method.name
    moments = {"sgd": 0.0, "momentum": 1.0, "adam": 2.0}[knobs.optimiser]
    if knobs.moments == "bfloat16" and moments:
        moments -= 0.5  # of the first one
    if name == "local":
        networks, what, remedy = num_sites, "method.name=local", "train fewer sites at a time"
    elif name.startswith("pfedhn"):
        networks = int((HIDDEN + 1) * (1 + moments) / knobs.chunks)
        what, remedy = f"hypernetwork.chunks={knobs.chunks}", "raise it"
    elif not name.startswith("hypernetwork"):
        return
    elif knobs.estimate != "none":
        networks, what = 2 * num_sites, f"hypernetwork.estimate={knobs.estimate}"
        remedy = "set it to none, and hypernetwork.rho"
    else:
        networks = knobs.embedding_dim or max(16, num_sites)
        what, remedy = "hypernetwork.embedding_dim", "set it lower (its default is one per site)"
    needed = 4 * networks * size
    if needed > MAX_STATE_BYTES:
        raise ConfigError(
            f"{what}: keeps {networks:,} networks of {size:,} parameters at the server for "
            f"{num_sites:,} sites, {needed / 2**30:.0f} GiB; at most "
            f"{MAX_STATE_BYTES / 2**30:.0f} GiB are allowed: {remedy}"
        )


def _hypernetwork(config: Config, initial: Tensor, layout: ParameterLayout, num_sites: int) -> Rule:
    knobs = config.hypernetwork
    if knobs.estimate != "none":
        edges = [0, *(place.stop for _, place in layout.places())]
        return EstimatedHypernetwork(initial.cpu(), num_sites, edges, knobs.estimate == "kernel")
    dim = knobs.embedding_dim or max(16, num_sites)
    features = SiteFeatures(knobs.features, num_sites, dim, knobs.feature_rate, config.run.seed)
    discount_all = config.rounds.discount == "all"
    trimming = Trimming.of(config.rounds)
    return Hypernetwork(initial, num_sites, features, dim, knobs.rho, discount_all, trimming)
