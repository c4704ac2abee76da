"""Knobs of privacy: what is done to what leaves a site, and what that promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rayfed_hn.config.knob import knob

FORMAL = ("site_ldp", "slide_dpsgd")  # mechanisms with a formal guarantee


@dataclass(frozen=True)
class PrivacyConfig:
    """What happens to a site's parameters before they leave it."""

    mechanism: Literal["paper", "none", "site_ldp", "slide_dpsgd"] = knob(
        "paper",
        "paper: noise of privacy.noise_scale, without any formal guarantee; none: nothing; "
        "site_ldp: the whole update is clipped and noised, which hides all that a site has; "
        "slide_dpsgd: every gradient step is, which hides each patient (or slide) of a site",
    )
    noise_scale: float = knob(
        0.0,
        "paper: its alpha: Gaussian noise of alpha times the standard deviation of each tensor, "
        "added at the site before release. Formal guarantee: none",
        at_least=0,
    )
    noise_biases: bool = knob(
        False, "paper: true: biases are noised too; false: they leave in the clear, as in HistoFL"
    )
    noise_on: Literal["parameters", "update"] = knob(
        "parameters",
        "paper: whose standard deviation is meant: of the trained parameters, as in HistoFL, or of "
        "what the update changes, which is far less",
    )
    clip_norm: float = knob(
        1.0,
        "site_ldp: largest norm of an update; slide_dpsgd: largest norm of a patient's gradient",
        above=0,
    )
    noise_multiplier: float | None = knob(
        None,
        "site_ldp: standard deviation of the noise over the sensitivity (2 x clip_norm for "
        "neighbouring=replace, clip_norm for zero_out); slide_dpsgd: over clip_norm. Give this, or "
        "target_epsilon",
        above=0,
    )
    target_epsilon: float | None = knob(
        None,
        "site_ldp, slide_dpsgd: epsilon of a site after rounds.num_versions releases; the noise "
        "follows from it",
        above=0,
        at_most=200,
    )
    target_delta: float = knob(
        1e-5,
        "delta of every (epsilon, delta) that is stated; keep it below one over a site's patients",
        above=0,
        at_most=0.1,
    )
    neighbouring: Literal["replace", "zero_out"] = knob(
        "replace",
        "site_ldp: what cannot be told apart: replace: all data of the site and any other data; "
        "zero_out: all its data and a noised update of zero",
    )
    unit: Literal["patient", "slide"] = knob(
        "patient",
        "slide_dpsgd: whose presence cannot be told: a patient with all slides, or a single slide",
    )
    sampling_rate: float = knob(
        0.1,
        "slide_dpsgd: chance of every patient to be in a gradient step, apart from the others",
        above=0,
        at_most=1,
    )
    release_dim: int | None = knob(
        None,
        "site_ldp, slide_dpsgd: sites train within a fixed random subspace of so many dimensions, "
        "and release as many numbers: the noise on them is as much shorter as its square root "
        "(default: all parameters)",
        at_least=1,
    )
    budget: float | None = knob(
        None,
        "site_ldp, slide_dpsgd: a site refuses to release once its ledger, of all runs on its "
        "bags, would be beyond this epsilon (default: target_epsilon, in the run alone)",
        above=0,
    )
    metrics: Literal["auto", "released", "withheld"] = knob(
        "auto",
        "withheld: losses, validation metrics and signal to noise do not leave the site with its "
        "updates; they are outside of every guarantee; auto: withheld under slide_dpsgd, as they "
        "tell how many took part in a step, which its epsilon takes for secret; else released",
    )
    max_growth: float | None = knob(
        None,
        "a site refuses a network whose norm is more than so many times that of the one that "
        "everybody starts from",
        above=1,
    )
    noise_source: Literal["auto", "seeded", "os"] = knob(
        "auto",
        "seeded: noise repeats with run.seed, which hides nothing from who knows it (simulation); "
        "os: the entropy of the site's machine, and a ledger beside its bags; auto: os for train "
        "in real time, else seeded",
    )

    @property
    def withholds(self) -> bool:
        """Whether what is said beside updates stays at the site."""
        if self.metrics == "auto":
            return self.mechanism == "slide_dpsgd"
        return self.metrics == "withheld"

    def source(self, *, real: bool) -> Literal["seeded", "os"]:
        """Where sites take their noise from; real: a run of train that simulates no time."""
        if self.noise_source != "auto":
            return self.noise_source
        return "os" if real else "seeded"

    @property
    def amount(self) -> Literal["noise_scale", "target_epsilon"]:
        """Which knob says how much noise there is."""
        return "noise_scale" if self.mechanism == "paper" else "target_epsilon"

    def least_noise(self, amounts: Sequence[float]) -> float:
        """Which of several amounts is the least noise."""
        return min(amounts) if self.amount == "noise_scale" else max(amounts)

    def at(self, amount: float) -> PrivacyConfig:
        """The same mechanism with another amount of noise."""
        return replace(self, **{self.amount: amount})
