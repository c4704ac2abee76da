"""Which network of a site is reported at the end, chosen on its validation bags alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rayfed_hn.files import write_atomically


@dataclass
class BestVersion:
    """The received network with the highest validation AUC so far.

    Of equal ones the latest counts: on a handful of bags many versions are perfect, and the later
    one has seen more. Observing a version again (after a resume) changes nothing.

    Attributes:
        version: Its version; -1 before any has a defined AUC.
        auc: Its validation AUC.
        parameters: float32 (P,), or None before any.
    """

    version: int = -1
    auc: float = -1.0
    parameters: Tensor | None = None

    def observe(self, version: int, auc: float | None, parameters: Tensor) -> None:
        """Take the validation AUC of the network received at a version; None: undefined."""
        if auc is not None and auc >= self.auc:
            self.version, self.auc, self.parameters = version, auc, parameters.clone()

    def choose(self, last_version: int, last: Tensor) -> tuple[int, Tensor]:
        """The best version, or the last one where validation was never defined."""
        if self.parameters is None:
            return last_version, last
        return self.version, self.parameters

    def save(self, path: Path) -> None:
        """Write the state, if there is any."""
        if self.parameters is not None:
            tensors = {
                "parameters": self.parameters,
                "version_and_auc": torch.tensor([self.version, self.auc], dtype=torch.float64),
            }
            write_atomically(path, lambda temporary: save_file(tensors, temporary))

    def load(self, path: Path) -> None:
        """Read the state back, if it was ever saved.

        It may be one version ahead of the server's last commit; that version will be observed
        again, with the same result.
        """
        if not path.exists():
            return
        with safe_open(path, framework="pt") as file:
            version, auc = file.get_tensor("version_and_auc").tolist()
            self.version, self.auc = int(version), auc
            self.parameters = file.get_tensor("parameters")
