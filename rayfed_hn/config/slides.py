"""Knobs of slides and bags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rayfed_hn.config.knob import knob


@dataclass(frozen=True)
class DataConfig:
    """Where slides and bags are, and how cases are divided."""

    manifest: str | None = knob(
        None, "CSV of slides: slide_id, path, case_id, site, label and optionally mpp, mask"
    )
    root: str | None = knob(
        None,
        "folder that every path of the manifest must lie in once links are followed (default: the "
        "manifest's own, to which relative paths are relative in any case)",
    )
    bags: str | None = knob(None, "folder of the bag store: written by embed, read by train")
    leave_out: list[str] = knob(
        [], "sites of the bag store that take no part, say one that shall join later"
    )
    positive_label: str | None = knob(
        None, "label counted as class 1 (default: the last of the two in alphabetical order)"
    )
    folds: int = knob(5, "parts that the cases of every site are divided into", at_least=3)
    fold: int = knob(0, "part held out as test by train; the next one is validation", at_least=0)
    splits: str | None = knob(
        None,
        "folder of CLAM's splits_0.csv, splits_1.csv, ... (columns train, val, test) to use "
        "instead of our folds; data.folds and compare.folds then count these files",
    )
    max_blur: float | None = knob(
        None, "leave out tiles of which more than this share is blurred", at_least=0, at_most=1
    )
    max_pen: float | None = knob(
        None, "leave out tiles of which more than this share is pen ink", at_least=0, at_most=1
    )
    max_black: float | None = knob(
        None, "leave out tiles of which more than this share is black", at_least=0, at_most=1
    )
    max_white: float | None = knob(
        None, "leave out tiles of which more than this share is white", at_least=0, at_most=1
    )


@dataclass(frozen=True)
class TissueConfig:
    """How tissue is told from glass, on a low-power picture of the slide."""

    mpp: float = knob(8.0, "scale of that picture in micrometres per pixel", above=0)
    min_saturation: float = knob(
        0.04,
        "lowest colour saturation (0-1) that may count as tissue, whatever Otsu's threshold says",
        at_least=0,
        at_most=1,
    )
    min_speck_um2: float = knob(
        10_000.0, "islands of tissue smaller than this (square micrometres) are dropped", at_least=0
    )
    max_hole_um2: float = knob(
        10_000.0, "holes in tissue smaller than this (square micrometres) are filled", at_least=0
    )


@dataclass(frozen=True)
class ArtefactsConfig:
    """What counts as an artefact; shares of every tile are kept with its features."""

    black_level: int = knob(
        40, "a pixel whose three channels all lie below this (0-255) is black", at_least=0
    )
    white_level: int = knob(
        235, "a pixel whose three channels all lie above this (0-255) is white", at_most=255
    )
    min_detail: float = knob(
        0.4,
        "a part of a tile is blurred if its finest detail is below this share of its contrast",
        at_least=0,
    )
    pen_excess: float = knob(
        0.08,
        "optical density by which pen ink absorbs red more than green; stained tissue absorbs "
        "green more",
        at_least=0,
    )


@dataclass(frozen=True)
class LimitsConfig:
    """What a slide may take before it is set aside."""

    stall_seconds: float = knob(
        300.0, "a slide that yields nothing for this long is set aside", above=0
    )
    memory_mib: int = knob(
        2048, "memory that the reading of one slide may take, in MiB", at_least=512
    )


@dataclass(frozen=True)
class EmbedConfig:
    """From slides to bags of tile features."""

    encoder: str = knob(
        "texture",
        "tile encoder: texture (needs no weights), resnet50 (needs embed.weights), timm:<name> "
        "(a model of the timm library), module:<file> (a torch.export or TorchScript program; "
        "needs embed.weights_sha256 and embed.trust_code)",
    )
    weights: str | None = knob(
        None,
        "weight file of resnet50 (torchvision's resnet50-0676ba61.pth or resnet50-11ad3fa6.pth) "
        "or of timm:<name> (.pth or .safetensors)",
    )
    weights_sha256: str | None = knob(
        None, "SHA-256 that the weight or module file must have, as its publisher states it"
    )
    trust_code: bool = knob(
        False, "load module:<file>, which can run code of its author on this machine"
    )
    download: bool = knob(
        False, "let timm:<name> fetch its published weights when embed.weights is not given"
    )
    reader: Literal["auto", "openslide"] = knob(
        "auto",
        "auto: decode JPEG tiles of SVS and TIFF files directly where the file allows it, "
        "OpenSlide elsewhere; openslide: OpenSlide always",
    )
    tile_px: int = knob(256, "side of a tile in pixels at embed.mpp", at_least=32, at_most=4096)
    stride_px: int | None = knob(
        None, "step between tiles in pixels at embed.mpp (default: tile_px)", at_least=8
    )
    mpp: float = knob(0.5, "scale of the tiles in micrometres per pixel", above=0, at_most=20)
    min_tissue: float = knob(
        0.5, "fraction of a tile that must be tissue to keep it", at_least=0, at_most=1
    )
    batch_tiles: int = knob(64, "tiles read and encoded at once", at_least=1)
    pictures: bool = knob(
        False, "draw every slide with its tissue and tiles, and one page of them per site"
    )
    slides_in_flight: int = knob(
        2, "slides that a worker reads ahead, so that its encoder never waits", at_least=1
    )
    tissue: TissueConfig = field(default_factory=TissueConfig)
    artefacts: ArtefactsConfig = field(default_factory=ArtefactsConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
