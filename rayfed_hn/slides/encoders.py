"""Tile encoders: from pixels to features, behind one protocol."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoder_card import EncoderCard
from rayfed_hn.slides.weight_files import check_file

KINDS = ("texture", "resnet50", "timm:", "module:")
MODULE_SUFFIXES = (".pt2", ".pt", ".ts")


class TileEncoder(Protocol):
    """Turns tiles into features; the same tile always into the same features.

    Attributes:
        name: The encoder's name in ``embed.encoder``, without folders.
        feature_dim: D, the number of features of a tile.
        digest: SHA-256 (hex) of whatever decides the features: weights, or code and constants, and
            the precision.
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


class CardedEncoder(TileEncoder, Protocol):
    """One of ours: it also states what it is in its ``card``."""

    @property
    def card(self) -> EncoderCard: ...


def check_encoder(config: EmbedConfig) -> None:
    """Check what can be checked of ``embed.encoder`` before anything starts.

    Raises:
        ConfigError: The name is unknown, a file is missing, a SHA-256 or the trust key is missing
            where it is needed, a key is given that the encoder does not use, or timm is not
            installed.
    """
    kind = _kind(config.encoder)
    _check_sha256(config, kind)
    if kind == "timm:":
        from rayfed_hn.slides.timm_encoder import check_timm

        check_timm(config)
    elif kind == "module:":
        _check_module(config)
    elif kind == "resnet50":
        _check_resnet50(config)
    elif config.weights is not None:
        raise ConfigError(
            f"embed.weights={config.weights} was given, but embed.encoder=texture has no "
            "weights; drop it, or set embed.encoder=resnet50"
        )


def make_encoder(config: EmbedConfig, device: str = "cpu") -> CardedEncoder:
    """Make the encoder that ``embed.encoder`` names.

    A GPU is first touched at the first tile: on a machine that has none, ``device="cuda"`` still
    gives the name, the card and the digest of the encoder that others run.

    Args:
        config: The ``embed`` section.
        device: Torch device; ``texture`` always runs on the CPU.

    Raises:
        ConfigError: As ``check_encoder``; or a file is damaged, not the declared one, or not what
            the encoder needs.
    """
    check_encoder(config)
    # Imported here: torch takes seconds, and most runs of `texture` never need it.
    match _kind(config.encoder):
        case "texture":
            from rayfed_hn.slides.texture import TextureEncoder

            return TextureEncoder()
        case "resnet50":
            from rayfed_hn.slides.resnet import resnet50_encoder

            return resnet50_encoder(config, device)
        case "timm:":
            from rayfed_hn.slides.timm_encoder import timm_encoder

            return timm_encoder(config, device)
        case _:
            from rayfed_hn.slides.module_encoder import module_encoder

            return module_encoder(config, device)


def _kind(encoder: str) -> str:
    kind, colon, rest = encoder.partition(":")
    if kind + colon in KINDS and bool(rest) == bool(colon):
        return kind + colon
    near = difflib.get_close_matches(kind.lower(), [name.rstrip(":") for name in KINDS], n=1)
    names = "texture, resnet50, timm:NAME or module:FILE"
    right = {"timm": "timm:NAME", "module": "module:FILE"}.get(near[0], near[0]) if near else ""
    hint = f"did you mean {right}? " if right else ""
    raise ConfigError(f"embed.encoder: got {encoder!r}; {hint}allowed: {names}")


def _check_sha256(config: EmbedConfig, kind: str) -> None:
    sha256 = config.weights_sha256
    if sha256 is None:
        return
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(
            f"embed.weights_sha256={sha256} is no SHA-256: give its 64 hexadecimal digits, as "
            "'sha256sum FILE' prints them"
        )
    if kind == "texture" or (kind == "timm:" and config.weights is None):
        raise ConfigError(
            "embed.weights_sha256 was given, but there is no file to hold it against; drop it, or "
            "give embed.weights"
        )


def _check_resnet50(config: EmbedConfig) -> None:
    if config.weights is None:
        raise ConfigError(
            "embed.encoder=resnet50 needs embed.weights: the path of torchvision's "
            "resnet50-0676ba61.pth or resnet50-11ad3fa6.pth; embed.encoder=texture needs no weights"
        )
    remedy = "give torchvision's resnet50-0676ba61.pth or resnet50-11ad3fa6.pth"
    check_file(Path(config.weights), "embed.weights", remedy)


def _check_module(config: EmbedConfig) -> None:
    path = Path(config.encoder.removeprefix("module:"))
    if path.suffix not in MODULE_SUFFIXES:
        raise ConfigError(
            f"embed.encoder={config.encoder}: must end in .pt2 (torch.export) or in .pt or .ts "
            "(TorchScript)"
        )
    if config.weights is not None:
        raise ConfigError(
            f"embed.weights={config.weights} was given, but embed.encoder=module:FILE holds its "
            "own weights; drop it"
        )
    check_file(path, "embed.encoder", "give the path of the exported file after 'module:'")
    if not config.trust_code or config.weights_sha256 is None:
        raise ConfigError(
            f"embed.encoder={config.encoder} can run code of its author here: give "
            "embed.weights_sha256, as its author states it, and embed.trust_code=true if you trust "
            "them"
        )
