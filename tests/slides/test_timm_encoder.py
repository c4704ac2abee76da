"""``timm:<name>``: our side of it on a stand-in for timm, and timm itself where it is installed."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoders import check_encoder, make_encoder

TILES = np.random.default_rng(0).integers(256, size=(3, 40, 40, 3)).astype(np.uint8)


class TinyNet(nn.Module):
    """Six features, and a classifier unless ``num_classes`` is 0, as timm's models have."""

    def __init__(self, num_classes: int, **facts: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.head = nn.Linear(6, num_classes) if num_classes else nn.Identity()
        self.pretrained_cfg = {
            "architecture": "tiny_net",
            "input_size": (3, 32, 32),
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.3, 0.4],
            "license": "mit",
            "hf_hub_id": "somebody/tiny_net",
            "classifier": "head",
        } | facts

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).relu().mean((2, 3)))


class FakeTimm(ModuleType):
    """The three functions of timm that we call."""

    def __init__(self) -> None:
        super().__init__("timm")
        self.facts: dict[str, Any] = {}
        self.calls: list[tuple[str, bool, int]] = []

    def is_model(self, name: str) -> bool:
        return name.split(".")[0] in self.list_models()

    def list_models(self) -> list[str]:
        return ["tiny_net", "other_net"]

    def create_model(self, name: str, pretrained: bool, num_classes: int) -> nn.Module:
        self.calls.append((name, pretrained, num_classes))
        if name.endswith(".wrong"):
            raise RuntimeError("Invalid pretrained tag (wrong) for tiny_net.\nmore")
        torch.manual_seed(5)
        return TinyNet(num_classes, **self.facts)


@pytest.fixture
def fake(monkeypatch) -> FakeTimm:
    timm = FakeTimm()
    monkeypatch.setitem(sys.modules, "timm", timm)
    return timm


@pytest.fixture
def published() -> dict[str, Tensor]:
    """Weights as they are published: with a classifier."""
    torch.manual_seed(1)
    return TinyNet(10).state_dict()


def written(state: dict[str, Any], path: Path, **more: Any) -> EmbedConfig:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return EmbedConfig(encoder="timm:tiny_net", weights=str(path), **more)


def expected(state: dict[str, Tensor], tiles: np.ndarray, side: int) -> np.ndarray:
    """The features of ``TinyNet`` written out."""
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    if side != x.shape[2]:
        x = functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    y = functional.conv2d((x - mean) / std, state["stem.weight"], state["stem.bias"], stride=2)
    return y.relu().mean((2, 3)).numpy()


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_features_are_those_of_the_model_before_its_classifier(fake, published, name, tmp_path):
    encoder = make_encoder(written(published, tmp_path / name))
    assert fake.calls == [("tiny_net", False, 0)]
    assert encoder.encode(TILES) == pytest.approx(expected(published, TILES, 32), abs=1e-5)
    small = np.ascontiguousarray(TILES[:, :24, :24])
    assert encoder.encode(small) == pytest.approx(expected(published, small, 24), abs=1e-5)
    assert (encoder.name, encoder.feature_dim) == ("timm:tiny_net", 6)
    card = encoder.card
    assert (card.input_px, card.mean, card.enlarges) == (32, (0.5, 0.4, 0.3), False)
    assert card.licence.startswith("mit")
    assert "huggingface.co/somebody/tiny_net" in card.source


def test_models_of_one_size_get_small_tiles_enlarged(fake, published, tmp_path: Path):
    fake.facts = {"fixed_input_size": True}
    encoder = make_encoder(written(published, tmp_path / "w.pth"))
    small = np.ascontiguousarray(TILES[:, :24, :24])
    assert encoder.encode(small) == pytest.approx(expected(published, small, 32), abs=1e-5)


@pytest.mark.usefixtures("fake")
def test_the_digest_is_that_of_the_weights_whatever_their_file(published, tmp_path: Path):
    plain = make_encoder(written(published, tmp_path / "w.pth"))
    wrapped = make_encoder(written({"state_dict": published, "epoch": 3}, tmp_path / "c.pth"))
    safe = make_encoder(written(published, tmp_path / "w.safetensors"))
    other = make_encoder(
        written(published | {"stem.bias": torch.zeros(6)}, tmp_path / "o.safetensors")
    )
    assert plain.digest == wrapped.digest == safe.digest != other.digest


def test_nothing_is_fetched_unless_asked_for(fake, published, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"embed\.weights.*embed\.download=true"):
        check_encoder(EmbedConfig(encoder="timm:tiny_net"))
    with pytest.raises(ConfigError, match=r"fetches its configuration.*embed\.download"):
        check_encoder(EmbedConfig(encoder="timm:hf-hub:a/b", weights="w.pth"))
    assert fake.calls == []
    fetched = make_encoder(EmbedConfig(encoder="timm:tiny_net", download=True))
    assert fake.calls == [("tiny_net", True, 0)]
    assert fetched.card.licence == "mit"
    make_encoder(written(published, tmp_path / "w.pth", download=True))
    assert fake.calls[-1] == ("tiny_net", False, 0)
    with pytest.raises(ConfigError, match="no file to hold it against"):
        check_encoder(EmbedConfig(encoder="timm:tiny_net", download=True, weights_sha256="0" * 64))


