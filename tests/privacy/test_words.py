"""Sentences say what follows from the promise, and no more."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from rayfed_hn.privacy.words import adversary, guarantee, hidden, line, mechanism, noise, ratio

LDP: dict[str, Any] = {
    "mechanism": "site_ldp",
    "unit": "site",
    "neighbouring": "replace",
    "noise_source": "os",
    "formal_guarantee": "(8, 1e-05)-DP of every site after 50 releases of a site",
    "epsilon": 8.0,
    "delta": 1e-5,
    "signal_to_noise_at_most": 1 / 3769,
}
PATIENTS = LDP | {
    "mechanism": "slide_dpsgd",
    "unit": "patient",
    "neighbouring": "presence or absence",
    "signal_to_noise_at_most": None,
}
PAPER = {"mechanism": "paper", "noise_scale": 0.1, "formal_guarantee": "none"}
NONE = {"mechanism": "none", "formal_guarantee": "none"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1 / 3769, "1:3,769"),
        (0.5, "1:2"),
        (1 / 1.256, "1:1.26"),
        (1.0, "1:1"),
        (2.5, "2.5:1"),
        (1234.5, "1,234:1"),
        (0.0, "0:1"),
        (1 / 99.96, "1:100"),
    ],
)
def test_ratios(value: float, words: str) -> None:
    assert ratio(value) == words


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (NONE, "Privacy: no noise, no formal guarantee"),
        (PAPER, "Privacy: paper noise, no formal guarantee"),
        (
            LDP,
            "Privacy: (8, 1e-05)-DP of every site after 50 releases of a site; the noise is at "
            "least 3,769 times what a site can say; privacy.release_dim or a smaller network "
            "would make it less",
        ),
        (
            PATIENTS | {"signal_to_noise_at_most": 0.2},
            f"Privacy: {PATIENTS['formal_guarantee']}; the noise of a step is 5 times what its "
            "patients can say at most, if as many take part as are expected",
        ),
        (PATIENTS, f"Privacy: {PATIENTS['formal_guarantee']}"),
        (LDP | {"formal_guarantee": "none"} | {"signal_to_noise_at_most": 2.0},
         "Privacy: no formal guarantee; signal to noise 2:1 at best"),
    ],
)  # fmt: skip
def test_one_line_before_a_run(told: dict[str, Any], words: str) -> None:
    assert line(told) == words


def test_a_seed_is_no_secret() -> None:
    seeded = LDP | {"noise_source": "seeded"}
    assert line(seeded).startswith(line(LDP))
    assert "if the noise were secret" in line(seeded)
    first, second, *_ = guarantee(seeded, "fedavg")
    assert first.startswith("Formal guarantee: none in this simulation")
    assert LDP["formal_guarantee"] in second
    assert "simulations only" in noise(seeded)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 13.0])
def test_what_epsilon_means_is_its_exponential(epsilon: float) -> None:
    told = guarantee(LDP | {"epsilon": epsilon}, "fedavg")[1]
    (factor,) = re.findall(r"at most ([\d.,]+) times as likely", told)
    assert float(factor.replace(",", "")) == pytest.approx(math.exp(epsilon), rel=5e-3)


def test_of_a_large_epsilon_the_factor_is_not_written_out() -> None:
    told = guarantee(LDP | {"epsilon": 123.4}, "fedavg")[1]
    assert "e^123 (more than a million) times as likely" in told


@pytest.mark.parametrize("told", [PAPER, NONE])
@pytest.mark.parametrize("method", ["fedavg", "local", "pooled"])
def test_without_a_unit_nothing_is_guaranteed(told: dict[str, Any], method: str) -> None:
    assert guarantee(told, method)[0] == "Formal guarantee: none."
    assert hidden(told) == ("nobody's", "nothing is promised")
    server = adversary(told, method)["the server"]
    assert "holds even" not in server


def test_words_are_of_the_unit_that_is_hidden() -> None:
    assert hidden(LDP)[0] == "a site with all its data"
    assert hidden(PATIENTS)[1].endswith("with and without one patient")
    assert "gradient of each patient" in mechanism(PATIENTS)
    assert mechanism({"mechanism": "new"}) == "'new'"


def test_what_lies_beside_a_guarantee_is_said_with_it() -> None:
    for told in (LDP, LDP | {"metrics": "withheld"}, PATIENTS | {"metrics": "released"}):
        assert "not covered" in guarantee(told, "fedavg")[-1]
    private = PATIENTS | {"metrics": "released", "noise_source": "os"}
    assert "undo what sampling adds" in guarantee(private, "fedavg")[-1]
