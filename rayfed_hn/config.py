"""Every knob, its default, unit and range; nothing else in the package holds a default.

A configuration is a tree of frozen dataclasses, made by ``rayfed_hn.loading.load``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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

    dir: str | None = _knob(None, "run directory (default: a new runs/<verb>-<time>; demo: demo)")
    seed: int = _knob(0, "seed of everything random in a run, paper noise included", at_least=0)
    resume: bool = _knob(
        False, "go on with the run in run.dir: from its last checkpoint, or with its missing cells"
    )


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

    steps: int = _knob(40, "gradient steps of a site per version", at_least=1)
    learning_rate: float | None = _knob(
        None,
        "Adam's learning rate at the sites (default: 2e-4 at the paper's width of 512, and in "
        "inverse proportion to the width elsewhere)",
        above=0,
    )
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
    noise_source: Literal["seeded", "os"] = _knob(
        "seeded",
        "seeded: noise repeats with run.seed (simulation only); os: fresh entropy of the site's "
        "machine, which nobody can draw again",
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
