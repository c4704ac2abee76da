"""ResNet-50 against a re-derivation, and its weight files against the published names."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoders import check_encoder, make_encoder
from rayfed_hn.slides.resnet import ResNet50Trunk, resnet50_encoder
from rayfed_hn.slides.state_dicts import parse_state
from rayfed_hn.slides.torch_encoder import CPU_BATCH, TorchEncoder


def some_tiles(number: int, side: int = 64) -> np.ndarray:
    """Random tiles, uint8 (N, side, side, 3)."""
    shape = (number, side, side, 3)
    return np.random.default_rng(0).integers(256, size=shape).astype(np.uint8)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's resnet50, re-derived from He et al. 2016, Table 1.

    Equal, order included, to the state dict of the resnet50 of torchvision 0.28.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_bn(conv: str, norm: str, out: int, inp: int, side: int) -> None:
        shapes[f"{conv}.weight"] = (out, inp, side, side)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = (out,)
        shapes[f"{norm}.num_batches_tracked"] = ()

    conv_bn("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            conv_bn(f"{at}.conv1", f"{at}.bn1", width, inputs, 1)
            conv_bn(f"{at}.conv2", f"{at}.bn2", width, width, 3)
            conv_bn(f"{at}.conv3", f"{at}.bn3", 4 * width, width, 1)
            if block == 0:
                conv_bn(f"{at}.downsample.0", f"{at}.downsample.1", 4 * width, inputs, 1)
            inputs = 4 * width
    return shapes | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def made(path: Path, sha256: str | None = None) -> TorchEncoder:
    return resnet50_encoder(
        EmbedConfig(encoder="resnet50", weights=str(path), weights_sha256=sha256)
    )


def is_parameter(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random numbers under every published name, layer 4 and fc included."""
    generator = torch.Generator().manual_seed(0)
    out: dict[str, torch.Tensor] = {}
    for name, shape in published_shapes().items():
        if name.endswith("num_batches_tracked"):
            out[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            out[name] = torch.rand(shape, generator=generator) + 0.5
        elif name.startswith(("layer4", "fc.weight")):
            out[name] = torch.zeros(shape)  # ignored; zeros are quick to make
        else:
            fan_in = max(1, int(np.prod(shape[1:])))
            out[name] = torch.randn(shape, generator=generator) / fan_in**0.5
    return out


@pytest.fixture(scope="module")
def needed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same without what the trunk ignores: smaller files, quicker tests."""
    return {k: v for k, v in state.items() if not k.startswith(("layer4", "fc"))}


@pytest.fixture(scope="module")
def encoder(state: dict[str, torch.Tensor], tmp_path_factory) -> TorchEncoder:
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(state, path)
    return made(path)


def test_parameter_counts_are_the_published_ones():
    shapes = published_shapes()
    count = {name: int(np.prod(shape)) for name, shape in shapes.items() if is_parameter(name)}
    assert sum(count.values()) == 25_557_032  # what torchvision states
    kept = sum(n for name, n in count.items() if not name.startswith(("layer4", "fc")))
    assert sum(p.numel() for p in ResNet50Trunk().parameters()) == kept
    found = {k: tuple(v.shape) for k, v in ResNet50Trunk().state_dict().items()}
    assert found == {k: s for k, s in shapes.items() if not k.startswith(("layer4", "fc"))}


def straightforward_trunk(x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
    """ResNet-50 to layer 3 written out over convolutions, in float64."""

    def norm(y: torch.Tensor, at: str) -> torch.Tensor:
        scale = w[f"{at}.weight"] / torch.sqrt(w[f"{at}.running_var"] + 1e-5)
        shift = w[f"{at}.bias"] - w[f"{at}.running_mean"] * scale
        return y * scale[:, None, None] + shift[:, None, None]

    x = norm(functional.conv2d(x, w["conv1.weight"], stride=2, padding=3), "bn1").clamp(min=0)
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)  # x >= 0: zeros pad as -inf
    for stage, blocks in ((1, 3), (2, 4), (3, 6)):
        for k in range(blocks):
            at, step = f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1
            y = norm(functional.conv2d(x, w[f"{at}.conv1.weight"]), f"{at}.bn1").clamp(min=0)
            y = functional.conv2d(y, w[f"{at}.conv2.weight"], stride=step, padding=1)
            y = norm(y, f"{at}.bn2").clamp(min=0)
            y = norm(functional.conv2d(y, w[f"{at}.conv3.weight"]), f"{at}.bn3")
            if k == 0:
                x = functional.conv2d(x, w[f"{at}.downsample.0.weight"], stride=step)
                x = norm(x, f"{at}.downsample.1")
            x = (x + y).clamp(min=0)
    return x.flatten(2).mean(2)


def test_resnet_equals_a_straightforward_rederivation(encoder, needed):
    tiles = some_tiles(2)
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2).double() / 255
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
    expected = straightforward_trunk((x - mean) / std, {k: v.double() for k, v in needed.items()})
    found = encoder.encode(tiles)
    assert found.shape == (2, encoder.feature_dim) == (2, 1024)
    assert found.dtype == np.float32
    assert float(expected.std()) > 1e-3
    assert np.abs(found - expected.numpy()).max() < 1e-4 * float(expected.abs().max())


def test_resnet_of_no_tiles_keeps_its_width(encoder):
    assert encoder.encode(np.empty((0, 96, 96, 3), np.uint8)).shape == (0, 1024)


def test_resnet_features_do_not_depend_on_the_batch_by_a_bit(encoder):
    tiles = some_tiles(CPU_BATCH + 3, side=32)
    tiles.flags.writeable = False
    together = encoder.encode(tiles)
    parts = np.split(tiles, [1, CPU_BATCH])
    assert np.array_equal(together, np.concatenate([encoder.encode(part) for part in parts]))
    assert np.array_equal(together, encoder.encode(tiles[::-1])[::-1])


@pytest.mark.parametrize("tiles", [some_tiles(1)[0], some_tiles(1)[:, :32], np.zeros((1, 8, 8, 3))])
def test_resnet_refuses_what_is_no_tile(encoder, tiles: np.ndarray):
    with pytest.raises(ValueError, match="uint8"):
        encoder.encode(tiles)


def test_resnet_digest_is_that_of_the_tensors_whatever_the_file(
    encoder, state, needed, tmp_path: Path
):
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    same = made(path)
    assert same.digest == encoder.digest
    tiles = some_tiles(1)
    assert np.array_equal(same.encode(tiles), encoder.encode(tiles))
    save_file(needed | {"bn1.bias": needed["bn1.bias"].nextafter(torch.tensor(9.0))}, path)
    assert made(path).digest != encoder.digest


def test_resnet_digest_tells_precisions_apart_without_a_gpu(encoder, state, tmp_path: Path):
    torch.save(state, tmp_path / "w.pth")
    config = EmbedConfig(encoder="resnet50", weights=str(tmp_path / "w.pth"))
    on_gpu = resnet50_encoder(config, "cuda")
    assert (encoder.precision, on_gpu.precision) == ("float32", "bfloat16")
    assert on_gpu.digest != encoder.digest
    assert make_encoder(config).digest == encoder.digest


@pytest.mark.gpu
def test_resnet_on_a_gpu_is_near_the_cpu_and_independent_of_the_batch(state, encoder, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    config = EmbedConfig(encoder="resnet50", weights=str(tmp_path / "w.pth"), batch_tiles=16)
    on_gpu = resnet50_encoder(config, "cuda")
    tiles = some_tiles(19, side=256)
    found, expected = on_gpu.encode(tiles), encoder.encode(tiles)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert np.array_equal(found[:5], on_gpu.encode(tiles[:5]))


def test_resnet_takes_files_without_batch_counters(encoder, needed, tmp_path: Path):
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in needed.items() if "num_batches" not in k}, path)
    assert made(path).digest == encoder.digest


def refuse(state: object, path: Path, *words: str) -> None:
    torch.save(state, path)
    with pytest.raises(ConfigError) as caught:
        made(path)
    for word in (*words, "resnet50-0676ba61.pth"):
        assert word in str(caught.value)


def test_resnet_refuses_what_is_not_resnet50(needed, tmp_path: Path):
    path = tmp_path / "w.pth"
    name = "layer2.1.conv2.weight"
    refuse({k: v for k, v in needed.items() if k != name}, path, f"missing {name}")
    refuse(needed | {"head.weight": torch.ones(1)}, path, "unexpected head.weight")
    refuse(needed | {name: torch.ones(1, 2)}, path, name, "(1, 2)", "(128, 128, 3, 3)")
    refuse({k: v for k, v in needed.items() if "bn" not in k}, path, "more")
    refuse([1, 2], path, "named tensors")
    path.write_bytes(b"not weights")
    with pytest.raises(ConfigError, match="cannot be read"):
        made(path)
    with pytest.raises(ConfigError, match="not a file"):
        made(tmp_path / "absent.pth")
    path.with_suffix(".safetensors").write_bytes(b"not weights either")
    with pytest.raises(ConfigError, match="cannot be read"):
        made(path.with_suffix(".safetensors"))


def test_resnet_runs_no_code_from_the_file(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"conv1.weight": Trap()}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="cannot be read"):
        made(tmp_path / "w.pth")
    assert not (tmp_path / "sprung").exists()


def test_resnet_checks_the_digest_in_the_name(needed, tmp_path: Path):
    wrong = tmp_path / "resnet50-0676ba61.pth"
    torch.save(needed, wrong)
    with pytest.raises(ConfigError, match="0676ba61"):
        made(wrong)
    digest = hashlib.sha256(wrong.read_bytes()).hexdigest()
    right = wrong.rename(tmp_path / f"resnet50-{digest[:8]}.pth")
    assert made(right).name == "resnet50"


def test_resnet_checks_the_declared_sha256(needed, tmp_path: Path):
    path = tmp_path / "w.pth"
    torch.save(needed, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert made(path, sha256=digest.upper()).feature_dim == 1024
    with pytest.raises(ConfigError, match=r"weights_sha256 names: its SHA-256 begins with"):
        made(path, sha256="0" * 64)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        check_encoder(EmbedConfig(encoder="resnet50", weights=str(path), weights_sha256="abc"))


@settings(max_examples=30, deadline=None)
@given(cut=st.floats(0, 1), flips=st.lists(st.floats(0, 0.999), max_size=4), safe=st.booleans())
def test_damaged_files_give_one_config_error_or_the_same_names(cut, flips, safe, small_files):
    folder, files = small_files
    data = bytearray(files[safe])
    for at in flips:
        data[int(at * len(data))] ^= 0x55
    path = folder / ("w.safetensors" if safe else "w.pth")
    with suppress(ConfigError):  # anything else, or a crash, fails
        state = parse_state(bytes(data[: int(cut * len(data))]), path, "get it again")
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


@pytest.fixture(scope="module")
def small_files(tmp_path_factory) -> tuple[Path, tuple[bytes, bytes]]:
    folder = tmp_path_factory.mktemp("small")
    tensors = {"conv.weight": torch.arange(24.0).view(2, 3, 2, 2), "bn.bias": torch.ones(2)}
    torch.save(tensors, folder / "a.pth")
    save_file(tensors, folder / "a.safetensors")
    return folder, ((folder / "a.pth").read_bytes(), (folder / "a.safetensors").read_bytes())
