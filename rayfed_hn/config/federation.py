"""Knobs of models, methods and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayfed_hn.config.knob import knob

METHODS = (
    *("hypernetwork", "hypernetwork_ft", "pfedhn", "pfedhn_pc", "pfedhn_ft", "fedavg", "fedprox"),
    *("fedavg_ft", "fedper", "local", "pooled"),
)
RELEASE_NOTHING = ("local", "pooled")  # baselines: nothing that was learned leaves a hospital


@dataclass(frozen=True)
class ModelConfig:
    """The network that each site receives: a bag of tile features in, the slide's logits out."""

    name: Literal[
        "gated_attention",
        "attention",
        "mean",
        "max",
        "clam_sb",
        "clam_mb",
        "dsmil",
        "set_transformer",
    ] = knob(
        "gated_attention",
        "how the tiles of a bag become one prediction. gated_attention: a weighted mean of the "
        "tiles, whose weights are learned through a gate (HistoFL's); attention: without the gate; "
        "mean: all tiles count alike, for what shows everywhere; max: the tile with the highest "
        "logit decides, for small lesions, but it learns from one tile a step; clam_sb, clam_mb: "
        "gated_attention that also learns from the tiles with most and least attention, made for "
        "few slides (one attention for all classes, or one for each); dsmil: attention to what "
        "resembles the decisive tile; set_transformer: tiles see each other; most parameters and "
        "most time",
    )
    hidden_dim: int | None = knob(
        None,
        "width of the tile projection (default: D/2 rounded up to a power of two, 32 to 512; "
        "D = 1024 gives HistoFL's 512)",
        at_least=1,
    )
    attention_dim: int | None = knob(
        None,
        "width of the attention (default: half of hidden_dim); mean and max have none",
        at_least=1,
    )
    standardise: Literal["shared", "site", "none"] = knob(
        "shared",
        "scale of the features: shared: every site tells mean and variance of each feature once, "
        "without noise, and all use one scale; site: every site its own, nothing is told; none: as "
        "they are. Methods that share nothing (local, pooled) take shared as site",
    )
    dropout: float = knob(
        0.25,
        "dropout after the projection, within the attention of gated_attention, attention and "
        "clam, and on both sides of set_transformer's pooling",
        at_least=0,
        at_most=0.9,
    )


@dataclass(frozen=True)
class TrainingConfig:
    """Training at a site between two versions: one bag a step."""

    steps: int = knob(40, "gradient steps of a site per version", at_least=1)
    epochs: float | None = knob(
        None, "passes over a site's training bags per version, in place of training.steps", above=0
    )
    optimiser: Literal["adam", "adamw", "sgd", "momentum"] = knob(
        "adam",
        "optimiser at the sites: adam is HistoFL's, momentum (SGD, .9) is pFedHN's",
    )
    learning_rate: float | None = knob(
        None,
        "learning rate at the sites (default: 2e-4 at the paper's width of 512, and in inverse "
        "proportion to the width elsewhere)",
        above=0,
    )
    weight_decay: float = knob(1e-5, "weight decay at the sites", at_least=0)
    keep_optimiser: bool = knob(
        False,
        "true: a site keeps its optimiser's moments from one version to the next, as HistoFL does; "
        "false: it starts afresh, as pFedHN does",
    )
    schedule: Literal["constant", "linear", "cosine"] = knob(
        "constant", "how the learning rate falls over the versions of a run, towards 0"
    )
    class_balanced: bool = knob(
        True,
        "draw bags so that classes, or bags with and without an event, are equally frequent",
    )
    label_smoothing: float = knob(
        0.0,
        "share of a label's weight in the loss that goes to all classes alike; not for survival",
        at_least=0,
        at_most=0.9,
    )
    instance_dropout: float = knob(
        0.0, "chance of every tile to be left out of a training step", at_least=0, at_most=0.95
    )
    max_instances: int | None = knob(
        None, "train each step on at most so many tiles of the bag, drawn anew", at_least=1
    )
    clip_gradient: float | None = knob(
        None, "clip the norm of every gradient to this (pFedHN: 50)", above=0
    )
    patience: int | None = knob(
        None,
        "stop a site's steps when its validation loss has not improved for so many looks, and keep "
        "the best",
        at_least=1,
    )
    look_every: int = knob(10, "steps between two looks at the validation loss", at_least=1)
    proximal_mu: float = knob(
        0.1, "FedProx's pull towards the network received; method.name=fedprox only", at_least=0
    )
    fine_tuning_steps: int | None = knob(
        None,
        "local steps after the last version, of the methods that end in _ft (default: those of "
        "five versions)",
        at_least=0,
    )


