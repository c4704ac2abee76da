"""What a finished run hands on: the same from its server and from its directory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from joining import origin_of, run_directory, trained
from safetensors.torch import load_file, save_file
from tiny_federations import TASK_WORDS

from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.onboarding.origin import Origin, read_origin

RUNS = {
    "fixed": (),
    "learned": ("hypernetwork.features=learned",),
    "mlp": ("hypernetwork.features=mlp",),
    "estimated": ("hypernetwork.estimate=kernel",),
    "gate": ("hypernetwork.gate=0.5",),
    "pfedhn": ("method.name=pfedhn", "hypernetwork.chunks=3"),
    "fedavg": ("method.name=fedavg",),
    "site scale": ("model.standardise=site",),
    "no scale": ("model.standardise=none",),
    "all of a cohort": ("rounds.cohort_size=1",),
}


def _compare(one: Origin, other: Origin) -> None:
    for name in ("config", "recipe", "task", "feature_dim", "learning_rate"):
        assert getattr(one, name) == getattr(other, name), name
    assert torch.equal(one.initial, other.initial)
    assert torch.equal(one.base, other.base)
    assert one.networks.keys() == other.networks.keys() == {"a", "b"}
    for site, network_P in one.networks.items():
        assert torch.equal(network_P, other.networks[site])
    assert (one.scale is None) == (other.scale is None)
    if one.scale is not None and other.scale is not None:
        np.testing.assert_array_equal(one.scale.centre_D, other.scale.centre_D)
        np.testing.assert_array_equal(one.scale.deviation_D, other.scale.deviation_D)
    assert (one.generator is None) == (other.generator is None)
    if one.generator is not None and other.generator is not None:
        at_V = one.generator.start_V + 0.5
        assert torch.equal(one.generator.start_V, other.generator.start_V)
        assert torch.equal(one.generator.make(at_V), other.generator.make(at_V))


@pytest.mark.parametrize("kind", TASK_WORDS)
def test_of_every_task(kind: str, tasks_root: Path, tmp_path: Path) -> None:
    plan, server = trained(tasks_root, *TASK_WORDS[kind])
    read = read_origin(run_directory(tmp_path / "run", plan, server))
    _compare(read, origin_of(plan, server))
    assert read.task == plan.task  # with the cuts of survival
    assert read.scale is not None


@pytest.mark.parametrize("name", RUNS)
def test_of_every_method(name: str, tasks_root: Path, tmp_path: Path) -> None:
    plan, server = trained(tasks_root, *TASK_WORDS["binary"], *RUNS[name])
    read = read_origin(run_directory(tmp_path / "run", plan, server))
    _compare(read, origin_of(plan, server))
    assert (read.scale is None) == (name in ("site scale", "no scale"))
    assert (read.generator is None) == (name == "fedavg")


def test_its_parts_are_the_servers(tasks_root: Path) -> None:
    plan, server = trained(tasks_root, *TASK_WORDS["binary"])
    own = origin_of(plan, server)
    for number, site in enumerate(("a", "b")):
        np.testing.assert_array_equal(own.networks[site], server.rule.parameters_for(number))
    np.testing.assert_array_equal(own.base, server.shared_candidates()[-1])
    assert torch.equal(own.initial, plan.initial())
    assert own.learning_rate == plan.learning_rate
    rows_KV = server.rule.state()["site_embeddings"].float()
    assert own.generator is not None
    made, mean = own.generator.make(rows_KV[1]), rows_KV.mean(dim=0)
    torch.testing.assert_close(own.generator.make(mean), own.base, atol=2e-6, rtol=0)
    shared = torch.tensor(server.rule.shared())
    personal = own.networks["b"] - shared
    torch.testing.assert_close(made - own.base, personal, atol=2e-6, rtol=0)


@pytest.fixture
def run(tasks_root: Path, tmp_path: Path) -> Path:
    return run_directory(tmp_path / "run", *trained(tasks_root, *TASK_WORDS["binary"]))


def _change(run: Path, **changes: object) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary = {k: v for k, v in (summary | changes).items() if v is not None}
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("method", ["local", "pooled", "fedper", "pfedhn_pc"])
def test_methods_without_a_whole_shared_network_are_refused(run: Path, method: str) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["method"] = {"name": method}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=rf"method\.name={method}.*must be one of hypernetwork"):
        read_origin(run)


def test_what_is_no_finished_train_is_refused(run: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"RUN: .*nowhere has no summary\.json; give the run\.dir"
    ):
        read_origin(run / "nowhere")
    _change(run, verb="compare")
    with pytest.raises(ConfigError, match="made by 'compare'"):
        read_origin(run)
    _change(run, verb="train", recipe_sha256=None)
    with pytest.raises(ConfigError, match=r"by an older version.*train again"):
        read_origin(run)
    for text in ("[]", "{", "7"):
        (run / "summary.json").write_text(text)
        with pytest.raises((ConfigError, DataError), match="train again"):
            read_origin(run)


def test_a_damaged_or_foreign_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    path = run / "checkpoints" / "last.safetensors"
    tensors, whole = load_file(path), path.read_bytes()
    save_file({k: v for k, v in tensors.items() if k != "head"}, path)
    with pytest.raises(DataError, match=r"'head' should be .* found nothing"):
        read_origin(run)
    path.write_bytes(whole[:-5])
    with pytest.raises(DataError, match="its checkpoint cannot be read"):
        read_origin(run)
    path.unlink()
    with pytest.raises(DataError, match="its checkpoint cannot be read"):
        read_origin(run)
    path.write_bytes(whole)
    _change(run, feature_dim=7)
    with pytest.raises(DataError, match="'theta_0' should be"):
        read_origin(run)


def test_the_base_of_a_run_is_an_average_and_no_site_is_needed(tasks_root: Path) -> None:
    """With rho = 0 all embeddings make the base, a moving average and not the last version."""
    plan, server = trained(tasks_root, *TASK_WORDS["binary"], "hypernetwork.rho=0")
    own = origin_of(plan, server)
    assert own.generator is not None
    last_P = torch.from_numpy(server.rule.parameters_for(0))
    for at_V in (own.generator.start_V, own.generator.start_V + 3):
        torch.testing.assert_close(own.generator.make(at_V), own.base)
    assert not torch.equal(own.base, last_P)
