"""Features of tiles, read off the first layer of an update.

The first layer is h = W x + b. The gradient of row j is sum_n g_nj x_n for W, and sum_n g_nj for b,
so that their ratio is a weighted mean of the tiles' features: for a bag of one tile the tile
itself, in closed form, whatever the rest of the network is (Phong et al. 2018, for single inputs).

Shapes: H rows, N tiles of a bag, D features, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rayfed_hn.audit.measures import Measured, measure
from rayfed_hn.audit.members import candidates
from rayfed_hn.audit.run import AuditedRun, AuditedSite
from rayfed_hn.federation.data import SiteBag
from rayfed_hn.federation.messages import TrainRequest
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.federation.site_trainer import LocalTraining, SiteTrainer
from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.registry import make_model
from rayfed_hn.models.standardise import FIRST_LAYER
from rayfed_hn.privacy.mechanisms import TrainedPrivately
from rayfed_hn.seeds import derive

SINGLES = 8  # bags of a site that are tried one by one
ONE_STEP_RATE = 0.1  # of plain SGD: large enough that float32 keeps the gradient's digits


@dataclass(frozen=True)
class Inverted:
    """Relative errors |row - x| / |x| of the best row; 0 is the tile itself, 1 as good as zeros.

    The best row is found by looking at the truth, so that no attacker does better with one row.

    Attributes:
        one_step: Of bags of one tile, after one step of plain SGD without dropout: the median.
        one_step_best: The smallest.
        trained_on: Of the bags that the run trained on, in the messages as they are: the median
            over bags of the best tile of each.
        never_seen: The same of bags that nobody trained on: what chance gives.
        told_apart: How well the error tells the ones from the others.
    """

    one_step: float
    one_step_best: float
    trained_on: float | None
    never_seen: float | None
    told_apart: Measured | None


def invert(run: AuditedRun, on_exchange: Callable[[], object] = lambda: None) -> Inverted:
    """Try to read tiles off updates.

    Args:
        run: What is attacked.
        on_exchange: Called after each of its exchanges.
    """
    singles = [error for site in run.sites.values() for error in _one_step_errors(run, site)]
    member, errors, cases = [], [], []
    for site in run.sites.values():
        own = candidates(run.plan, site, site.exchanges)
        best_B = np.full(len(own.bags), np.inf)
        for exchange in site.exchanges:
            rows_HD = rows_of(run.plan, torch.tensor(exchange.update))
            found = [nearest(rows_HD, bag.tensor()) for bag in own.bags]
            best_B = np.minimum(best_B, found)
            on_exchange()
        member.append(own.member_B)
        errors.append(best_B)
        cases.append(own.case_B)
    member_B, error_B = np.concatenate(member), np.concatenate(errors)
    told = measure(member_B, -error_B, np.concatenate(cases), level=run.plan.config.audit.level)
    return Inverted(
        one_step=float(np.median(singles)),
        one_step_best=float(np.min(singles)),
        trained_on=_median(error_B[member_B]),
        never_seen=_median(error_B[~member_B]),
        told_apart=told,
    )


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def rows_of(plan: Plan, update_P: Tensor) -> Tensor:
    """Ratios of the rows of the first layer whose bias has moved, float32 (H, D)."""
    tensors = ParameterLayout.of(plan.model()).unflatten(update_P)
    weight_HD, bias_H = (tensors[f"{FIRST_LAYER}.{name}"] for name in ("weight", "bias"))
    moved_H = bias_H != 0
    ratios_HD = weight_HD[moved_H] / bias_H[moved_H, None]
    return ratios_HD[torch.isfinite(ratios_HD).all(dim=1)]


def nearest(rows_HD: Tensor, features_ND: Tensor) -> float:
    """The smallest relative error of any row against any tile; 1 without rows."""
    length_N = features_ND.norm(dim=1)
    if not len(rows_HD) or not (length_N > 0).any():
        return 1.0
    features_ND, length_N = features_ND[length_N > 0], length_N[length_N > 0]
    best = int((torch.cdist(rows_HD, features_ND) / length_N).argmin())
    row, tile = divmod(best, len(features_ND))
    # Distances by products are fast, and rough where they are small: the best is measured again.
    return min(1.0, float((rows_HD[row] - features_ND[tile]).norm() / length_N[tile]))


def _one_step_errors(run: AuditedRun, site: AuditedSite) -> Iterator[float]:
    """Of the first tile of some bags, each trained on alone from the first network sent."""
    for number, bag in enumerate(site.data.train[:SINGLES]):
        (tile_1D,) = bag.parts(np.array([0]))[:1]
        single = replace(bag, features_ND=tile_1D, more=())
        update_P = one_step(run.plan, site, single, number)
        yield nearest(rows_of(run.plan, update_P), single.tensor())


def one_step(plan: Plan, site: AuditedSite, bag: SiteBag, number: int = 0) -> Tensor:
    """What a site with this bag alone releases after one step of SGD without dropout, (P,).

    The run's own mechanism is applied. Private steps take the bag for certain.

    Args:
        plan: Of the run.
        site: Its first exchange says which network is trained.
        bag: All that it has.
        number: Tells the noise of this from that of others.
    """
    config, first = plan.config, site.exchanges[0]
    training = replace(
        config.training,
        optimiser="sgd",
        weight_decay=0.0,
        class_balanced=False,
        instance_dropout=0.0,
        clip_gradient=None,
        patience=None,
    )
    seed = derive(config.run.seed, "audit of one step", config.audit.seed, site.name, number)
    mechanism = plan.mechanism()
    if isinstance(mechanism, TrainedPrivately):
        mechanism = replace(mechanism, sampling_rate=1.0)
    model_config = replace(config.model, dropout=0.0)
    setup = replace(
        plan.setup(site.name),
        model=make_model(plan.feature_dim, plan.task.num_outputs, model_config),
        config=replace(config, training=training, run=replace(config.run, seed=seed)),
        training=LocalTraining(ONE_STEP_RATE, 1),
        mechanism=mechanism,
        noise_source="seeded",
    )
    trainer = SiteTrainer(replace(site.data, train=(bag,)), setup, SiteMemory(None))
    request = TrainRequest(site.name, first.version, first.received, first.turn)
    job = trainer.job(request, torch.tensor(first.received), {})
    return trainer.whole(trainer.release(request, job, trainer.train(job), {}).update)
