"""What each verb of the command line does: words in; files, a few lines and an exit code out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError, DataError, Interrupted
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.loading import load, require
from rayfed_hn.progress import bar
from rayfed_hn.run_directory import claim

if TYPE_CHECKING:
    from rayfed_hn.slides.manifest import SlideRecord
    from rayfed_hn.slides.outcome import EmbedReport, SlideOutcome

# What the demo changes about the defaults, so that it says something within minutes.
DEMO_WORDS = ("embed.tile_px=128", "compare.seeds=2")


def demo(words: Sequence[str]) -> int:
    """See ``rayfed-hn demo --help``."""
    begun = time.monotonic()
    config = _config([*DEMO_WORDS, *words])
    home = Path(config.run.dir or "demo")
    claim(home, config, resume=True)
    with _resumable(f"the same command goes on with what is in {home}"):
        manifest = _make_slides(config, home / "slides")
        places = {"manifest": str(manifest), "bags": str(home / "bags")}
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **places))
        claim(home / "compare", config, resume=True)
        with _connect(config):
            embedded = _embed(config, home / "embed")
            compared = _compare(config, home / "compare")
    page = _report(home / "compare")
    code = max(embedded["exit_code"], compared["exit_code"])
    summary = {
        "verb": "demo",
        "status": "complete" if code == 0 else "degraded",
        "exit_code": code,
        "table": compared["table"],
        "report": str(page.relative_to(home)),
        "seconds": round(time.monotonic() - begun, 1),
        "versions": package_versions(),
    }
    write_summary(home, summary)
    print(f"\nThe whole demo took {summary['seconds']:.0f} s. Open the report: {page}")
    return code


def embed(words: Sequence[str]) -> int:
    """See ``rayfed-hn embed --help``."""
    config = _config(words)
    _existing(config.data.manifest, "data.manifest", "give the CSV of slides, data.manifest=FILE")
    require(config.data.bags, "data.bags", "give the folder to write bags to, data.bags=FOLDER")
    if config.embed.weights is not None:
        _existing(config.embed.weights, "embed.weights", "give torchvision's ResNet-50 weight file")
    with _before_anything_starts():
        _read_manifest(config)
    folder = _run_dir(config, "embed")
    with _resumable("the same command goes on: slides in the store are skipped"), _connect(config):
        summary = _embed(config, folder)
    return summary["exit_code"]


def train(words: Sequence[str]) -> int:
    """See ``rayfed-hn train --help``."""
    from rayfed_hn.federation.experiment import make_plan
    from rayfed_hn.orchestration.actors import Progress
    from rayfed_hn.orchestration.train import train as run

    config = _config(words)
    root = _bags(config)
    with _before_anything_starts():
        plan = make_plan(config, root)
    _print_classes(plan.classes)
    folder = _run_dir(config, "train")
    total = config.rounds.num_versions
    with _resumable(_go_on(folder)), _connect(config), bar("versions", total) as progress:

        def show(news: Progress) -> None:
            auc = news.validation_auc
            progress.update(news.version, "" if auc is None else f"validation AUC {auc:.3f}")

        summary = run(config, root, folder, show)
    _print_sites(summary)
    _print_troubles(summary)
    print(f"\nRun directory: {folder}. Pictures: rayfed-hn report {folder}")
    return summary["exit_code"]


def compare(words: Sequence[str]) -> int:
    """See ``rayfed-hn compare --help``."""
    from rayfed_hn.federation.experiment import make_plan

    config = _config(words)
    with _before_anything_starts():
        plan = make_plan(config, _bags(config))
    _print_classes(plan.classes)
    folder = _run_dir(config, "compare")
    with _resumable(_go_on(folder)), _connect(config):
        summary = _compare(config, folder)
    print(f"\nRun directory: {folder}. Pictures: rayfed-hn report {folder}")
    return summary["exit_code"]


def report(run: Path) -> int:
    """See ``rayfed-hn report --help``."""
    if not run.is_dir():
        raise ConfigError(f"RUN: {run} is not a folder; give the run.dir of a train or compare")
    print(f"Report: {_report(run)}")
    return 0


@contextmanager
def _before_anything_starts() -> Iterator[None]:
    """A manifest or bag store that does not fit is a matter of usage as long as nothing runs."""
    try:
        yield
    except DataError as error:
        raise ConfigError(str(error)) from error


def _print_classes(classes: tuple[str, str]) -> None:
    print(f"Class 1 is '{classes[1]}', class 0 is '{classes[0]}' (data.positive_label chooses)")


@contextmanager
def _resumable(how: str) -> Iterator[None]:
    """Say how to go on when the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {how}") from None


def _go_on(folder: Path) -> str:
    return f"the same command with run.dir={folder} run.resume=true goes on"


def _connect(config: Config) -> AbstractContextManager[None]:
    from rayfed_hn.orchestration.resources import connect

    return connect(config)


