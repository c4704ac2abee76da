"""Knobs of models, methods, rounds, privacy and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayfed_hn.config.knob import knob

METHODS = ("hypernetwork", "fedavg", "local", "pooled")


@dataclass(frozen=True)
class ModelConfig:
    """Gated attention multiple-instance classifier, the network that each site receives."""

    hidden_dim: int | None = knob(
        None,
        "width of the tile projection (default: D/2 rounded up to a power of two, 32 to 512; "
        "D = 1024 gives HistoFL's 512)",
        at_least=1,
    )
    attention_dim: int | None = knob(
        None, "width of the gated attention (default: half of hidden_dim)", at_least=1
    )
    dropout: float = knob(
        0.25, "dropout after the projection and in both attention branches", at_least=0, at_most=0.9
    )


@dataclass(frozen=True)
class TrainingConfig:
    """Training at a site between two versions: one bag a step, fresh Adam, cross-entropy."""

    steps: int = knob(40, "gradient steps of a site per version", at_least=1)
    learning_rate: float | None = knob(
        None,
        "Adam's learning rate at the sites (default: 2e-4 at the paper's width of 512, and in "
        "inverse proportion to the width elsewhere)",
        above=0,
    )
    weight_decay: float = knob(1e-5, "Adam's weight decay at the sites", at_least=0)
    class_balanced: bool = knob(True, "draw bags so that both classes are equally frequent")


@dataclass(frozen=True)
class MethodConfig:
    """Which method trains the federation."""

    name: Literal["hypernetwork", "fedavg", "local", "pooled"] = knob(
        "hypernetwork",
        "hypernetwork: personal networks from the centre; fedavg: one shared network; "
        "local: isolated sites; pooled: all bags in one place (no federation)",
    )


@dataclass(frozen=True)
class HypernetworkConfig:
    """theta_i = theta_0 + h(v_i) W, the base-plus-generator form."""

    rho: float = knob(
        0.3,
        "share of what sites do not agree on that stays personal: 0 is FedAvg, 1 isolated training",
        at_least=0,
        at_most=1,
    )
    embedding_dim: int | None = knob(
        None,
        "length of a site embedding (default: max(16, number of sites), which makes the "
        "embeddings orthonormal; fewer than the sites lets alike rows share)",
        at_least=1,
    )


@dataclass(frozen=True)
class RoundsConfig:
    """The rounds of a federation."""

    num_versions: int = knob(20, "versions of the shared state to make", at_least=1)


@dataclass(frozen=True)
class PrivacyConfig:
    """Noise on what leaves a site."""

    noise_scale: float = knob(
        0.0,
        "the paper's alpha: Gaussian noise of alpha times the standard deviation of each weight "
        "tensor, added at the site before release. Formal guarantee: none",
        at_least=0,
    )
    noise_source: Literal["seeded", "os"] = knob(
        "seeded",
        "seeded: noise repeats with run.seed (simulation only); os: fresh entropy of the site's "
        "machine, which nobody can draw again",
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """Which network of a site is reported."""

    readout: Literal["last", "best"] = knob(
        "best",
        "last: the final version; best: the version with the highest AUC on the site's validation "
        "bags (the last one where that is undefined). compare always reports both",
    )
