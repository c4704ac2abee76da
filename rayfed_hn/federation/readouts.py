"""Which network of a hospital is reported at the end, chosen on its validation bags alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rayfed_hn.errors import DataError
from rayfed_hn.files import write_atomically
from rayfed_hn.saving import saving


@dataclass
class BestVersion:
    """The received network with the highest validation metric of one hospital so far.

    Of equal ones the latest counts: on a handful of bags many versions are perfect, and the later
    one has seen more. Observing a version again (after a resume) changes nothing.

    Attributes:
        version: Its version; -1 before any has a defined metric.
        metric: Its validation metric.
        parameters: float32 (P,), or None before any.
    """

    version: int = -1
    metric: float = -1.0
    parameters: Tensor | None = None

    def observe(self, version: int, metric: float | None, parameters: Tensor) -> bool:
        """Take the metric of the network received at a version; True if it is the best now."""
        better = metric is not None and metric >= self.metric
        if better and metric is not None:
            self.version, self.metric, self.parameters = version, metric, parameters.clone()
        return better

    def choose(self, last_version: int, last: Tensor) -> tuple[int, Tensor]:
        """The best version, or the last one where validation was never defined."""
        if self.parameters is None:
            return last_version, last
        return self.version, self.parameters


class BestVersions:
    """One ``BestVersion`` for every hospital that a participant holds bags of.

    Every hospital chooses on its own bags, pooled training included: otherwise that baseline would
    be chosen by what tells hospitals apart, and not by what tells its slides apart.
    """

    def __init__(self, num_origins: int) -> None:
        self.by_origin = [BestVersion() for _ in range(num_origins)]

    def observe(self, version: int, metrics: Sequence[float | None], parameters: Tensor) -> bool:
        """Take the metric at every hospital; True if any of them has a new best."""
        pairs = zip(self.by_origin, metrics, strict=True)
        news = [
            best.observe(version, metric, parameters) for best, metric in pairs
        ]  # all must see it
        return any(news)

    def save(self, path: Path) -> None:
        """Write the state atomically."""
        tensors: dict[str, Tensor] = {}
        for number, best in enumerate(self.by_origin):
            if best.parameters is not None:
                state = torch.tensor([best.version, best.metric], dtype=torch.float64)
                tensors |= {f"parameters.{number}": best.parameters, f"state.{number}": state}
        with saving(path):
            write_atomically(path, lambda temporary: save_file(tensors, temporary))

    def load(self, path: Path) -> None:
        """Read the state back, if it was ever saved.

        It may be one version ahead of the server's last commit; that version will be observed
        again, with the same result.

        Raises:
            DataError: The file is damaged.
        """
        if not path.exists():
            return
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys())
                for number, best in enumerate(self.by_origin):
                    if f"state.{number}" in names:
                        version, best.metric = file.get_tensor(f"state.{number}").tolist()
                        best.version = int(version)
                        best.parameters = file.get_tensor(f"parameters.{number}")
        except (SafetensorError, ValueError) as error:
            raise DataError(f"{path.name} of a site is damaged ({error})") from error
