"""Federations whose sites have a store each, and the same federation in one process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cables import Cables
from tiny_federations import SHORT, federation

from rayfed_hn.config import Config
from rayfed_hn.federation.experiment import Outcome, run_in_process
from rayfed_hn.federation.plan import make_plan
from rayfed_hn.loading import load
from rayfed_hn.transport.serve import Service
from rayfed_hn.transport.site_agent import SiteAgent

LABELS = {"a": tuple("01" * 6), "b": tuple("01" * 5)}
SITES = tuple(LABELS)
STATED = (*SHORT, "task.classes=0,1")


def stores(root: Path, **about: Any) -> Path:
    """``root/all`` has all bags, ``root/a`` and ``root/b`` those of one site each."""
    federation(root / "all", LABELS, **about)
    for site in LABELS:
        others = [f"site={other}" for other in LABELS if other != site]
        shutil.copytree(root / "all", root / site, ignore=shutil.ignore_patterns(*others))
    return root


@cache
def together(root: Path, *words: str) -> Outcome:
    """The run in one process."""
    return run_in_process(make_plan(load(None, [*STATED, *words]), root / "all"))


def config_of(*words: str) -> Config:
    return load(None, [*STATED, *words])


def agent_of(root: Path, folder: Path, site: str, words: Sequence[str] = ()) -> SiteAgent:
    """A process of a site, as ``join`` has it."""
    own = folder / f"run-{site}"
    own.mkdir(parents=True, exist_ok=True)
    return SiteAgent(config_of(*words), root / site, site, own)


def serve(
    cables: Cables, folder: Path, words: Sequence[str] = (), told: list[str] | None = None
) -> dict[str, Any]:
    """The server's process, from the first card to the summary."""
    config = config_of(f"run.dir={folder / 'run'}", *words)
    (folder / "run").mkdir(parents=True, exist_ok=True)
    lines = [] if told is None else told
    service = Service(config, folder / "run", SITES, cables, lines.append)
    return service.run(service.gather(), lambda news: None)
