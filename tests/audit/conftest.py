from __future__ import annotations

from pathlib import Path

import pytest
from audited_runs import make_store


@pytest.fixture(scope="session")
def leaky_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("leaky"))
