"""``module:<file>``: what is refused before it is parsed, and what the two formats give."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides import module_encoder
from rayfed_hn.slides.encoders import check_encoder, make_encoder
from rayfed_hn.slides.weight_files import read_checked

TILE_PX = 32


class Tiny(nn.Module):
    """Five features; its offset is a constant, which a program carries apart from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu().mean((2, 3))
        return y + torch.ones(5, device=x.device)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny().eval()


def export(network: nn.Module, path: Path, *, dynamic: bool = True) -> Path:
    """Write a network as ``.pt2`` or as TorchScript."""
    if path.suffix == ".pt2":
        shapes = ({0: torch.export.Dim("n")},) if dynamic else None
        example = (torch.zeros(2, 3, TILE_PX, TILE_PX),)
        torch.export.save(torch.export.export(network, example, dynamic_shapes=shapes), path)
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is on its way out
        torch.jit.save(torch.jit.script(network), path)
    return path


def trusting(path: Path) -> EmbedConfig:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return EmbedConfig(
        encoder=f"module:{path}", trust_code=True, weights_sha256=digest, tile_px=TILE_PX
    )


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".ts"])
def test_both_formats_give_what_the_network_gives(tiny, suffix: str, tmp_path: Path):
    path = export(tiny, tmp_path / f"enc{suffix}")
    encoder = make_encoder(trusting(path))
    tiles = np.random.default_rng(0).integers(256, size=(11, TILE_PX, TILE_PX, 3)).astype(np.uint8)
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.inference_mode():
        expected = tiny((x - mean) / std).numpy()
    found = encoder.encode(tiles)
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(found[3:], encoder.encode(tiles[3:]))
    assert encoder.name == encoder.card.name == f"module:enc{suffix}"
    assert encoder.feature_dim == 5
    assert encoder.card.input_px == TILE_PX


def test_digest_is_the_files_content_and_the_precision(tiny, tmp_path: Path):
    path = export(tiny, tmp_path / "enc.pt2")
    config = trusting(path)
    copy = path.rename(tmp_path / "other.pt2")
    renamed = trusting(copy)
    assert config.weights_sha256 == renamed.weights_sha256
    encoder = make_encoder(renamed)
    assert encoder.digest != make_encoder(renamed, "cuda").digest
    assert encoder.digest == make_encoder(renamed).digest


@pytest.mark.parametrize("trust", [{"trust_code": False}, {"weights_sha256": None}])
def test_without_trust_and_digest_the_file_is_not_even_read(trust, tmp_path: Path, monkeypatch):
    path = tmp_path / "enc.pt2"
    path.write_bytes(b"code of somebody")
    config = EmbedConfig(
        **{
            "encoder": f"module:{path}",
            "trust_code": True,
            "weights_sha256": "0" * 64,
            **trust,
        }
    )
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("was read"))
    for route in (check_encoder, make_encoder, module_encoder.module_encoder):
        with pytest.raises(ConfigError, match=r"embed\.trust_code"):
            route(config)


def test_another_file_than_the_declared_one_is_never_parsed(tiny, tmp_path: Path, monkeypatch):
    path = export(tiny, tmp_path / "enc.pt2")
    config = trusting(path)
    path.write_bytes(path.read_bytes() + b" ")
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("was parsed"))
    with pytest.raises(ConfigError, match="is not the file that"):
        make_encoder(config)


def test_what_is_parsed_are_the_bytes_that_were_hashed(tiny, tmp_path: Path, monkeypatch):
    """The file changes as soon as it has been read; the encoder is the one that was declared."""
    path = export(tiny, tmp_path / "enc.pt2")
    config, good = trusting(path), path.read_bytes()
    parsed: list[bytes] = []
    load = torch.export.load

    def remember(file: io.BytesIO) -> object:
        parsed.append(file.getvalue())
        return load(file)

    def read_and_replace(*args) -> bytes:
        data = read_checked(*args)
        path.write_bytes(b"something else")
        return data

    monkeypatch.setattr(torch.export, "load", remember)
    monkeypatch.setattr(module_encoder, "read_checked", read_and_replace)
    assert make_encoder(config).feature_dim == 5
    assert parsed == [good]


def test_names_and_keys_that_cannot_be_meant(tmp_path: Path):
    path = tmp_path / "enc.onnx"
    path.touch()
    with pytest.raises(ConfigError, match=r"must end in \.pt2"):
        check_encoder(EmbedConfig(encoder=f"module:{path}"))
    with pytest.raises(ConfigError, match="not a file"):
        check_encoder(EmbedConfig(encoder=f"module:{tmp_path / 'none.pt2'}"))
    with pytest.raises(ConfigError, match="its own weights"):
        check_encoder(EmbedConfig(encoder="module:enc.pt2", weights="w.pth"))


class Planes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def test_modules_that_break_the_contract_are_refused(tiny, tmp_path: Path):
    planes = export(Planes(), tmp_path / "planes.pt")
    with pytest.raises(
        ConfigError, match=r"gives shape \(2, 3, 32, 32\) for 2 tiles, not \(2, D\)"
    ):
        make_encoder(trusting(planes))
    one_size = export(tiny, tmp_path / "static.pt2", dynamic=False)
    with pytest.raises(ConfigError, match=r"fails on \(N, 3, 32, 32\).*any N"):
        make_encoder(trusting(one_size))


@pytest.mark.parametrize("suffix", [".pt2", ".ts"])
def test_a_trusted_file_that_is_damaged_is_one_config_error(suffix: str, tmp_path: Path):
    path = tmp_path / f"enc{suffix}"
    path.write_bytes(b"not a program")
    with pytest.raises(ConfigError, match="cannot be loaded by torch"):
        make_encoder(trusting(path))
