"""The ``timm:<name>`` encoders: any model of the timm library (Wightman 2019), without its head.

timm is an extra: it brings torchvision, which must fit the installed torch.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rayfed_hn.config import EmbedConfig
from rayfed_hn.errors import ConfigError
from rayfed_hn.slides.encoder_card import EncoderCard
from rayfed_hn.slides.state_dicts import State, digest_of, fill, parse_state
from rayfed_hn.slides.torch_encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Network,
    TorchEncoder,
    placing,
    probe,
)
from rayfed_hn.slides.weight_files import check_file, read_checked

DEFAULT_PX = 224  # of models whose configuration states no size
LOCAL = "local-dir:"  # a folder with config.json, as published on the Hugging Face hub
Colour = tuple[float, float, float]
HUB = ("hf-hub:", "hf_hub:")
REMEDY = "give the weights that its publisher offers for this model, as .safetensors or .pth"


def check_timm(config: EmbedConfig) -> None:
    """Check what can be checked before a model is made.

    Raises:
        ConfigError: timm is not installed, the name is unknown, the weights are missing, or
            something would have to be downloaded without ``embed.download``.
    """
    name = _model_name(config)
    timm = _timm()
    if name.startswith(HUB) and not config.download:
        raise ConfigError(
            f"embed.encoder={config.encoder} fetches its configuration from the Hugging Face hub; "
            "allow that with embed.download=true, or name a folder with its config.json: "
            "timm:local-dir:FOLDER"
        )
    if name.startswith(LOCAL):
        check_file(_config_file(name), "embed.encoder", "the folder must hold its config.json")
    elif not name.startswith(HUB) and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean timm:{near[0]}?" if near else "timm.list_models() lists them all"
        raise ConfigError(f"embed.encoder={config.encoder}: timm knows no such model; {hint}")
    if config.weights is not None:
        check_file(Path(config.weights), "embed.weights", REMEDY)
    elif not config.download or name.startswith(LOCAL):
        other = "" if name.startswith(LOCAL) else ", or embed.download=true to fetch timm's own"
        raise ConfigError(
            f"embed.encoder={config.encoder} needs embed.weights, a .safetensors or .pth "
            f"file{other}"
        )


def timm_encoder(config: EmbedConfig, device: str = "cpu") -> TorchEncoder:
    """Make a ``timm:<name>`` encoder: the model's own pooled features, before its classifier.

    Tiles larger than the model's input size are made smaller; smaller ones are made larger only
    where the model takes no other size.

    Args:
        config: The ``embed`` section.
        device: Torch device.

    Raises:
        ConfigError: As ``check_timm``; or the weights do not fit, could not be fetched, or the
            model gives no features (N, D).
    """
    check_timm(config)
    model = _create(config)
    facts: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if config.weights is not None:
        _load(model, facts, config, Path(config.weights))
    place = placing(model)
    return TorchEncoder(
        place,
        _card(config, facts, place(torch.device("cpu"))),
        _identity(config, facts, model),
        device=device,
        batch_tiles=config.batch_tiles,
    )


def _model_name(config: EmbedConfig) -> str:
    return config.encoder.removeprefix("timm:")


def _config_file(name: str) -> Path:
    return Path(name.removeprefix(LOCAL)) / "config.json"


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except Exception as error:  # a torchvision built for another torch fails in many ways
        if isinstance(error, ModuleNotFoundError) and error.name == "timm":
            raise ConfigError(
                "embed.encoder=timm:... needs the timm library: pip install 'rayfed_hn[timm]'"
            ) from None
        raise ConfigError(
            f"embed.encoder=timm:... cannot import timm ({_first_line(error)}); install the "
            "torchvision that belongs to the installed torch"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _create(config: EmbedConfig) -> nn.Module:
    fetch = config.weights is None
    try:
        return _timm().create_model(_model_name(config), pretrained=fetch, num_classes=0)
    except Exception as error:  # of the model's, of the network's, of the hub's
        remedy = "give embed.weights, a file" if fetch else "see timm's documentation of it"
        raise ConfigError(
            f"embed.encoder={config.encoder} could not be made: {_first_line(error)}; {remedy}"
        ) from None


def _load(model: nn.Module, facts: Mapping[str, Any], config: EmbedConfig, path: Path) -> None:
    data = read_checked(path, "embed.weights", config.weights_sha256, REMEDY)
    heads = facts.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    own = model.state_dict()

    def without_head(state: State) -> State:
        past = tuple(f"{head}." for head in heads)
        return {k: t for k, t in state.items() if k in own or not k.startswith(past)}

    # Files of the model's authors carry their names; the file of a timm model knows how to turn
    # them into timm's.
    rename: Callable[..., State] | None = getattr(
        sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None
    )
    convert = None if rename is None else lambda state: without_head(rename(state, model))
    state = without_head(parse_state(data, path, REMEDY))
    fill(model, state, path, config.encoder, REMEDY, convert)


def _card(config: EmbedConfig, facts: Mapping[str, Any], network: Network) -> EncoderCard:
    channels, *sides = facts.get("input_size") or (3, DEFAULT_PX, DEFAULT_PX)
    if channels != 3 or len(set(sides)) != 1:
        raise ConfigError(
            f"embed.encoder={config.encoder} takes inputs of {channels} x {sides}, not square RGB "
            "tiles; choose another model"
        )
    fixed = bool(facts.get("fixed_input_size"))
    try:
        side = sides[0] if fixed else min(sides[0], config.tile_px)
        feature_dim = probe(network, side, sizes=(1,))
    except ValueError as error:
        raise ConfigError(f"embed.encoder={config.encoder} {error}; choose another model") from None
    name = _model_name(config)
    return EncoderCard(
        name=f"timm:{LOCAL}{Path(name).name}" if name.startswith(LOCAL) else config.encoder,
        feature_dim=feature_dim,
        input_px=sides[0],
        mpp=None,
        mean=_three(facts.get("mean"), IMAGENET_MEAN),
        std=_three(facts.get("std"), IMAGENET_STD),
        licence=_licence(config, facts),
        source=_source(facts),
        enlarges=fixed,
    )


def _three(values: Sequence[float] | None, default: Colour) -> Colour:
    if values is None:
        return default
    red, green, blue = values
    return red, green, blue


def _licence(config: EmbedConfig, facts: Mapping[str, Any]) -> str:
    stated = facts.get("license") or "not stated; see the publisher of the weights"
    others = config.weights is not None and not _model_name(config).startswith(LOCAL)
    return f"{stated} (timm's own weights; yours may differ)" if others else stated


def _source(facts: Mapping[str, Any]) -> str:
    hub = facts.get("hf_hub_id")
    parts = [
        f"timm {facts.get('architecture') or ''}".strip(),
        facts.get("paper_name"),
        facts.get("paper_ids"),
        facts.get("origin_url"),
        f"https://huggingface.co/{hub}" if hub else None,
    ]
    return "; ".join(str(part) for part in parts if part)


def _identity(config: EmbedConfig, facts: Mapping[str, Any], model: nn.Module) -> str:
    name = _model_name(config)
    parts = ["timm", facts.get("architecture") or name, digest_of(model)]
    if name.startswith(LOCAL):  # whose arguments of the model decide the features too
        parts.append(hashlib.sha256(_config_file(name).read_bytes()).hexdigest())
    return " ".join(parts)
