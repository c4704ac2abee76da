"""Networks as one program that needs nothing but torch: features in, predictions out.

Shapes: C networks, N tiles, D features, E evidence, V values that are predicted.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayfed_hn.models.parameters import ParameterLayout
from rayfed_hn.models.site_model import SiteModel
from rayfed_hn.models.tasks import Task

ABOUT = "about.json"  # the file inside of the program's that says what it takes and gives
_TRACED_TILES = 7  # any number but 0 and 1, which exporting takes for constants


def export_program(
    model: SiteModel,
    candidates: Sequence[Tensor],
    share_C: np.ndarray,
    task: Task,
    about: Mapping[str, Any],
) -> bytes:
    """The bytes of a file of ``torch.export``.

    The program takes float32 (N, D), N >= 1, as it is in a bag store, and gives float32 (V,): the
    probability of every class or grade, or the risk.

    Args:
        model: Shapes.
        candidates: Networks, float32 (P,) each, for features as they are in a bag store.
        share_C: What their evidence is multiplied by, float64 (C,).
        task: What is predicted.
        about: What the file says of itself, JSON-ready.
    """
    program = _Program(model, candidates, share_C, task).eval()
    example_ND = torch.zeros(_TRACED_TILES, model.projection.in_features)
    tiles = torch.export.Dim("tiles", min=1)
    with torch.no_grad():
        exported = torch.export.export(program, (example_ND,), dynamic_shapes=({0: tiles},))
    file = io.BytesIO()
    torch.export.save(exported, file, extra_files={ABOUT: json.dumps(about, sort_keys=True)})
    return file.getvalue()


class _Program(nn.Module):
    share_C: Tensor

    def __init__(
        self,
        model: SiteModel,
        candidates: Sequence[Tensor],
        share_C: np.ndarray,
        task: Task,
    ) -> None:
        super().__init__()
        self._task = task
        self.networks = nn.ModuleList(_filled(model, network) for network in candidates)
        self.register_buffer("share_C", torch.tensor(share_C, dtype=torch.float64))

    def forward(self, features_ND: Tensor) -> Tensor:
        logits = [network(features_ND)[0][None] for network in self.networks]
        evidence_CE = torch.cat([self._task.evidence(logits_1O) for logits_1O in logits])
        if len(logits) > 1:  # rounded to float32 after mixing, as readouts are
            evidence_CE = (self.share_C @ evidence_CE.double()).float()[None]
        return _values(self._task, evidence_CE[0].double()).float()


def _values(task: Task, evidence_E: Tensor) -> Tensor:
    """What ``Task.predict`` makes of evidence; of two classes the probability of both."""
    if task.kind == "binary":
        second = torch.sigmoid(evidence_E)
        return torch.cat([1 - second, second])
    if task.kind == "multiclass":
        return torch.softmax(evidence_E, dim=0)
    if task.kind == "ordinal":
        higher_E, one = torch.sigmoid(evidence_E), torch.ones_like(evidence_E[:1])
        reached_K = torch.cumprod(torch.cat([one, higher_E]), dim=0)
        return reached_K * torch.cat([1 - higher_E, one])
    return evidence_E


def _filled(model: SiteModel, network_P: Tensor) -> nn.Module:
    """A model that owns its parameters: views of one vector would each be saved as all of it."""
    named = ParameterLayout.of(model).unflatten(network_P)
    filled = copy.deepcopy(model)  # of shapes alone
    filled.load_state_dict({name: view.clone() for name, view in named.items()}, assign=True)
    return filled.requires_grad_(False)
