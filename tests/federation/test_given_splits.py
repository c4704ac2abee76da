"""``data.splits``: the tables of CLAM instead of our folds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rayfed_hn.bags.splits import split
from rayfed_hn.bags.store import SiteBags, list_sites
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.cell import cells, fingerprint
from rayfed_hn.federation.experiment import run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load

SHORT = ["rounds.num_versions=2", "training.steps=2"]


def _write_folds(folder: Path, root: Path, num_folds: int, leave: int = 0) -> Path:
    """Our own folds as tables; ``leave`` slides of every site are in no part."""
    folder.mkdir(exist_ok=True)
    for fold in range(num_folds):
        lines = ["slide,train,val,test"]
        for site in list_sites(root):
            entries = SiteBags(root, site).entries
            parts = split(entries, num_folds, fold, 0)
            for i, entry in enumerate(entries[leave:], leave):
                flags = [str(i in p) for p in (parts.train, parts.validation, parts.test)]
                lines.append(",".join([entry.slide_id, *flags]))
        (folder / f"splits_{fold}_bool.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_our_own_folds_as_tables_train_the_same_networks(bag_root: Path, tmp_path: Path) -> None:
    tables = _write_folds(tmp_path / "tables", bag_root, 5)
    words = [*SHORT, "data.fold=3"]
    ours = make_plan(load(None, words), bag_root)
    given = make_plan(load(None, [*words, f"data.splits={tables}"]), bag_root)
    assert (given.num_bags, given.num_unnamed) == (ours.num_bags, 0)
    assert given.digest != ours.digest
    assert run_in_process(given).digest == run_in_process(ours).digest


def test_bags_in_no_part_are_counted(bag_root: Path, tmp_path: Path) -> None:
    tables = _write_folds(tmp_path / "tables", bag_root, 5, leave=2)
    plan = make_plan(load(None, [*SHORT, f"data.splits={tables}"]), bag_root)
    assert plan.num_unnamed == 6
    data = plan.site("south").data
    assert len(data.train) + len(data.validation) + len(data.test) == 8


def test_every_table_is_checked_before_the_first_is_used(bag_root: Path, tmp_path: Path) -> None:
    tables = _write_folds(tmp_path / "tables", bag_root, 3)
    last = tables / "splits_2_bool.csv"
    whole = last.read_text()
    config = load(None, [*SHORT, f"data.splits={tables}"])
    before = fingerprint(config, "")
    last.write_text(whole + "nobody,True,False,False\n")
    assert fingerprint(config, "") != before
    with pytest.raises(DataError, match="1 of its 31 slides have no bag"):
        make_plan(config, bag_root)
    shutil.rmtree(tables)
    with pytest.raises(DataError, match=r"no splits_0\.csv"):
        make_plan(config, bag_root)


def test_more_folds_than_tables_are_refused(bag_root: Path, tmp_path: Path) -> None:
    tables = _write_folds(tmp_path / "tables", bag_root, 3)
    config = load(None, [*SHORT, f"data.splits={tables}", "compare.folds=4"])
    make_plan(config, bag_root)
    with pytest.raises(ConfigError, match="has 3 tables"):
        make_plan(cells(config)[-1].config(config), bag_root)
