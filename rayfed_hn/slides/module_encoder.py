"""The ``module:<file>`` encoders: a network as its author exported it, from one file.

The contract: it takes float32 (N, 3, H, W), RGB normalised with ImageNet's mean and deviation (see
``torch_encoder.py``), H = W = ``embed.tile_px``, for any N; it gives features (N, D). ``.pt2`` is a
program of ``torch.export`` (with a dynamic first dimension), ``.pt`` and ``.ts`` are TorchScript.
Such files can run code. They are refused unless ``embed.trust_code`` is true and the file's SHA-256
is the declared one, which is checked before a byte of it is parsed.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.export.passes import move_to_device_pass

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoder_card import EncoderCard
from rayfed_hn.slides.torch_encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Network,
    TorchEncoder,
    probe,
)
from rayfed_hn.slides.weight_files import read_checked

Place = Callable[[torch.device], Network]
REMEDY = "export it for inputs (N, 3, H, W) with any N, in evaluation mode (see docs)"


def module_encoder(config: EmbedConfig, device: str = "cpu") -> TorchEncoder:
    """Make a ``module:<file>`` encoder.

    Args:
        config: The ``embed`` section; its file, trust and SHA-256 are those ``check_encoder`` saw.
        device: Torch device.

    Raises:
        ConfigError: The file is not the declared one, cannot be loaded, or does not give features.
    """
    path = Path(config.encoder.removeprefix("module:"))
    if not config.trust_code or config.weights_sha256 is None:
        raise ConfigError(
            f"embed.encoder=module:{path.name} needs embed.trust_code and embed.weights_sha256"
        )
    data = read_checked(path, "embed.encoder", config.weights_sha256, REMEDY)
    place = _load(data, path)
    try:
        feature_dim = probe(place(torch.device("cpu")), config.tile_px, sizes=(2, 3))
    except ValueError as error:
        raise ConfigError(f"embed.encoder={path} {error}; {REMEDY}") from None
    card = EncoderCard(
        name=f"module:{path.name}",
        feature_dim=feature_dim,
        input_px=config.tile_px,
        mpp=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        licence="that of the file, which its author states",
        source=f"file of SHA-256 {config.weights_sha256.lower()}",
    )
    identity = f"module {config.weights_sha256.lower()}"
    return TorchEncoder(
        place, card, identity, device=device, batch_tiles=config.batch_tiles, as_exported=True
    )


def _load(data: bytes, path: Path) -> Place:
    """Load the very bytes that were hashed."""
    try:
        if path.suffix == ".pt2":
            return _exported(data)
        return _torchscript(data)
    except Exception:  # a damaged file makes the readers raise nearly anything
        raise ConfigError(
            f"embed.encoder={path} cannot be loaded by torch {torch.__version__}; export it again "
            "with this version (.pt2: torch.export.save; .pt or .ts: torch.jit.save)"
        ) from None


def _exported(data: bytes) -> Place:
    program = torch.export.load(io.BytesIO(data))
    # A program carries the devices it was exported on in its operations, not in its tensors alone.
    return lambda device: move_to_device_pass(program, device).module()


def _torchscript(data: bytes) -> Place:
    with warnings.catch_warnings():  # torch.export succeeds TorchScript, but files remain
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(io.BytesIO(data), map_location="cpu")
    module.eval()
    return module.to
