"""``data.leave_out``: a run without some sites is that of a store which never had them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_federations import TASK_WORDS, plan_of

from rayfed_hn.bags.splits import split
from rayfed_hn.bags.store import SiteBags, list_sites
from rayfed_hn.config import METHODS
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.federation.experiment import run_in_process

BINARY = TASK_WORDS["binary"]
OUT = "data.leave_out=c"


@pytest.fixture(scope="module")
def without(tasks_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store whose third site was deleted."""
    root = tmp_path_factory.mktemp("without") / "bags"
    shutil.copytree(tasks_root, root)
    shutil.rmtree(root / "site=c")
    return root


@pytest.mark.parametrize("method", METHODS)
def test_with_every_method(tasks_root: Path, without: Path, method: str) -> None:
    words = (*BINARY, f"method.name={method}", "rounds.num_versions=1")
    asked, theirs = plan_of(tasks_root, *words, OUT), plan_of(without, *words)
    assert asked.hospitals == theirs.hospitals == ("a", "b")
    assert (asked.num_bags, asked.digest) == (theirs.num_bags, theirs.digest)
    assert [name for name, _ in asked.set_aside] == [name for name, _ in theirs.set_aside]
    one, other = run_in_process(asked), run_in_process(theirs)
    assert one.digest == other.digest
    for name in one.server.sites:
        assert (one.server.parameters_for(name) == other.server.parameters_for(name)).all()


def test_it_changes_what_is_trained(tasks_root: Path) -> None:
    whole, less = plan_of(tasks_root, *BINARY), plan_of(tasks_root, *BINARY, OUT)
    assert whole.hospitals == ("a", "b", "c")
    assert whole.digest != less.digest


def test_cuts_of_time_are_of_those_who_take_part(tasks_root: Path, without: Path) -> None:
    words = TASK_WORDS["survival"]
    less = plan_of(tasks_root, *words, OUT).task
    assert less == plan_of(without, *words).task
    assert less != plan_of(tasks_root, *words).task


def test_names_that_make_no_sense_are_refused(tasks_root: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.leave_out: d, e is no site of .*; it has a, b, c"
    ):
        plan_of(tasks_root, *BINARY, "data.leave_out=e,c,d")
    with pytest.raises(ConfigError, match=r"data\.leave_out: names every site"):
        plan_of(tasks_root, *BINARY, "data.leave_out=a,b,c")


def test_tables_may_name_slides_of_the_site(tasks_root: Path, tmp_path: Path) -> None:
    """But of nobody else who has no bag."""
    lines = ["slide,train,val,test"]
    for site in list_sites(tasks_root):
        entries = SiteBags(tasks_root, site).entries
        parts = split(entries, 5, 0, 0)
        for i, entry in enumerate(entries):
            flags = [str(i in part) for part in (parts.train, parts.validation, parts.test)]
            lines.append(",".join([entry.slide_id, *flags]))
    table = tmp_path / "splits_0_bool.csv"
    table.write_text("\n".join(lines) + "\n")
    words = (*TASK_WORDS["multiclass"], OUT)
    given = plan_of(tasks_root, *words, f"data.splits={tmp_path}")
    ours = plan_of(tasks_root, *words)
    assert (given.num_bags, given.num_unnamed) == (ours.num_bags, 0)
    assert run_in_process(given).digest == run_in_process(ours).digest
    table.write_text("\n".join([*lines, "nobody,True,False,False"]) + "\n")
    with pytest.raises(DataError, match="1 of its 46 slides have no bag"):
        plan_of(tasks_root, *words, f"data.splits={tmp_path}")