@pytest.mark.usefixtures("fake")
def test_weights_that_do_not_fit_are_refused_with_the_first_names(published, tmp_path: Path):
    less = {k: t for k, t in published.items() if k != "stem.bias"}
    for state, words in (
        (less, r"is not timm:tiny_net: missing stem\.bias; give"),
        (published | {"neck.weight": torch.ones(1)}, r"unexpected neck\.weight"),
        (published | {"stem.weight": torch.ones(2, 2)}, r"stem\.weight has shape \(2, 2\), not"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_encoder(written(state, tmp_path / "w.pth"))
    config = written(published, tmp_path / "w.pth", weights_sha256="0" * 64)
    with pytest.raises(ConfigError, match="is not the file that"):
        make_encoder(config)
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    right = written(published, tmp_path / "w.pth", weights_sha256=digest)
    assert make_encoder(right).feature_dim == 6


@pytest.mark.usefixtures("fake")
def test_names_of_other_publishers_are_turned_by_the_models_own_filter(
    published, tmp_path: Path, monkeypatch
):
    def renamed(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        assert isinstance(model, TinyNet)
        return {k.replace("backbone.", ""): t for k, t in state.items()}

    ours = make_encoder(written(published, tmp_path / "w.pth"))
    theirs = {f"backbone.{k}": t for k, t in published.items()}
    with pytest.raises(ConfigError, match=r"missing stem\.weight"):
        make_encoder(written(theirs, tmp_path / "t.pth"))
    monkeypatch.setattr(sys.modules[__name__], "checkpoint_filter_fn", renamed, raising=False)
    assert make_encoder(written(theirs, tmp_path / "t.pth")).digest == ours.digest
    with pytest.raises(ConfigError, match=r"missing stem\.weight"):
        make_encoder(written({"backbone.stem.bias": torch.ones(6)}, tmp_path / "t.pth"))


def test_a_local_folder_needs_its_config_and_is_known_by_its_content(
    fake, published, tmp_path: Path
):
    folder = tmp_path / "publisher"
    encoder = f"timm:local-dir:{folder}"
    with pytest.raises(ConfigError, match=r"config\.json is not a file"):
        check_encoder(EmbedConfig(encoder=encoder))
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"needs embed\.weights"):
        check_encoder(EmbedConfig(encoder=encoder, download=True))
    weights = written(published, folder / "w.pth").weights
    made = make_encoder(EmbedConfig(encoder=encoder, weights=weights))
    assert made.name == "timm:local-dir:publisher"
    assert fake.calls == [(f"local-dir:{folder}", False, 0)]
    moved = folder.rename(tmp_path / "elsewhere")
    config = EmbedConfig(encoder=f"timm:local-dir:{moved}/", weights=str(moved / "w.pth"))
    assert make_encoder(config).digest == made.digest
    (moved / "config.json").write_text('{"model_args": {}}')
    assert make_encoder(config).digest != made.digest


def test_models_and_installations_that_cannot_be_used(fake, published, tmp_path, monkeypatch):
    config = written(published, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"no such model; did you mean timm:tiny_net"):
        check_encoder(EmbedConfig(encoder="timm:tinynet", weights=config.weights))
    with pytest.raises(ConfigError, match=r"Invalid pretrained tag \(wrong\) for tiny_net\.; see"):
        make_encoder(EmbedConfig(encoder="timm:tiny_net.wrong", weights=config.weights))
    for facts, words in (
        ({"input_size": (1, 32, 32)}, "not square RGB"),
        ({"input_size": (3, 32, 64)}, "not square RGB"),
        ({"input_size": (3, 2, 2)}, "fails on"),
    ):
        fake.facts = facts
        with pytest.raises(ConfigError, match=words):
            make_encoder(config)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'rayfed_hn\[timm\]'"):
        check_encoder(config)


@pytest.mark.parametrize(
    ("name", "side"), [("resnet10t", 176), ("vit_tiny_patch16_224", 224), ("convnext_atto", 224)]
)
def test_real_timm_models_give_what_timm_gives(name: str, side: int, tmp_path: Path):
    timm = pytest.importorskip("timm", exc_type=ImportError)
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    encoder = make_encoder(
        EmbedConfig(encoder=f"timm:{name}", weights=str(tmp_path / "w.safetensors"))
    )
    tiles = np.random.default_rng(0).integers(256, size=(2, 256, 256, 3)).astype(np.uint8)
    x = torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255
    x = functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    mean, std = (
        torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std")
    )
    model.reset_classifier(0)
    with torch.inference_mode():
        features_ND = model((x - mean) / std).numpy()
    assert encoder.encode(tiles) == pytest.approx(features_ND, rel=1e-4, abs=1e-5)