def _report(run: Path) -> Path:
    from rayfed_hn.reporting.report import write_report

    return write_report(run)


def _make_slides(config: Config, folder: Path) -> Path:
    from rayfed_hn.slides.synthetic import make_federation

    manifest = folder / "manifest.csv"
    if manifest.exists():  # written last, from the same settings (the run directory was claimed)
        return manifest
    with bar("making slides", 4 * config.demo.slides_per_site) as progress:
        return make_federation(
            folder,
            config.demo.slides_per_site,
            config.run.seed,
            lambda done, total: progress.update(done),
        )


def _read_manifest(config: Config) -> list[SlideRecord]:
    from rayfed_hn.slides.manifest import read_manifest

    root = config.data.root
    return read_manifest(Path(config.data.manifest or ""), None if root is None else Path(root))


def _embed(config: Config, folder: Path) -> dict[str, Any]:
    from rayfed_hn.orchestration.embed import embed as run

    begun, seen = time.monotonic(), 0
    with bar("embedding slides", len(_read_manifest(config))) as progress:

        def show(outcome: SlideOutcome) -> None:
            nonlocal seen
            seen += 1
            note = f"{outcome.slide_id}: {outcome.status}, {outcome.num_tiles} tiles"
            progress.update(seen, note)

        result = run(config, show)
    summary = _embed_summary(config, result)
    summary["seconds"] = round(time.monotonic() - begun, 2)
    write_summary(folder, summary)
    print(
        f"{summary['embedded']} slides embedded, {summary['skipped']} were in {config.data.bags} "
        f"already, {len(summary['set_aside'])} set aside; {result.num_tiles} tiles in all."
    )
    _print_troubles(summary)
    if summary["status"] == "failed":
        raise DataError(f"no slide could be embedded; {folder / 'summary.json'} says why")
    return summary


def _embed_summary(config: Config, result: EmbedReport) -> dict[str, Any]:
    embedded, skipped = result.count("embedded"), result.count("skipped")
    set_aside = [
        {"slide_id": o.slide_id, "site": o.site, "reason": o.reason, "remedy": o.remedy}
        for o in result.set_aside
    ]
    code = (3 if embedded + skipped else 1) if set_aside else 0
    return {
        "verb": "embed",
        "status": {0: "complete", 1: "failed", 3: "degraded"}[code],
        "exit_code": code,
        "embedded": embedded,
        "skipped": skipped,
        "num_tiles": result.num_tiles,
        "bags": config.data.bags,
        "set_aside": set_aside,
        "versions": package_versions(),
    }


def _compare(config: Config, folder: Path) -> dict[str, Any]:
    from rayfed_hn.orchestration.compare import compare as run

    total = len(config.compare.methods) * config.compare.seeds * config.compare.folds
    with bar("comparing", total) as progress:
        summary = run(config, _bags(config), folder, lambda done, _: progress.update(done))
    print("\n" + (folder / "table.md").read_text(encoding="utf-8"))
    _print_troubles(summary)
    return summary


def _config(words: Sequence[str]) -> Config:
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(f"'{files[1]}' is not of the form section.key=value")
    return load(files[0] if files else None, [word for word in words if "=" in word])


def _existing(value: str | None, key: str, remedy: str) -> Path:
    path = Path(require(value, key, remedy))
    if not path.exists():
        raise ConfigError(f"{key}: {path} does not exist; {remedy}")
    return path


def _bags(config: Config) -> Path:
    return _existing(
        config.data.bags, "data.bags", "make the bag store with 'rayfed-hn embed' first"
    ).resolve()  # actors of a joined cluster work in other folders


def _run_dir(config: Config, verb: str) -> Path:
    folder = Path(config.run.dir or f"runs/{verb}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    claim(folder, config, resume=config.run.resume)
    print(f"Run directory: {folder}")
    return folder


def _print_sites(summary: dict[str, Any]) -> None:
    print(f"\n{'site':24} {'train':>6} {'val':>5} {'test':>5} {'AUC last':>9} {'AUC best':>9}")
    for site in summary["sites"]:
        last, best = (
            "undefined" if site[k] is None else f"{site[k]:.3f}" for k in ("auc_last", "auc_best")
        )
        print(
            f"{site['site']:24} {site['num_train']:6} {site['num_validation']:5} "
            f"{site['num_test']:5} {last:>9} {best:>9}"
        )


def _print_troubles(summary: dict[str, Any]) -> None:
    for trouble in summary.get("set_aside", []):
        name = trouble.get("slide_id") or trouble["site"]
        print(f"set aside: {name}: {trouble['reason']} ({trouble['remedy']})")
    for loss in summary.get("lost_sites", []):
        print(f"lost: site {loss['site']} at version {loss['version']}: {loss['reason']}")
    for cell in summary.get("failed_cells", []):
        print(
            f"missing: {cell['method']} seed {cell['seed']} fold {cell['fold']}: {cell['reason']}"
        )
