"""Tile encoders: from pixels to features, behind one protocol."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError


class TileEncoder(Protocol):
    """Turns tiles into features; the same tile always into the same features.

    Attributes:
        name: The encoder's name in ``embed.encoder``.
        feature_dim: D, the number of features of a tile.
        digest: SHA-256 (hex) of whatever decides the features: weights, or code and constants.
    """

    @property
    def name(self) -> str: ...
    @property
    def feature_dim(self) -> int: ...
    @property
    def digest(self) -> str: ...

    def encode(self, tiles_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 tiles (N, H, W, 3) into float32 features (N, D)."""
        ...


def make_encoder(config: EmbedConfig, device: str = "cpu") -> TileEncoder:
    """Make the encoder that ``embed.encoder`` names.

    Args:
        config: The ``embed`` section.
        device: Torch device of ``resnet50``; ``texture`` always runs on the CPU.

    Raises:
        ConfigError: ``embed.weights`` is missing, unreadable, or not what the encoder needs.
    """
    # Imported here: torch takes seconds, and most runs of `texture` never need it.
    if config.encoder == "texture":
        if config.weights is not None:
            raise ConfigError(
                f"embed.weights={config.weights} was given, but embed.encoder=texture has no "
                "weights; drop it, or set embed.encoder=resnet50"
            )
        from rayfed_hn.slides.texture import TextureEncoder

        return TextureEncoder()
    if config.weights is None:
        raise ConfigError(
            "embed.encoder=resnet50 needs embed.weights: the path of torchvision's "
            "resnet50-0676ba61.pth or resnet50-11ad3fa6.pth; embed.encoder=texture needs no weights"
        )
    from rayfed_hn.slides.resnet import ResNet50Encoder

    return ResNet50Encoder(config.weights, device)
