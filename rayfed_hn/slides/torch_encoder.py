"""What all encoders with a network share: bytes to the device, and all arithmetic there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rayfed_hn.bags.limits import MAX_FEATURES
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoder_card import EncoderCard

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# How tiles are resized and normalised; raise it with every change that moves a feature.
VERSION = 2
# Tiles at once on a CPU: a third to a half faster than one by one, and as fast as 32.
CPU_BATCH = 16

Network = Callable[[Tensor], Tensor]
Precision = Literal["float32", "bfloat16", "tf32"]


def placing(network: nn.Module) -> Callable[[torch.device], Network]:
    """Return what brings a network to a device, in the layout in which convolutions are fast."""
    network.eval()
    return lambda device: network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@torch.inference_mode()
def probe(network: Network, side_px: int, sizes: tuple[int, ...]) -> int:
    """Return how many features a network gives for a tile, from batches of zeros.

    Args:
        network: Takes float32 (N, 3, side_px, side_px), on the CPU.
        side_px: Side of the tiles in pixels.
        sizes: Every N to try.

    Raises:
        ValueError: It fails, or gives something other than (N, D) finite numbers, the same for the
            same tiles.
    """
    try:
        outputs = [network(torch.zeros(n, 3, side_px, side_px)) for n in sizes]
    except Exception as error:  # the network may be anybody's
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"fails on (N, 3, {side_px}, {side_px}): {line[:200]}") from None
    for n, features in zip(sizes, outputs, strict=True):
        if not isinstance(features, Tensor):
            raise ValueError(f"gives {type(features).__name__}, not a tensor (N, D)")
        if features.ndim != 2 or len(features) != n or not 0 < features.shape[1] <= MAX_FEATURES:
            raise ValueError(f"gives shape {tuple(features.shape)} for {n} tiles, not ({n}, D)")
        if not features.is_floating_point() or not features.isfinite().all():
            raise ValueError(f"gives {features.dtype} that are not all finite numbers")
    rows = torch.cat([features.float() for features in outputs])
    if not torch.allclose(rows, rows[:1].expand_as(rows), rtol=1e-3, atol=1e-5):
        raise ValueError("gives other features for the same tile (is it in training mode?)")
    return rows.shape[1]


class TorchEncoder:
    """An encoder that is a network.

    Tiles are resized as wholes (bilinear, with antialiasing) and normalised on the device. They go
    through the network in batches of one size, the last one filled up with black, so that features
    do not depend on what else is encoded: on a CPU not by a bit.

    Args:
        place: Brings the network to a device; called at the first tile, so that a machine without
            a GPU can still tell the digest of an encoder that runs on one.
        card: Its facts.
        identity: Whatever decides the network's features, such as the digest of its weights.
        device: Torch device.
        batch_tiles: Tiles at once on a GPU.
        as_exported: The network has settled its own precision and memory layout.

    Attributes:
        card: Its facts.
        precision: In which it computes: ``float32`` on a CPU; on a GPU ``bfloat16`` under autocast,
            or, as exported, ``tf32`` (torch's default for convolutions there).
        digest: SHA-256 (hex) of identity, card, ``VERSION`` and precision: bags made in different
            precisions are never mixed.
    """

    def __init__(
        self,
        place: Callable[[torch.device], Network],
        card: EncoderCard,
        identity: str,
        *,
        device: str,
        batch_tiles: int,
        as_exported: bool = False,
    ) -> None:
        self.card = card
        self._place = place
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        self._batch = batch_tiles if self._on_gpu else CPU_BATCH
        self._as_exported = as_exported
        self.precision: Precision = "float32"
        if self._on_gpu:
            self.precision = "tf32" if as_exported else "bfloat16"
        resizing = (card.input_px, card.enlarges, card.mean, card.std)
        recipe = json.dumps([identity, *resizing, VERSION, self.precision])
        self.digest = hashlib.sha256(recipe.encode()).hexdigest()

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def feature_dim(self) -> int:
        return self.card.feature_dim

    def encode(self, tiles_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 tiles (N, H, H, 3) into float32 features (N, D).

        Raises:
            ValueError: The tiles are not uint8 (N, H, H, 3).
            ConfigError: The GPU has not enough memory.
        """
        shape = tiles_NHW3.shape
        fits = len(shape) == 4 and shape[3] == 3 and shape[1] == shape[2]
        if not fits or tiles_NHW3.dtype != np.uint8:
            raise ValueError(f"tiles must be square, uint8 (N, H, H, 3), not {shape}")
        starts = range(0, len(tiles_NHW3), self._batch)
        try:
            parts = [self._encode(tiles_NHW3[k : k + self._batch]) for k in starts]
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"embed.batch_tiles={self._batch}: the GPU has not enough memory for so many tiles "
                f"of {shape[1]} px in {self.name}; lower embed.batch_tiles, or raise "
                "resources.gpus_per_encoder so that fewer workers share a GPU"
            ) from None
        return np.concatenate([np.empty((0, self.feature_dim), dtype=np.float32), *parts])

    @cached_property
    def _network(self) -> Network:
        return self._place(self._device)

    @cached_property
    def _mean_and_std(self) -> tuple[Tensor, Tensor]:
        mean, std = self.card.mean or (0.0, 0.0, 0.0), self.card.std or (1.0, 1.0, 1.0)
        as_planes = [torch.tensor(v, device=self._device).view(1, 3, 1, 1) for v in (mean, std)]
        return as_planes[0], as_planes[1]

    @torch.inference_mode()
    def _encode(self, tiles_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Bytes travel to the device, a quarter of what floats would take.
        shape = (self._batch, *tiles_NHW3.shape[1:])
        pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._on_gpu)
        pixels.numpy()[: len(tiles_NHW3)] = tiles_NHW3
        x = self._prepare(pixels.to(self._device, non_blocking=True))
        half = self._on_gpu and not self._as_exported
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half):
            features_ND = self._network(x)
        return features_ND[: len(tiles_NHW3)].float().cpu().numpy()

    def _prepare(self, pixels_NHW3: Tensor) -> Tensor:
        """Bytes (N, H, W, 3) to normalised float32 (N, 3, H', W')."""
        x = pixels_NHW3.permute(0, 3, 1, 2).float().div(255)
        side = self.card.seen_px(x.shape[2])
        if x.shape[2] != side:
            x = functional.interpolate(
                x, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
        mean, std = self._mean_and_std
        layout = torch.contiguous_format if self._as_exported else torch.channels_last
        return ((x - mean) / std).contiguous(memory_format=layout)
