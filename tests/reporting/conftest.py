from __future__ import annotations

from pathlib import Path

import pytest
from fake_privacy import make_private_run
from fake_runs import make_compare_run, make_train_run
from fake_scale import METHODS, make_scale_run, scale_summary


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
def reported_private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a training run with a formal guarantee, to be looked at only."""
    from rayfed_hn.reporting.report import write_report

    return write_report(make_private_run(tmp_path_factory.mktemp("reported") / "private"))


@pytest.fixture(scope="session")
def reported_compare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a comparison, to be looked at only."""
    from rayfed_hn.reporting.report import write_report

    return write_report(make_compare_run(tmp_path_factory.mktemp("reported") / "compare"))


@pytest.fixture(scope="session")
def reported_scale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of more and more sites, with a method of hostile name, to be looked at only."""
    from rayfed_hn.reporting.report import write_report

    summary = scale_summary(methods=(*METHODS, "<b>x"))
    return write_report(make_scale_run(tmp_path_factory.mktemp("reported") / "scale", summary))
