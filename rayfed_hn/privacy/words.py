"""What a run promises of the data behind it, in words that somebody can decide by.

Sentences are made from what a run was told to promise (``Plan.promise``, here ``told``) and from
the name of its method, and say no more than follows from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rayfed_hn.privacy.accounting import LARGEST_EPSILON

Told = Mapping[str, Any]

UNITS = {
    "site": "a site with all its data",
    "patient": "a patient with all slides",
    "slide": "a single slide; of a patient with several, more can be told",
}
NEIGHBOURS = {
    "replace": "the data of a site and any other data in their place",
    "zero_out": "a site with its data and a site that sends noise alone",
    "presence or absence": "the training data of a site with and without",  # a unit
}
MECHANISMS = {
    "none": "none: updates leave a site as they are",
    "paper": (
        "the paper's noise: at the site, Gaussian noise of noise_scale standard deviations is "
        "added (HistoFL, Lu et al. 2022)"
    ),
    "site_ldp": (
        "the whole update of a site is scaled down to a norm of at most clip_norm; then Gaussian "
        "noise of noise_deviation is added to every coordinate, before it leaves the site"
    ),
    "slide_dpsgd": (
        "in every training step, the gradient of each {unit} is scaled down to a norm of at most "
        "clip_norm, and Gaussian noise of noise_deviation is added to every coordinate of the sum; "
        "who is in a step is drawn by chance (sampling_rate), for each {unit} apart"
    ),
}
_WATCHERS = ("the server", "other sites", "a released network")
_BASELINES = {
    "local": (
        "is not needed for sites that train alone; in this simulation it sees all networks",
        "see nothing of each other",
        "was trained on one site's slides without noise: nothing bounds what it tells",
    ),
    "pooled": (
        "holds all bags, and sees everything",
        "have given their bags away, and see the network",
        "was trained on all sites' slides without noise: nothing bounds what it tells",
    ),
}
_LARGEST_FACTOR = 1e6  # a larger one tells nobody more
_HOPELESS = 0.1  # signal to noise at best: much of a run is then lost in it


def is_formal(told: Told) -> bool:
    """Whether the mechanism has a unit whose data it hides by some epsilon."""
    return "unit" in told


def ratio(signal_to_noise: float) -> str:
    """Signal to noise, such as 1:3,769 or 2.5:1."""
    if signal_to_noise <= 0:
        return "0:1"
    if signal_to_noise < 1:
        return f"1:{_digits(1 / signal_to_noise)}"
    return f"{_digits(signal_to_noise)}:1"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def line(told: Told) -> str:
    """One line before a run begins."""
    if told["mechanism"] == "none":
        return "Privacy: no noise, no formal guarantee"
    if not is_formal(told):
        return f"Privacy: {told['mechanism']} noise, no formal guarantee"
    guarantee = told.get("formal_guarantee", "none")
    words = "no formal guarantee" if guarantee == "none" else guarantee
    at_most = told.get("signal_to_noise_at_most")
    if at_most:
        words += f"; {_best(told, at_most)}"
    if told.get("noise_source") == "seeded" and guarantee != "none":
        words += " (if the noise were secret: it is drawn from run.seed, for simulations only)"
    return f"Privacy: {words}"


def _best(told: Told, at_most: float) -> str:
    """How much of what a site learns can be left, before anything is learned."""
    step, hint = told["mechanism"] == "slide_dpsgd", ""
    if at_most >= 1:
        return f"signal to noise{' of a usual step' if step else ''} {ratio(at_most)} at best"
    times = _digits(1 / at_most)
    words = f"the noise is at least {times} times what a site can say"
    if step:
        words = f"the noise of a step is {times} times what its {told['unit']}s can say at most"
        words += ", if as many take part as are expected"
    if at_most < _HOPELESS:
        hint = "; privacy.release_dim or a smaller network would make it less"
    return words + hint


def guarantee(told: Told, method: str) -> list[str]:
    """What is guaranteed, and what that means; or that nothing is, and why."""
    if not is_formal(told):
        return ["Formal guarantee: none.", _why_none(told, method)]
    stated, secret = told.get("formal_guarantee", "none"), told.get("noise_source") == "os"
    if stated == "none":
        return [
            "Formal guarantee: none.",
            f"With so little noise epsilon is beyond {LARGEST_EPSILON:,.0f}, which promises "
            "nothing.",
        ]
    if secret:
        return [f"Formal guarantee: {stated}.", _meaning(told), *_beside(told)]
    return [
        "Formal guarantee: none in this simulation, whose noise was drawn from run.seed: who knows "
        "the seed can draw it again and take it out.",
        f"With secret noise (privacy.noise_source=os) it would be {stated}.",
        _meaning(told),
        *_beside(told),
    ]


def _beside(told: Told) -> list[str]:
    listed = "What else left without noise, such as test scores, is listed below and not covered."
    if told.get("metrics") != "released":
        return [f"This is about updates. {listed}"]
    private = " and undo what sampling adds" if told["mechanism"] == "slide_dpsgd" else ""
    return [
        "This is about updates. Losses, validation metrics and signal to noise left with them as "
        f"they are, tell of the data too{private}; privacy.metrics=withheld keeps them at the "
        f"site. {listed}"
    ]


def _why_none(told: Told, method: str) -> str:
    if method == "local":
        return (
            "No noise was added, since sites that train alone release nothing that was learned. "
            "Their networks were trained on their slides without noise."
        )
    if method == "pooled":
        return "No noise was added, since all bags lie in one place: who holds it sees everything."
    if told["mechanism"] == "none":
        return (
            "Updates left every site as they were learned: nothing was clipped and no noise was "
            "added, so that there is no bound on what they tell of a slide or a patient."
        )
    biases = "biases left in the clear" if "in the clear" in str(told.get("noised")) else ""
    reasons = [
        "nothing was clipped, so that there is no bound on what one slide can change",
        "the scale of the noise follows the data themselves",
        *([biases] if biases else []),
    ]
    return (
        f"The paper's noise bounds nothing, whatever its size: {'; '.join(reasons)}. It disturbs, "
        "and no epsilon can be stated for it."
    )


def _meaning(told: Told) -> str:
    """What (epsilon, delta) says about conclusions."""
    epsilon, delta = float(told["epsilon"]), float(told["delta"])
    factor = f"{_digits(math.exp(epsilon))} times" if epsilon < math.log(_LARGEST_FACTOR) else ""
    return (
        f"In words: whoever sees all updates, the server included, can tell {_pair(told)} apart "
        f"only within a limit. Whatever they conclude is at most "
        f"{factor or f'e^{epsilon:.3g} (more than a million) times'} as likely with the one as "
        f"with the other, plus a chance of {delta:g}. The closer to 1 the factor, the stronger "
        "the guarantee."
    )


def _pair(told: Told) -> str:
    words = NEIGHBOURS[told["neighbouring"]]
    return f"{words} one {told['unit']}" if told["unit"] != "site" else words


def adversary(told: Told, method: str) -> dict[str, str]:
    """What the server, other sites, and whoever is given a network see."""
    if method in _BASELINES:
        return dict(zip(_WATCHERS, _BASELINES[method], strict=True))
    noised = "" if told["mechanism"] == "none" else ", its noise included"
    sees = f"sees every update of every site with the site's name{noised}"
    gets = "see no updates, but receive networks that were made from the updates of all sites"
    if is_formal(told):
        seen = (
            f"{sees}. What is said of them holds even if it sends networks that were made up to "
            "learn more; it does not hold for what is listed below",
            f"{gets}, which tell no more than those",
            "tells no more than the updates that it was made from, but for what is listed below",
        )
    else:
        seen = (
            f"{sees}. Nothing bounds what it can learn from them, least of all if it sends "
            "networks that were made up to learn more",
            f"{gets}; nothing bounds what these tell",
            "may show who it was trained on, and more; nothing bounds what it tells",
        )
    return dict(zip(_WATCHERS, seen, strict=True))


def mechanism(told: Told) -> str:
    """What was done to updates before they left a site."""
    words = MECHANISMS.get(told["mechanism"], f"'{told['mechanism']}'")
    words = words.format(unit=told.get("unit", "unit"))
    if told["mechanism"] != "paper":
        return words
    return f"{words} to {told['noised']}" if "noised" in told else words


def noise(told: Told) -> str:
    """Where the noise came from, and what that means."""
    if told["mechanism"] == "none":
        return "there was none"
    if told.get("noise_source") == "os":
        return (
            "drawn from the entropy of each site's own machine, which nobody can draw again; not "
            "hardened against attacks on the last bits of floating-point numbers"
        )
    return (
        "drawn from run.seed, for simulations only: who knows the seed can take it out, and any "
        "epsilon holds only for secret noise"
    )


def hidden(told: Told) -> tuple[str, str]:
    """Whose data are hidden, and what cannot be told apart."""
    if not is_formal(told):
        return "nobody's", "nothing is promised"
    return UNITS[told["unit"]], _pair(told)


def outside(told: Told, method: str) -> list[str]:
    """What no statement about updates covers, beside what a run lists as released."""
    found = [
        "how settings and methods were chosen, if the same cases were used for that (tuning)",
        "the division of the cases into training, validation and test, which follows their labels "
        "unless it was given",
        "network files that stay at a site (sites/<name>): they were chosen, mixed or trained "
        "further on its bags without noise, and are for the site alone",
    ]
    if is_formal(told) and method not in ("local", "pooled"):
        found.append(
            "releases of other runs on the same bags, and those of this run that were under way "
            "when it ended: they add up, and only the ledger at each site knows all of them"
        )
    return found
