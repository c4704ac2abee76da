"""The verb that attacks a finished run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rayfed_hn.errors import PromiseBroken
from rayfed_hn.federation.record import package_versions, write_record
from rayfed_hn.files import write_text
from rayfed_hn.progress import Bar, bar
from rayfed_hn.reporting.boards import write_curves
from rayfed_hn.verbs.common import before_anything_starts, resumable

if TYPE_CHECKING:
    from rayfed_hn.audit.progress import Progress


def audit(run: Path, words: Sequence[str]) -> int:
    """See ``rayfed-hn audit --help``."""
    import torch

    from rayfed_hn.audit.audit import audit as attack
    from rayfed_hn.audit.run import read_run
    from rayfed_hn.audit.words import markdown, verdict

    begun = time.monotonic()
    torch.set_num_threads(1)  # as sites train: results must not depend on cores
    with resumable("the same command starts the audit again"), _bars() as progress:
        with before_anything_starts():
            attacked = read_run(
                run, words, lambda done, total: progress("making the run again", done, total)
            )
        found = attack(attacked, progress)
    broken = found["verdict"] == "broken"
    table = markdown(found)
    found = {"verb": "audit", "exit_code": int(broken), **found}
    found |= {"seconds": round(time.monotonic() - begun, 2), "versions": package_versions()}
    write_record(run / "audit.json", found)
    write_text(run / "audit.md", table)
    write_curves(run, found, "audit")
    print(f"\n{table}\nWritten: {run / 'audit.json'} and {run / 'audit.md'}")
    if broken:
        raise PromiseBroken(
            f"{verdict(found)} Do not rely on its epsilon; {run / 'audit.md'} says which canaries "
            "were guessed"
        )
    return 0


@contextmanager
def _bars() -> Iterator[Progress]:
    """A progress bar for every piece of work, one after the other."""
    with ExitStack() as stack:
        shown: dict[str, Bar] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                stack.close()
                shown[what] = stack.enter_context(bar(what, total))
            shown[what].update(done)

        yield show
