"""A run directory goes on with the run that it holds, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.loading import load
from rayfed_hn.run_directory import claim, run_id

MORE_CORES = load(None, ["resources.cpus=7"])


def test_another_place_goes_on_with_the_same_run(tmp_path: Path) -> None:
    claim(tmp_path, load(None, []), "train", resume=False)
    claim(tmp_path, MORE_CORES, "train", resume=True)


def test_where_time_is_measured_the_place_stays(tmp_path: Path) -> None:
    claim(tmp_path, load(None, []), "train", resume=False, measured=True)
    with pytest.raises(ConfigError, match=r"resources\.cpus: got 7, but the run in .* has None"):
        claim(tmp_path, MORE_CORES, "train", resume=True, measured=True)


def test_another_setting_is_another_run(tmp_path: Path) -> None:
    claim(tmp_path, load(None, []), "train", resume=False)
    with pytest.raises(ConfigError, match=r"run\.seed: got 3, but"):
        claim(tmp_path, load(None, ["run.seed=3"]), "train", resume=True)
    with pytest.raises(ConfigError, match=r"run\.dir: .* holds a run already"):
        claim(tmp_path, load(None, []), "train", resume=False)


@pytest.mark.parametrize("text", ["", "a", "../../etc/passwd"])
def test_a_run_without_its_name_does_not_take_another(tmp_path: Path, text: str) -> None:
    name = run_id(tmp_path)
    assert run_id(tmp_path) == name
    (tmp_path / "run_id").write_text(text)
    with pytest.raises(DataError, match="run_id is damaged"):
        run_id(tmp_path)
