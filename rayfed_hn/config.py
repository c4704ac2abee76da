"""Every knob, its default, unit and range; nothing else in the package holds a default.

A configuration is a tree of frozen dataclasses. ``load`` merges, in this order: the defaults
below, one YAML file, and ``section.key=value`` words. Anything unknown, of the wrong type, out
of range or impossible together is refused with one ``ConfigError``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rayfed_hn.errors import ConfigError

METHODS = ("hypernetwork", "fedavg", "local", "pooled")


def _knob(
    default: Any,
    about: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    each_of: tuple[str, ...] | None = None,
) -> Any:
    """Declare one knob with its help text and the range it is checked against."""
    limits = {"at_least": at_least, "at_most": at_most, "above": above, "each_of": each_of}
    metadata = {"about": about, **{k: v for k, v in limits.items() if v is not None}}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataConfig:
    """Where slides and bags are, and how cases are divided."""

    manifest: str | None = _knob(
        None, "CSV of slides: slide_id, path, case_id, site, label and optionally mpp"
    )
    root: str | None = _knob(
        None, "folder that every path of the manifest must lie in (default: the manifest's own)"
    )
    bags: str | None = _knob(None, "folder of the bag store: written by embed, read by train")
    positive_label: str | None = _knob(
        None, "label counted as class 1 (default: the last of the two in alphabetical order)"
    )
    folds: int = _knob(5, "parts that the cases of every site are divided into", at_least=3)
    fold: int = _knob(0, "part held out as test by train; the next one is validation", at_least=0)


@dataclass(frozen=True)
class EmbedConfig:
    """From slides to bags of tile features."""

    encoder: Literal["texture", "resnet50"] = _knob(
        "texture", "tile encoder; texture needs no weights, resnet50 needs embed.weights"
    )
    weights: str | None = _knob(
        None, "torchvision's ResNet-50 weight file (resnet50-0676ba61.pth or resnet50-11ad3fa6.pth)"
    )
    tile_px: int = _knob(256, "side of a tile in pixels at embed.mpp", at_least=32, at_most=4096)
    stride_px: int | None = _knob(
        None, "step between tiles in pixels at embed.mpp (default: tile_px)", at_least=8
    )
    mpp: float = _knob(0.5, "scale of the tiles in micrometres per pixel", above=0, at_most=20)
    min_tissue: float = _knob(
        0.5, "fraction of a tile that must be tissue to keep it", at_least=0, at_most=1
    )
    batch_tiles: int = _knob(64, "tiles read and encoded at once", at_least=1)
    tissue: TissueConfig = field(default_factory=lambda: TissueConfig())


@dataclass(frozen=True)
class TissueConfig:
    """How tissue is told from glass, on a low-power picture of the slide."""

    mpp: float = _knob(8.0, "scale of that picture in micrometres per pixel", above=0)
    min_saturation: float = _knob(
        0.04,
        "lowest colour saturation (0-1) that may count as tissue, whatever Otsu's threshold says",
        at_least=0,
        at_most=1,
    )
    min_speck_um2: float = _knob(
        10_000.0, "islands of tissue smaller than this (square micrometres) are dropped", at_least=0
    )
    max_hole_um2: float = _knob(
        10_000.0, "holes in tissue smaller than this (square micrometres) are filled", at_least=0
    )


@dataclass(frozen=True)
class RunConfig:
    """Where a run keeps its files and what it is seeded with."""

    dir: str | None = _knob(None, "run directory (default: runs/<verb>)")
    seed: int = _knob(0, "seed of everything random in a run, paper noise included", at_least=0)
    resume: bool = _knob(False, "go on from the last checkpoint of run.dir")


@dataclass(frozen=True)
class ModelConfig:
    """Gated attention multiple-instance classifier, the network that each site receives."""

    hidden_dim: int | None = _knob(
        None,
        "width of the tile projection (default: D/2 rounded up to a power of two, 32 to 512; "
        "D = 1024 gives HistoFL's 512)",
        at_least=1,
    )
    attention_dim: int | None = _knob(
        None, "width of the gated attention (default: half of hidden_dim)", at_least=1
    )
    dropout: float = _knob(
        0.25, "dropout after the projection and in both attention branches", at_least=0, at_most=0.9
    )


@dataclass(frozen=True)
class TrainingConfig:
    """Training at a site between two versions: one bag a step, fresh Adam, cross-entropy."""

    steps: int = _knob(10, "gradient steps of a site per version", at_least=1)
    learning_rate: float = _knob(2e-4, "Adam's learning rate at the sites", above=0)
    weight_decay: float = _knob(1e-5, "Adam's weight decay at the sites", at_least=0)
    class_balanced: bool = _knob(True, "draw bags so that both classes are equally frequent")


@dataclass(frozen=True)
class MethodConfig:
    """Which method trains the federation."""

    name: Literal["hypernetwork", "fedavg", "local", "pooled"] = _knob(
        "hypernetwork",
        "hypernetwork: personal networks from the centre; fedavg: one shared network; "
        "local: isolated sites; pooled: all bags in one place (no federation)",
    )


@dataclass(frozen=True)
class HypernetworkConfig:
    """theta_i = theta_0 + h(v_i) W, the base-plus-generator form."""

    rho: float = _knob(
        0.3,
        "share of what sites do not agree on that stays personal: 0 is FedAvg, 1 isolated training",
        at_least=0,
        at_most=1,
    )
    embedding_dim: int | None = _knob(
        None,
        "length of a site embedding (default: max(16, number of sites), which makes the "
        "embeddings orthonormal; fewer than the sites lets alike rows share)",
        at_least=1,
    )


@dataclass(frozen=True)
class RoundsConfig:
    """The rounds of a federation."""

    num_versions: int = _knob(20, "versions of the shared state to make", at_least=1)


@dataclass(frozen=True)
class PrivacyConfig:
    """Noise on what leaves a site."""

    noise_scale: float = _knob(
        0.0,
        "the paper's alpha: Gaussian noise of alpha times the standard deviation of each weight "
        "tensor, added at the site before release. Formal guarantee: none",
        at_least=0,
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """Which network of a site is reported."""

    readout: Literal["last", "best"] = _knob(
        "best",
        "last: the final version; best: the version with the highest AUC on the site's validation "
        "bags (the last one where that is undefined). compare always reports both",
    )


@dataclass(frozen=True)
class CompareConfig:
    """Methods x seeds x folds."""

    methods: list[str] = _knob(
        ["local", "fedavg", "hypernetwork"], "methods side by side", each_of=METHODS
    )
    seeds: int = _knob(3, "seeds: every one re-divides the cases and re-trains", at_least=1)
    folds: int = _knob(5, "folds by case; each is test once", at_least=3)


@dataclass(frozen=True)
class ResourcesConfig:
    """What a run asks of the cluster."""

    cpus: int | None = _knob(None, "CPU cores to use (default: all that Ray sees)", at_least=1)
    gpus_per_site: float = _knob(
        0.0, "GPU fraction of every site actor (0: CPU only)", at_least=0, at_most=1
    )
    gpus_per_encoder: float = _knob(
        0.0, "GPU fraction of every embedding worker (0: CPU only)", at_least=0, at_most=1
    )
    num_hosts: int | None = _knob(
        None, "actors that the sites are spread over (default: one actor per site)", at_least=1
    )


@dataclass(frozen=True)
class DemoConfig:
    """The synthetic federation that the demo makes."""

    slides_per_site: int = _knob(16, "slides of each of the four hospitals", at_least=6)


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    data: DataConfig = field(default_factory=DataConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    hypernetwork: HypernetworkConfig = field(default_factory=HypernetworkConfig)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    demo: DemoConfig = field(default_factory=DemoConfig)


@dataclass(frozen=True)
class Knob:
    """One configurable key, for help texts and checks."""

    key: str
    type: str
    default: Any
    about: str
    limits: dict[str, Any]

    @property
    def allowed(self) -> str:
        """The values that may be given, in words."""
        words = [self.type]
        for name, phrase in (("at_least", ">="), ("above", ">"), ("at_most", "<=")):
            if name in self.limits:
                words.append(f"{phrase} {self.limits[name]:g}")
        if "each_of" in self.limits:
            words.append("each one of " + ", ".join(self.limits["each_of"]))
        return ", ".join(words)


def knobs(cls: type = Config, prefix: str = "") -> Iterator[Knob]:
    """Yield every key of the configuration tree, in order."""
    hints = get_type_hints(cls)
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        if dataclasses.is_dataclass(hint):
            yield from knobs(cast(type, hint), f"{prefix}{f.name}.")
            continue
        default = f.default_factory() if callable(f.default_factory) else f.default
        limits = {k: v for k, v in f.metadata.items() if k != "about"}
        yield Knob(f"{prefix}{f.name}", _type_name(hint), default, f.metadata["about"], limits)


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    args = [a for a in get_args(hint) if a is not type(None)]
    if get_origin(hint) is list:
        return f"list of {_type_name(args[0])}"
    if args:  # X | None
        return _type_name(args[0])
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(hint, str(hint))


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Merge defaults, a YAML file and ``section.key=value`` words into a checked ``Config``.

    Raises:
        ConfigError: Names the key, the value, what is allowed and the nearest right name.
    """
    merged = OmegaConf.structured(Config)
    if path is not None:
        for key, value in _flatten(_read_yaml(Path(path))):
            merged = _set(merged, key, value, f"in {path}")
    for word in overrides:
        key, value = _parse_word(word)
        merged = _set(merged, key, value, "on the command line")
    config = cast(Config, OmegaConf.to_object(merged))
    check(config)
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"configuration file {path} must hold sections such as 'data:'")
    return content


