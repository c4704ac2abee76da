"""The verbs of a federation whose sites are elsewhere: its server, a site, and certificates."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.run_directory import VERB, known_run
from rayfed_hn.storage.remote import named
from rayfed_hn.verbs.common import (
    before_anything_starts,
    check_ledgers,
    configuration,
    existing,
    print_troubles,
    resumable,
    run_dir,
)


@dataclass(frozen=True)
class Files:
    """``--certificate``, ``--key`` and ``--ca``."""

    certificate: Path
    key: Path
    ca: Path


def serve(words: Sequence[str], listen: str, sites: Sequence[str], files: Files) -> int:
    """See ``rayfed-hn serve --help``."""
    from rayfed_hn.progress import bar
    from rayfed_hn.reporting.tracking import check_tracker, tracked
    from rayfed_hn.transport.credentials import Credentials
    from rayfed_hn.transport.listen import GrpcTransport
    from rayfed_hn.transport.serve import Service, check_sites
    from rayfed_hn.verbs.told import print_plan, print_privacy, print_sites, shown

    config = configuration(words)
    check_tracker(config.run.track)
    check_sites(config, sites)
    credentials = Credentials.read(files.certificate, files.key, files.ca)
    _check_address("--listen", listen)
    folder = run_dir(config, "serve")
    transport = GrpcTransport(listen, credentials, sites)
    try:
        with resumable(f"the same command with run.dir={named(folder)} run.resume=true goes on"):
            print(f"Listening on {listen} (port {transport.port}) for {', '.join(sites)}")
            service = Service(config, folder, sites, transport, _say)
            with before_anything_starts():
                plan = service.gather()
            print_plan(plan)
            print_privacy(plan)
            metric, total = plan.task.judge.ranking_name, config.rounds.num_versions
            with tracked(config, folder, "serve") as tracker, bar("versions", total) as progress:
                summary = service.run(plan, shown(progress, tracker, metric))
                tracker.results(summary)
    finally:
        transport.stop()
    print_sites(summary)
    print_troubles(summary)
    print(f"\nRun directory: {named(folder)}. Pictures: rayfed-hn report {named(folder)}")
    return summary["exit_code"]


def join(words: Sequence[str], server: str, files: Files) -> int:
    """See ``rayfed-hn join --help``."""
    from rayfed_hn.progress import bar
    from rayfed_hn.transport.agreement import check_possible
    from rayfed_hn.transport.credentials import Credentials
    from rayfed_hn.transport.join import join as take_part
    from rayfed_hn.transport.site_agent import SiteAgent

    config = configuration(words)
    check_possible(config)
    credentials = Credentials.read(files.certificate, files.key, files.ca)
    _check_address("--server", server)
    site = credentials.site
    remedy = "make the bag store with 'rayfed-hn embed' first"
    root = existing(config.data.bags, "data.bags", remedy).resolve()
    check_ledgers(config, root, apart=True)
    folder = run_dir(config, "join")
    with _unclaimed_if_unknown(folder), bar("versions", config.rounds.num_versions) as progress:
        with before_anything_starts():
            agent = SiteAgent(config, root, site, folder, _device(config), _say, progress.update)
        _print_card(agent.site, agent.card.num_bags, config)
        how = f"the same command with run.dir={named(folder)} run.resume=true goes on"
        with resumable(how):
            patience = config.resources.node_limit
            summary = take_part(agent, server, credentials, patience, folder, _say)
    print(f"The run has ended. What {site} keeps of it: {named(folder)}")
    return summary["exit_code"]


def certificates(folder: Path, sites: Sequence[str], server: Sequence[str], days: int) -> int:
    """See ``rayfed-hn certificates --help``."""
    from rayfed_hn.transport.certificates import make_certificates

    for path in make_certificates(folder, sites, server, days):
        print(f"made {path} and {path.with_suffix('.key').name}")
    print("note: who has ca.key can be any site; hospitals use an authority of their own")
    return 0


def _print_card(site: str, num_bags: tuple[int, int, int], config: Config) -> None:
    train, validation, test = num_bags
    print(f"{site}: {train} bags to train on, {validation} to validate, {test} to test")
    if config.privacy.noise_source == "seeded":
        print("note: privacy.noise_source=seeded: the server knows run.seed, and can subtract it")


def _device(config: Config) -> str:
    import torch

    wants = config.resources.gpus_per_site > 0
    return "cuda" if wants and torch.cuda.is_available() else "cpu"


def _check_address(option: str, text: str) -> None:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdigit() and int(port) < 2**16):
        raise ConfigError(f"{option}: got {text!r}; give HOST:PORT")


@contextlib.contextmanager
def _unclaimed_if_unknown(folder: Path) -> Iterator[None]:
    """A run.dir that no server has let into a run can be used again at once."""
    try:
        yield
    finally:
        if known_run(folder) is None:
            for name in ("config.yaml", VERB):
                (folder / name).unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr if line.startswith("note:") else sys.stdout, flush=True)
