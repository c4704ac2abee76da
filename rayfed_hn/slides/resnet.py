"""ResNet-50 (He et al. 2016) up to layer 3 with global average pooling: 1024 features a tile.

The field's standard "ResNet50" features (CLAM, TRIDENT) are these, not the 2048 of layer 4. The
parameter names are torchvision's, so that its own weight files load as they are.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoder_card import EncoderCard
from rayfed_hn.slides.state_dicts import digest_of, fill, parse_state
from rayfed_hn.slides.torch_encoder import IMAGENET_MEAN, IMAGENET_STD, TorchEncoder, placing
from rayfed_hn.slides.weight_files import read_checked

INPUT_PX = 224  # what the weights were trained at
STAGES = (("layer1", 64, 3, 1), ("layer2", 128, 4, 2), ("layer3", 256, 6, 2))  # width, blocks, step
EXPANSION = 4
IGNORED = ("layer4.", "fc.")  # in the file, but past the point where features are taken
REMEDY = (
    "give torchvision's own file: resnet50-0676ba61.pth (IMAGENET1K_V1) or resnet50-11ad3fa6.pth "
    "(IMAGENET1K_V2), or the same tensors as .safetensors"
)
CARD = EncoderCard(
    name="resnet50",
    feature_dim=1024,
    input_px=INPUT_PX,
    mpp=None,  # made for photographs; the field uses it at 0.5 um/px and 256 px
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    licence="weights: see torchvision (BSD-3-Clause code; trained on ImageNet, whose pictures are "
    "for non-commercial research)",
    source="He et al. 2016, layer 3 averaged; https://docs.pytorch.org/vision",
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

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        for name, *_ in STAGES:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


def resnet50_encoder(config: EmbedConfig, device: str = "cpu") -> TorchEncoder:
    """Make the ``resnet50`` encoder from torchvision's weights.

    Tiles larger than 224 px are made smaller, none is made larger.

    Args:
        config: ``embed.weights``, ``embed.weights_sha256`` and ``embed.batch_tiles``.
        device: Torch device.

    Raises:
        ConfigError: The file is absent, damaged, not the one declared, or not a ResNet-50.
    """
    if config.weights is None:
        raise ConfigError(f"embed.encoder=resnet50 needs embed.weights; {REMEDY}")
    path = Path(config.weights)
    state = parse_state(
        read_checked(path, "embed.weights", config.weights_sha256, REMEDY), path, REMEDY
    )
    needed = {name: t for name, t in state.items() if not name.startswith(IGNORED)}
    trunk = ResNet50Trunk()
    fill(trunk, needed, path, "a ResNet-50", REMEDY)
    return TorchEncoder(
        placing(trunk),
        CARD,
        f"resnet50 {digest_of(trunk)}",
        device=device,
        batch_tiles=config.batch_tiles,
    )