def _flatten(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parse_word(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{word}' is not of the form section.key=value")
    knob = next((k for k in knobs() if k.key == key), None)
    if knob is not None and knob.type == "text":  # a label such as 1, no or 0.50 is meant literally
        return key, None if text in ("", "null") else text
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError:
        return key, text


def _set(base: Any, key: str, value: Any, where: str) -> Any:
    known = {knob.key: knob for knob in knobs()}
    if any(k.startswith(f"{key}.") for k in known):
        raise ConfigError(f"{key}: is a section {where}; give its keys as {key}.name=value")
    if key not in known:
        raise ConfigError(_unknown(key, list(known), where))
    knob = known[key]
    if isinstance(value, str) and isinstance(knob.default, list):
        value = [v.strip() for v in value.split(",") if v.strip()]
    if knob.type == "text" and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if any(
        isinstance(v, str) and "${" in v for v in (value if isinstance(value, list) else [value])
    ):
        raise ConfigError(f"{key}: '${{' is not allowed {where}; write the value itself")
    tree: Any = value
    for name in reversed(key.split(".")):
        tree = {name: tree}
    try:
        return OmegaConf.merge(base, tree)
    except (OmegaConfBaseException, ValueError, TypeError):
        raise ConfigError(
            f"{key}: got {value!r} {where}; allowed: {knob.allowed}; default: {knob.default!r}"
        ) from None


def _unknown(key: str, known: list[str], where: str) -> str:
    by_last = {k.rsplit(".", 1)[1]: k for k in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    near = near or [by_last[m] for m in difflib.get_close_matches(key.rsplit(".", 1)[-1], by_last)]
    hint = f"did you mean {near[0]}?" if near else "see 'rayfed-hn VERB --help' for all keys"
    return f"{key}: unknown key {where}; {hint}"


def check(config: Config) -> None:
    """Check ranges and combinations. Raises ``ConfigError`` at the first that is impossible."""
    for knob in knobs():
        value: Any = config
        for name in knob.key.split("."):
            value = getattr(value, name)
        _check_range(knob, value)
    if config.data.fold >= config.data.folds:
        raise ConfigError(
            f"data.fold: got {config.data.fold}; allowed: 0 to data.folds - 1 = "
            f"{config.data.folds - 1}"
        )
    if config.embed.encoder == "resnet50" and config.embed.weights is None:
        raise ConfigError(
            "embed.weights: missing; embed.encoder=resnet50 needs torchvision's weight file, for "
            "example embed.weights=resnet50-0676ba61.pth (or use embed.encoder=texture)"
        )
    if len(set(config.compare.methods)) < len(config.compare.methods):
        raise ConfigError(f"compare.methods: {config.compare.methods} names a method twice")


def _check_range(knob: Knob, value: Any) -> None:
    if value is None:
        return
    limits = knob.limits
    bad = isinstance(value, float) and not math.isfinite(value)
    bad = bad or ("at_least" in limits and value < limits["at_least"])
    bad = bad or ("at_most" in limits and value > limits["at_most"])
    bad = bad or ("above" in limits and value <= limits["above"])
    if "each_of" in limits:
        bad = bad or not value or any(v not in limits["each_of"] for v in value)
    if bad:
        raise ConfigError(
            f"{knob.key}: got {value!r}; allowed: {knob.allowed}; default: {knob.default!r}"
        )


def to_yaml(config: Config) -> str:
    """The whole resolved configuration as YAML that ``load`` reads back to an equal one."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def require(value: str | None, key: str, remedy: str) -> str:
    """Return a knob that this verb cannot do without, or raise ``ConfigError`` naming it."""
    if value is None:
        raise ConfigError(f"{key}: missing; {remedy}")
    return value
