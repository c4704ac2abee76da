from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import make_compare_run, make_train_run


@pytest.fixture
def train_run(tmp_path: Path) -> Path:
    """To be changed by a test."""
    return make_train_run(tmp_path / "train")


@pytest.fixture
def compare_run(tmp_path: Path) -> Path:
    """To be changed by a test."""
    return make_compare_run(tmp_path / "compare")


@pytest.fixture(scope="session")
def reported_train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a training run, to be looked at only."""
    from rayfed_hn.reporting.report import write_report

    return write_report(make_train_run(tmp_path_factory.mktemp("reported") / "train"))


@pytest.fixture(scope="session")
def reported_compare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a comparison, to be looked at only."""
    from rayfed_hn.reporting.report import write_report

    return write_report(make_compare_run(tmp_path_factory.mktemp("reported") / "compare"))
