"""ResNet-50 (He et al. 2016) up to layer 3 with global average pooling: 1024 features a tile.

The field's standard "ResNet50" features (CLAM, TRIDENT) are these, not the 2048 of layer 4. The
parameter names are torchvision's, so that its own weight files load as they are.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from rayfed_hn.errors import ConfigError

INPUT_PX = 224  # what the weights were trained at
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STAGES = (("layer1", 64, 3, 1), ("layer2", 128, 4, 2), ("layer3", 256, 6, 2))  # width, blocks, step
EXPANSION = 4
IGNORED = ("layer4.", "fc.")  # in the file, but past the point where features are taken
BATCH = 64
REMEDY = (
    "give torchvision's own file: resnet50-0676ba61.pth (IMAGENET1K_V1) or resnet50-11ad3fa6.pth "
    "(IMAGENET1K_V2), or the same tensors as .safetensors"
)


class Bottleneck(nn.Module):
    """1x1, 3x3 (carries the stride, as in torchvision), 1x1, and the shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50Trunk(nn.Module):
    """Images (N, 3, H, W), normalised, to features (N, 1024)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for name, width, blocks, stride in STAGES:
            steps = [stride] + [1] * (blocks - 1)
            stage = []
            for step in steps:
                stage.append(Bottleneck(inputs, width, step))
                inputs = width * EXPANSION
            self.add_module(name, nn.Sequential(*stage))
        self.feature_dim = inputs

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        for name, *_ in STAGES:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


def file_digest(path: Path) -> str:
    """SHA-256 of a weight file, checked against the eight digits in torchvision's file names.

    Raises:
        ConfigError: The file is absent, or is not the one its name says.
    """
    if not path.is_file():
        raise ConfigError(f"embed.weights={path} is not a file; {REMEDY}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    named = re.fullmatch(r".+-([0-9a-f]{8})\.(pth|pt)", path.name)
    if named and not digest.startswith(named[1]):
        raise ConfigError(
            f"embed.weights={path} is damaged or renamed: its name promises a SHA-256 that begins "
            f"with {named[1]}, it begins with {digest[:8]}; download it again"
        )
    return digest


def read_state(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from ``.pth`` (no code is run) or ``.safetensors``.

    Raises:
        ConfigError: The file cannot be read, or holds something other than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError):
        raise ConfigError(f"embed.weights={path} cannot be read as weights; {REMEDY}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"embed.weights={path} holds no table of named tensors; {REMEDY}")
    return state


def check_state(state: dict[str, Tensor], trunk: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the tensors that the trunk needs.

    ``num_batches_tracked`` may be absent, as in torchvision's older file: nothing reads it.

    Raises:
        ConfigError: Names or shapes are not the published ones; the first few are listed.
    """
    wanted = trunk.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    found = {name: t for name, t in state.items() if not name.startswith(IGNORED)}
    complaints = [
        f"missing {name}" for name in wanted if name not in found | dict.fromkeys(counters)
    ]
    complaints += [f"unexpected {name}" for name in found if name not in wanted]
    complaints += [
        f"{name} has shape {tuple(t.shape)}, not {tuple(wanted[name].shape)}"
        for name, t in found.items()
        if name in wanted and t.shape != wanted[name].shape
    ]
    if complaints:
        more = f" and {len(complaints) - 3} more" if len(complaints) > 3 else ""
        raise ConfigError(
            f"embed.weights={path} is not a ResNet-50: {'; '.join(complaints[:3])}{more}; {REMEDY}"
        )
    return {name: wanted[name] for name in counters} | found


class ResNet50Encoder:
    """The ``resnet50`` encoder: 1024 features from torchvision's weights.

    Args:
        weights: Path of the weight file.
        device: Torch device.

    Attributes:
        digest: SHA-256 (hex) of the weight file.

    Raises:
        ConfigError: The file is absent, damaged, or not a ResNet-50.
    """

    name = "resnet50"

    def __init__(self, weights: str, device: str = "cpu") -> None:
        path = Path(weights)
        self.digest = file_digest(path)
        trunk = ResNet50Trunk()
        trunk.load_state_dict(check_state(read_state(path), trunk, path))
        self.feature_dim = trunk.feature_dim
        self._device = torch.device(device)
        self._trunk = trunk.eval().to(self._device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._mean = torch.tensor(IMAGENET_MEAN, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD, device=self._device).view(1, 3, 1, 1)

    def encode(self, tiles_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 tiles (N, H, W, 3) into features (N, 1024), float32.

        Tiles larger than 224 px are made smaller, none is made larger. On a GPU the kernels, and
        with them the last bits, may depend on the size of the batch.

        Raises:
            ValueError: The tiles are not uint8 (N, H, W, 3).
        """
        if tiles_NHW3.ndim != 4 or tiles_NHW3.shape[3] != 3 or tiles_NHW3.dtype != np.uint8:
            raise ValueError(f"tiles must be uint8 (N, H, W, 3), not {tiles_NHW3.shape}")
        parts = [self._encode(tiles_NHW3[k : k + BATCH]) for k in range(0, len(tiles_NHW3), BATCH)]
        return np.concatenate([np.empty((0, self.feature_dim), dtype=np.float32), *parts])

    @torch.inference_mode()
    def _encode(self, tiles_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Bytes travel to the device, a quarter of what floats would take. The copy is for tiles
        # that come from a read-only array, which torch warns of.
        pixels = torch.from_numpy(np.array(tiles_NHW3)).to(self._device)
        x = pixels.permute(0, 3, 1, 2).float().div(255)
        if max(x.shape[2:]) > INPUT_PX:
            x = functional.interpolate(
                x, size=(INPUT_PX, INPUT_PX), mode="bilinear", align_corners=False, antialias=True
            )
        x = ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        return self._trunk(x).float().cpu().numpy()