@dataclass(frozen=True)
class MethodConfig:
    """Which method trains the federation."""

    name: Literal[
        "hypernetwork",
        "hypernetwork_ft",
        "pfedhn",
        "pfedhn_pc",
        "pfedhn_ft",
        "fedavg",
        "fedprox",
        "fedavg_ft",
        "fedper",
        "local",
        "pooled",
    ] = knob(
        "hypernetwork",
        "hypernetwork: a base and personal offsets from the centre; pfedhn: pFedHN's hypernetwork; "
        "fedavg: one shared network; fedprox: with a proximal term; fedper, pfedhn_pc: with a "
        "classifier that never leaves its site; ..._ft: with local fine-tuning at the end; local: "
        "isolated sites; pooled: all bags in one place (no federation)",
    )


@dataclass(frozen=True)
class HypernetworkConfig:
    """theta_i = theta_0 + h(v_i) W, the base-plus-generator form; and pFedHN's knobs."""

    rho: float = knob(
        0.3,
        "share of what sites do not agree on that stays personal: 0 is FedAvg, 1 isolated training",
        at_least=0,
        at_most=1,
    )
    estimate: Literal["none", "rho", "kernel"] = knob(
        "none",
        "estimate rho per layer, or the whole kernel between sites, from updates on disjoint "
        "halves of the bags; synchronous rounds only",
    )
    embedding_dim: int | None = knob(
        None,
        "length of a site embedding (default: max(16, number of sites), which makes the "
        "embeddings orthonormal; fewer than the sites lets alike rows share; pfedhn: 1 + K/4)",
        at_least=1,
    )
    features: Literal["fixed", "learned", "mlp"] = knob(
        "fixed",
        "what the head is applied to: fixed unit embeddings, learned ones, or an MLP of learned "
        "ones",
    )
    feature_rate: float = knob(
        0.001, "Adam's learning rate of learned embeddings and of their MLP", above=0
    )
    gate: float = knob(
        1.0,
        "share of a site's personal offset in its last network when it is scored; 1 while training",
        at_least=0,
        at_most=1,
    )
    optimiser: Literal["sgd", "momentum", "adam"] = knob(
        "momentum", "pfedhn's optimiser at the server"
    )
    learning_rate: float = knob(0.01, "its learning rate", above=0)
    weight_decay: float = knob(0.001, "its weight decay", at_least=0)
    moments: Literal["float32", "bfloat16"] = knob(
        "float32",
        "how pfedhn's optimiser keeps its first moment; bfloat16 takes half the memory",
    )
    chunks: int = knob(
        1, "pieces that pfedhn makes a network in: more take less memory", at_least=1
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """Which network of a site is reported."""

    readout: Literal["last", "best", "mixture"] = knob(
        "mixture",
        "last: the final version; best: the version that best puts the site's validation bags in "
        "order (the last one where that is undefined); mixture: averages of the shared and of the "
        "site's own networks, weighted by validation. compare always reports all",
    )
    attention_maps: int = knob(
        3,
        "train: test bags of every site whose attention is drawn for TensorBoard, from the places "
        "of tiles and without pixels; the site keeps the maps beside its bags, or in "
        "run.dir/sites where time is simulated (0: none)",
        at_least=0,
    )
