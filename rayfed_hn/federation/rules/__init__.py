"""Methods: which network a site receives, and what the updates of sites change."""

from __future__ import annotations

from torch import Tensor

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.rules.averaging import FedAvg, Local
from rayfed_hn.federation.rules.base import Contribution, Rule
from rayfed_hn.federation.rules.estimated import EstimatedHypernetwork
from rayfed_hn.federation.rules.generator import Hypernetwork, SiteFeatures
from rayfed_hn.federation.rules.optimisers import Optimiser
from rayfed_hn.federation.rules.pfedhn import PFedHN
from rayfed_hn.models.parameters import ParameterLayout

__all__ = ["Contribution", "Rule", "make_rule"]

MAX_STATE_BYTES = 8 * 2**30  # of a rule that keeps vectors for every site


def make_rule(config: Config, initial: Tensor, layout: ParameterLayout, num_sites: int) -> Rule:
    """Make the rule that ``method.name`` asks for.

    Args:
        config: ``method``, ``hypernetwork``, ``rounds`` and ``run.seed``.
        initial: The network that everybody starts from, float32 (P,).
        layout: Where its tensors lie.
        num_sites: K.

    Raises:
        ConfigError: The rule would take more memory than a server should.
    """
    name = config.method.name.removesuffix("_ft").removesuffix("_pc")
    if name == "hypernetwork":
        rule = _hypernetwork(config, initial, layout, num_sites)
        rule.gate = config.hypernetwork.gate
        return rule
    if name == "pfedhn":
        knobs = config.hypernetwork
        optimiser = Optimiser(knobs.optimiser, knobs.learning_rate, 0.9, knobs.weight_decay)
        dim, seed = knobs.embedding_dim, config.run.seed
        return PFedHN(layout.size, num_sites, dim, optimiser, knobs.chunks, seed)
    if name == "local":
        return Local(initial, num_sites)
    # fedprox and fedper differ at the sites; pooled is the same with a single site
    return FedAvg(initial)


def _hypernetwork(config: Config, initial: Tensor, layout: ParameterLayout, num_sites: int) -> Rule:
    knobs = config.hypernetwork
    if knobs.estimate != "none":
        needed = 3 * 4 * num_sites * layout.size
        if needed > MAX_STATE_BYTES:
            raise ConfigError(
                f"hypernetwork.estimate={knobs.estimate} keeps three networks for every site, "
                f"{needed / 2**30:.0f} GiB for {num_sites}; set it to none, and hypernetwork.rho"
            )
        edges = [0, *(place.stop for _, place in layout.places())]
        return EstimatedHypernetwork(initial, num_sites, edges, knobs.estimate == "kernel")
    dim = knobs.embedding_dim or max(16, num_sites)
    features = SiteFeatures(knobs.features, num_sites, dim, knobs.feature_rate, config.run.seed)
    discount_all = config.rounds.discount == "all"
    return Hypernetwork(initial, num_sites, features, dim, knobs.rho, discount_all)
