"""Every command of the documentation exists as it is printed: verbs, options, keys, targets, files.

That they do what is said is in ``test_commands_run.py`` (``make test-docs``).
"""

from __future__ import annotations

import re

import pytest
from checking import NEEDS, complaints
from fences import Fence, commands, fences, inline
from played import NOT_RUN, SCENES, lines_of, not_run

FENCES = list(fences())
SHELL = [fence for fence in FENCES if fence.is_shell]
INLINE = list(inline())
LANGUAGES = {"", "bash", "csv", "python", "yaml"}
_COMMAND = re.compile(
    r"^(rayfed-hn|make|python|ray|pip|cluster/\S+\.sh|tensorboard|kubectl) ", re.M
)


def _written(page: str) -> dict[str, str]:
    """Files that the blocks of a page make."""
    return {k: v for fence in SHELL if fence.page == page for k, v in fence.written.items()}


@pytest.mark.parametrize("fence", SHELL, ids=lambda fence: fence.place)
def test_a_block_is_right(fence: Fence) -> None:
    assert complaints(fence.text, _written(fence.page)) == []
    assert fence.needs is None or fence.needs in NEEDS


def test_commands_in_sentences_are_right() -> None:
    assert len(INLINE) > 50
    found = {one.place: complaints(one.text, _written(one.page)) for one in INLINE}
    assert {place: what for place, what in found.items() if what} == {}


def test_blocks_say_what_they_are() -> None:
    assert {fence.info.split(" ")[0] for fence in FENCES} <= LANGUAGES
    untagged = [f.place for f in FENCES if not f.info and _COMMAND.search(f.text)]
    assert untagged == [], "blocks of commands that are not called bash"
    for fence in FENCES:
        if fence.info == "python":
            compile(fence.text, fence.place, "exec")


def test_every_page_with_commands_is_played() -> None:
    """Blocks that need nothing special are run by ``test_commands_run.py``, in their scene."""
    left = {
        fence.page
        for fence in SHELL
        if fence.needs is None and any(not_run(line) is None for line in lines_of(fence))
    }
    left |= {fence.page for fence in FENCES if fence.info == "python"}
    assert left == set(SCENES)


def test_no_row_of_the_table_of_what_is_not_run_is_idle() -> None:
    used = {not_run(line) for fence in SHELL if fence.needs is None for line in lines_of(fence)}
    assert used - {None} == set(NOT_RUN)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rayfed-hn trian data.bags=bags", "trian: no such verb"),
        ("rayfed-hn manifest tgca slides/ labels.csv", "tgca: no such verb"),
        ("rayfed-hn train data.bag=bags", "did you mean data.bags?"),
        ("rayfed-hn train rounds.num_versions=many", "rounds.num_versions: got 'many'"),
        ("rayfed-hn train method.name=fedavgg", "method.name: got 'fedavgg'"),
        ("rayfed-hn train data.bags=bags compare.seeds=3", "compare.seeds has no effect"),
        ("rayfed-hn train a.yaml b.yaml", "'b.yaml' is not of the form"),
        ("rayfed-hn train conf/gone.yaml", "conf/gone.yaml does not exist"),
        ("rayfed-hn train study.yaml training.steps=3 rounds.x=1", "rounds.x: unknown key"),
        ("rayfed-hn onboard runs/final", "Missing option '--site'"),
        ("rayfed-hn report", ""),  # by its name
        ("rayfed-hn report runs/one runs/two", "unexpected extra argument"),
        ("rayfed-hn embed --retries data.bags=bags", "No such option"),
        ("rayfed-hn export bags out --layout flat", "'flat' is not one of"),
        ("rayfed-hn certificates pki --days=0", "0 is not in the range"),
        ("rayfed-hn report runs/one && rayfed-hn reprot runs/one", "reprot: no such verb"),
        ("RAY_ADDRESS=auto rayfed-hn reprot runs/one &", "reprot: no such verb"),
        ("for s in a b; do\n  rayfed-hn trian data.bags=$s\ndone", "trian: no such verb"),
        ("ray job submit -- env A=b rayfed-hn trian data.bags=bags", "trian: no such verb"),
        ('job() { ray job submit -- rayfed-hn "$@"; }\njob trian x=1', "trian: no such verb"),
        ("rayfed-hn train data.bags=bags \\\n  run.dirr=runs/x   # a comment", "run.dirr: unknown"),
        ("make .venv/.ready", ""),
        ("make READY", "make READY: no such target"),
        ("make tset", "make tset: no such target"),
        ("python benchmarks/gone.py", "benchmarks/gone.py: no such file"),
        ("python benchmarks/methods.py --fold 2", "has no option --fold"),
        ("cluster/gone.sh up", "cluster/gone.sh: no such file"),
        ("cluster/aws.yaml up", "cluster/aws.yaml: is no program"),
        ("ray up cluster/gone.yaml", "cluster/gone.yaml: no such file"),
        ("sudo rayfedhn train", "rayfedhn: is not among the programs"),
    ],
)
def test_faults_are_seen(text: str, says: str) -> None:
    found = complaints(text, {"study.yaml": "task: {classes: [a, b]}"})
    assert [says in one for one in found] == ([True] if says else []), found


def test_a_fault_in_a_file_that_a_block_writes_is_seen() -> None:
    (found,) = complaints("rayfed-hn train study.yaml run.seed=1", {"study.yaml": "task: {kid: 1}"})
    assert "task.kid: unknown key" in found


def test_scripts_come_apart_as_a_shell_takes_them() -> None:
    script = "a \"b; c\" > d 2>&1 && (umask 077; e) | f   # g\ncat > x <<'END'\nh\nEND\ni \\\n  j"
    assert list(commands(script)) == [
        ["a", "b; c", "2"], ["umask", "077"], ["e"], ["f"], ["cat"], ["i", "j"],
    ]  # fmt: skip
