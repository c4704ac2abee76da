"""Fixtures that several parts of the suite share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from tiny_bags import make_bag
from tiny_federations import for_all_tasks

from rayfed_hn.bags import store

settings.register_profile("here", deadline=None)  # a busy machine is no failure
settings.load_profile("here")

collect_ignore_glob: list[str] = []
if os.environ.get("RAYFED_HN_WITHOUT_RAY"):  # as `make test` does: the core must not need it
    sys.modules["ray"] = None  # type: ignore[assignment]
    collect_ignore_glob += ["orchestration/*", "test_cli.py"]
    collect_ignore_glob += ["faults/test_actors_that_die.py", "faults/test_killed_drivers.py"]
    collect_ignore_glob += ["faults/test_driver_that_dies.py", "faults/test_lost_nodes.py"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, as sites train: with more, small tensors mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real slides and bags, which is never part of the project."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RAYFED_HN_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real data here: set RAYFED_HN_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray cluster for all tests that need one."""
    import ray

    os.environ.setdefault("RAY_worker_niceness", "0")  # as the product has it
    ray.init(
        address="local",  # not one that somebody else has started on this machine
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        labels={"hospital": "north"},
        resources={"site:north": 1},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def bag_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites with ten bags each: positive bags hold a few instances of a shifted kind."""
    root = tmp_path_factory.mktemp("bags")
    rng = np.random.default_rng(7)
    store.create(root, {"encoder": "test", "feature_dim": 12})
    for number, site in enumerate(("north", "south", "west")):
        for i in range(10):
            store.write(root, make_bag(rng, site, i, number))
    return root


@pytest.fixture(scope="session")
def tasks_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sites whose bags have grades and times."""
    return for_all_tasks(tmp_path_factory.mktemp("tasks"))
