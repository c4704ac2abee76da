"""What a run is refused for before anything starts, once it is known who takes part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayfed_hn.config import FEWEST_VOTES
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.exchanges import check_kept
from rayfed_hn.federation.loop import InProcessExecutor
from rayfed_hn.federation.messages import Request
from rayfed_hn.federation.promises import make_subspace
from rayfed_hn.federation.rules import check_memory
from rayfed_hn.federation.wire import Message
from rayfed_hn.models.parameters import ParameterLayout

if TYPE_CHECKING:
    from rayfed_hn.federation.plan import Plan


class _Nobody:
    def answer(self, request: Request) -> Message:
        raise NotImplementedError


def check_plan(plan: Plan) -> None:
    """Refuse what the server could not hold, and files that cannot be used.

    Raises:
        ConfigError: Names the key and the remedy.
    """
    config, size = plan.config, ParameterLayout.of(plan.model()).size
    check_memory(config, size, len(plan.participants))
    make_subspace(config, size)
    if config.run.keep_messages:
        check_kept(size, plan.num_exchanges)
    plan.executor(InProcessExecutor(_Nobody()))
    _check_numbers(plan)
    _check_budget(plan)


def _check_numbers(plan: Plan) -> None:
    present, needed = len(plan.participants), plan.config.rounds.min_sites
    if needed > present and not plan.pooled:
        raise ConfigError(
            f"rounds.min_sites: got {needed}, but {present} sites take part; give at most so many"
        )
    robust = plan.schedule().config.robust
    if robust != "none" and present < FEWEST_VOTES:
        raise ConfigError(
            f"rounds.robust: {robust} needs {FEWEST_VOTES} sites, and {present} take part; set it "
            "to none"
        )


def _check_budget(plan: Plan) -> None:
    """Where the noise is given, only now it is known what it comes to."""
    budget, epsilon = plan.config.privacy.budget, plan.promise().get("epsilon")
    if budget is not None and epsilon is not None and epsilon > budget * (1 + 1e-6):
        raise ConfigError(
            f"privacy.budget: got {budget:g}, less than the epsilon of {epsilon:.4g} of this run "
            "alone; raise privacy.noise_multiplier, or ask for fewer rounds.num_versions"
        )
