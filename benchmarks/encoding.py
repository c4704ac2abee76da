"""Images a second of the ResNet-50 trunk: through the encoder, and as a bare forward.

The encoder takes bytes from memory, sends, resizes and normalises them, and brings features back;
the bare forward has its input on the device already, and is compiled by PyTorch on a GPU. Random
weights: their values do not matter for speed.

    python benchmarks/encoding.py [--device cuda] [--tiles 1024] [--batch 256]
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from hardware import name_of

from rayfed_hn.machine import seconds_of
from rayfed_hn.slides.resnet import CARD, ResNet50Trunk
from rayfed_hn.slides.torch_encoder import CPU_BATCH, TorchEncoder, placing

SIDE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    device, on_gpu = options.device, options.device != "cpu"
    batch = options.batch if on_gpu else CPU_BATCH
    trunk = ResNet50Trunk()
    encoder = TorchEncoder(placing(trunk), CARD, "random", device=device, batch_tiles=batch)
    tiles = np.random.default_rng(0).integers(0, 256, (options.tiles, SIDE, SIDE, 3), np.uint8)
    encoded = seconds_of(lambda: encoder.encode(tiles), device, options.times)
    bare = torch.compile(trunk) if on_gpu else trunk
    x = torch.rand(batch, 3, SIDE, SIDE, device=device).contiguous(
        memory_format=torch.channels_last
    )

    @torch.inference_mode()
    def forward() -> None:
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=on_gpu):
            bare(x)

    passed = seconds_of(forward, device, options.times)
    through, alone = options.tiles / encoded, batch / passed
    print(json.dumps({
        "device": name_of(device),
        "torch": torch.__version__,
        "precision": encoder.precision,
        "batch": batch,
        "encoder_images_s": round(through, 1),
        "bare_forward_images_s": round(alone, 1),
        "share": round(through / alone, 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
