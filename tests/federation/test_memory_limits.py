"""What a server could not hold is refused before anything starts, with a key and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rayfed_hn.errors import ConfigError
from rayfed_hn.federation import rules
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.federation.rules import check_memory, make_rule
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout

PAPER = 788_739  # parameters of HistoFL's network
ESTIMATE = "hypernetwork.estimate"
HEAVY = [
    # settings, sites; what is refused, and what to do
    (["method.name=local"], 3000, "method.name=local: keeps 3,000 networks", "fewer sites"),
    (["method.name=hypernetwork"], 3000, "hypernetwork.embedding_dim: keeps 3,000", "set it lower"),
    (
        ["method.name=hypernetwork_ft", "hypernetwork.embedding_dim=2800"],
        4,
        "hypernetwork.embedding_dim: keeps 2,800",
        "set it lower",
    ),
    ([f"{ESTIMATE}=rho"], 2000, f"{ESTIMATE}=rho: keeps 4,000", "none, and hypernetwork.rho"),
    ([f"{ESTIMATE}=kernel"], 2000, f"{ESTIMATE}=kernel: keeps 4,000", "none, and hypernetwork.rho"),
]


@pytest.mark.parametrize(("words", "num_sites", "what", "remedy"), HEAVY)
def test_what_takes_too_much_is_named_with_its_remedy(
    words: list[str], num_sites: int, what: str, remedy: str
) -> None:
    config = load(None, words)
    with pytest.raises(ConfigError) as error:
        check_memory(config, PAPER, num_sites)
    text = str(error.value)
    assert text.startswith(what)
    assert "of 788,739 parameters" in text
    assert f"{num_sites:,} sites" in text
    assert " 8 GiB are allowed" in text
    assert remedy in text.rsplit(": ", 1)[1]
    check_memory(config, PAPER // 100, num_sites)


@pytest.mark.parametrize("method", ["pfedhn", "pfedhn_pc", "pfedhn_ft"])
def test_pfedhn_takes_less_in_chunks(method: str) -> None:
    size = 30 * PAPER
    with pytest.raises(ConfigError, match=r"^hypernetwork\.chunks=1: .*: raise it"):
        check_memory(load(None, [f"method.name={method}"]), size, 6)
    check_memory(load(None, [f"method.name={method}", "hypernetwork.chunks=4"]), size, 6)
    plain = ["hypernetwork.optimiser=sgd", f"method.name={method}"]  # keeps no moments
    with pytest.raises(ConfigError, match=r"keeps 101 networks"):
        check_memory(load(None, plain), size, 6)
    check_memory(load(None, plain), size * 4 // 5, 6)


def test_the_remedies_help() -> None:
    for words in (
        ["hypernetwork.embedding_dim=16"],
        ["hypernetwork.embedding_dim=16", f"{ESTIMATE}=none"],
    ):
        check_memory(load(None, words), PAPER, 3000)


@pytest.mark.parametrize("method", ["fedavg", "fedavg_ft", "fedprox", "fedper", "pooled"])
def test_one_network_for_all_is_never_too_much(method: str) -> None:
    check_memory(load(None, [f"method.name={method}"]), 10**9, 10**6)


@pytest.mark.parametrize(
    "words",
    [
        ["method.name=local"],
        ["hypernetwork.embedding_dim=40"],
        [],
        [f"{ESTIMATE}=rho"],
        ["method.name=pfedhn"],
        ["method.name=pfedhn", "hypernetwork.optimiser=adam", "hypernetwork.chunks=3"],
    ],
)
def test_what_is_counted_is_what_a_rule_holds(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    size, num_sites, config = 20_000, 30, load(None, words)
    layout = ParameterLayout((("a", (size - 5,)), ("b", (5,))))
    rule = make_rule(config, torch.zeros(size), layout, num_sites)
    held = sum(t.numel() * t.element_size() for t in rule.state().values())
    monkeypatch.setattr(rules, "MAX_STATE_BYTES", 1.6 * held)  # with room for a step
    check_memory(config, size, num_sites)
    monkeypatch.setattr(rules, "MAX_STATE_BYTES", 0.9 * held)
    with pytest.raises(ConfigError):
        check_memory(config, size, num_sites)


@pytest.mark.parametrize("method", ["local", "hypernetwork", "pfedhn"])
def test_a_plan_is_not_made_of_what_takes_too_much(
    bag_root: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    config = load(None, [f"method.name={method}"])
    make_plan(config, bag_root)
    monkeypatch.setattr(rules, "MAX_STATE_BYTES", 1000)
    with pytest.raises(ConfigError, match="for 3 sites"):
        make_plan(config, bag_root)
    make_plan(load(None, ["method.name=fedavg"]), bag_root)
