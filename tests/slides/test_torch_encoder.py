"""What encoders with a network share: resizing, normalising, batches, precision, probing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoder_card import EncoderCard
from rayfed_hn.slides.torch_encoder import CPU_BATCH, TorchEncoder, probe

PIXELS = EncoderCard("pixels", 48, 4, None, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "", "")


def some_tiles(number: int, side: int) -> np.ndarray:
    """Random tiles, uint8 (N, side, side, 3)."""
    shape = (number, side, side, 3)
    return np.random.default_rng(side).integers(256, size=shape).astype(np.uint8)


def pixels_of(card: EncoderCard, device: str = "cpu", **more: bool) -> TorchEncoder:
    """An encoder whose features are the pixels that reach its network."""
    return TorchEncoder(
        lambda _: lambda x: x.flatten(1), card, "pixels", device=device, batch_tiles=5, **more
    )


def seen(card: EncoderCard, tiles: np.ndarray) -> np.ndarray:
    """Those pixels by Pillow: uint8 (N, H, W, 3)."""
    side = card.seen_px(tiles.shape[1])
    flat = pixels_of(replace(card, feature_dim=3 * side**2)).encode(tiles)
    x = flat.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    return 255 * (x * np.array(card.std) + np.array(card.mean))


@pytest.mark.parametrize("tile_px", [32, 48, 64])
@pytest.mark.parametrize("enlarges", [False, True])
def test_the_network_sees_what_pillow_would_show_it(tile_px: int, enlarges: bool):
    card = replace(PIXELS, input_px=48, enlarges=enlarges)
    tiles = some_tiles(3, tile_px)
    side = tile_px if tile_px < 48 and not enlarges else 48
    resized = [
        np.asarray(Image.fromarray(t).resize((side, side), Image.Resampling.BILINEAR))
        for t in tiles
    ]
    assert np.abs(seen(card, tiles) - np.stack(resized)).max() < 1.01  # Pillow rounds to bytes


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 2 * CPU_BATCH + 3), max_size=4))
def test_features_do_not_depend_on_how_tiles_are_batched(cuts: list[int]):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 7)).eval()
    card = replace(PIXELS, feature_dim=7)
    encoder = TorchEncoder(lambda _: network, card, "", device="cpu", batch_tiles=1)
    tiles = some_tiles(2 * CPU_BATCH + 3, 8)
    tiles.flags.writeable = False
    parts = [encoder.encode(part) for part in np.split(tiles, sorted(cuts))]
    assert np.array_equal(np.concatenate(parts), encoder.encode(tiles))


def test_digest_covers_what_decides_the_features():
    plain = pixels_of(PIXELS)
    others = [
        pixels_of(replace(PIXELS, input_px=5)),
        pixels_of(replace(PIXELS, enlarges=True)),
        pixels_of(replace(PIXELS, mean=(0.0, 0.0, 0.0))),
        pixels_of(replace(PIXELS, std=(1.0, 1.0, 1.0))),
        pixels_of(PIXELS, device="cuda"),
        pixels_of(PIXELS, device="cuda", as_exported=True),
    ]
    assert len({encoder.digest for encoder in (plain, *others)}) == 7
    assert [e.precision for e in others[-2:]] == ["bfloat16", "tf32"]
    assert pixels_of(replace(PIXELS, licence="other", name="other")).digest == plain.digest


def test_a_full_gpu_is_answered_with_the_key_to_lower():
    def full(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    encoder = TorchEncoder(lambda _: full, PIXELS, "", device="cpu", batch_tiles=5)
    with pytest.raises(ConfigError, match=r"lower embed\.batch_tiles, or raise resources"):
        encoder.encode(some_tiles(1, 8))


@pytest.mark.gpu
def test_on_a_gpu_pixels_arrive_as_on_a_cpu():
    tiles = some_tiles(7, 9)
    there, here = pixels_of(PIXELS, device="cuda").encode(tiles), pixels_of(PIXELS).encode(tiles)
    assert there == pytest.approx(here, abs=1e-5)


def test_probe_counts_features():
    assert probe(lambda x: x.mean((2, 3)), 32, (1, 2)) == 3


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda x: x, "gives shape"),
        (lambda x: x.mean((0, 2, 3)), "gives shape"),
        (lambda x: x.flatten(1)[:, :0], "gives shape"),
        (lambda x: x[:1].mean((2, 3)), "gives shape"),
        (lambda x: [x], "not a tensor"),
        (lambda x: x.mean((2, 3)).long(), "int64"),
        (lambda x: x.mean((2, 3)) / 0, "finite"),
        (lambda x: torch.rand(len(x), 4), "training mode"),
        (lambda x: x.view(len(x), 5, -1), r"fails on \(N, 3, 32, 32\)"),
    ],
)
def test_probe_refuses_what_gives_no_features(network: Callable[[Tensor], Tensor], words: str):
    with pytest.raises(ValueError, match=words):
        probe(network, 32, (2, 3))
