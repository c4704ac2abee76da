"""The verbs that make bags."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayfed_hn.config import Config
from rayfed_hn.errors import DataError
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.loading import require
from rayfed_hn.progress import bar
from rayfed_hn.reporting.boards import write_embedding
from rayfed_hn.storage.remote import named
from rayfed_hn.verbs.common import (
    before_anything_starts,
    configuration,
    connected,
    existing,
    lasting,
    planned_dir,
    print_placement,
    print_troubles,
    resumable,
    run_dir,
)

if TYPE_CHECKING:
    from rayfed_hn.slides.manifest import SlideRecord
    from rayfed_hn.slides.outcome import EmbedReport, SlideOutcome


def embed(words: Sequence[str], retry: bool = False, only_plan: bool = False) -> int:
    """See ``rayfed-hn embed --help``."""
    config = configuration(words, only_plan=only_plan)
    existing(config.data.manifest, "data.manifest", "give the CSV of slides, data.manifest=FILE")
    bags = require(config.data.bags, "data.bags", "give the folder to write bags to")
    lasting(Path(bags), "data.bags")
    from rayfed_hn.slides.encoders import check_encoder

    check_encoder(config.embed)
    with before_anything_starts():
        records = _read_manifest(config)
    folder = planned_dir(config, "embed")
    with resumable() as going_on, connected(config):
        from rayfed_hn.orchestration.embed import placement

        print_placement([placement(config, records)])
        if only_plan:
            return 0
        run_dir(config, "embed", folder)
        going_on.how = (
            f"the same command with run.dir={named(folder)} run.resume=true goes on (slides in the "
            f"store are skipped), and so does 'rayfed-hn resume {named(folder)}'"
        )
        summary = embed_manifest(config, folder, retry)
    return summary["exit_code"]


def embed_manifest(config: Config, folder: Path, retry: bool = False) -> dict[str, Any]:
    from rayfed_hn.orchestration.embed import embed as run

    begun, seen = time.monotonic(), 0
    with bar("embedding slides", len(_read_manifest(config))) as progress:

        def show(outcome: SlideOutcome, share: float) -> None:
            nonlocal seen
            seen += 1
            progress.update(seen, _words(outcome), share=share, line=outcome.seconds > 1)

        result = run(config, show, retry=retry, say=print)
    summary = _embed_summary(config, result)
    summary["seconds"] = round(time.monotonic() - begun, 2)
    write_summary(folder, summary)
    made = [o for o in result.outcomes if o.status == "embedded"]
    write_embedding(folder, ((o.site, o.num_tiles, o.seconds) for o in made))
    print(
        f"{summary['embedded']} embedded, {summary['skipped']} were in {config.data.bags} "
        f"already, {len(summary['set_aside'])} set aside; {result.num_tiles} tiles in all."
    )
    _print_embed_notes(config, result)
    print_troubles(summary)
    if summary["status"] == "failed":
        raise DataError(f"no slide could be embedded; {folder / 'summary.json'} says why")
    return summary


def _words(outcome: SlideOutcome) -> str:
    what = f"{outcome.site}/{outcome.slide_id}: {outcome.status.replace('_', ' ')}"
    if outcome.status == "set_aside":
        return f"{what}: {outcome.reason}"
    speed = f" in {outcome.seconds:.1f} s" if outcome.seconds else ""
    return f"{what}, {outcome.num_tiles} tiles{speed}"


def _print_embed_notes(config: Config, result: EmbedReport) -> None:
    from rayfed_hn.slides.worklist import RELABELLED

    relabelled = sum(RELABELLED in outcome.notes for outcome in result.outcomes)
    if relabelled:
        print(f"{relabelled} bags in the store: {RELABELLED}")
    for outcome in result.outcomes:
        for note in outcome.notes:
            if note != RELABELLED:
                print(f"note: {outcome.slide_id}: {note}")
    if result.strangers:
        names = ", ".join(result.strangers[:3]) + (", ..." if len(result.strangers) > 3 else "")
        print(
            f"note: {config.data.bags} holds {len(result.strangers)} bags that the manifest does "
            f"not name ({names}); training would use them: delete their .arrow files if it should "
            "not"
        )
    if result.pictures:
        print(f"Pictures: {config.data.bags}/site=*/contact-sheet.html")


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
        "notes": {o.slide_id: list(o.notes) for o in result.outcomes if o.notes},
        "not_in_manifest": result.strangers,
        "versions": package_versions(),
    }


def _read_manifest(config: Config) -> list[SlideRecord]:
    from rayfed_hn.slides.manifest import read_manifest

    root = config.data.root
    return read_manifest(Path(config.data.manifest or ""), None if root is None else Path(root))
