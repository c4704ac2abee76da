"""The verbs that make manifests, and that write bags for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rayfed_hn.bags.export import export as write_export
from rayfed_hn.errors import ConfigError, DataError
from rayfed_hn.slides import manifest_builders
from rayfed_hn.slides.manifest_builders import Draft, write_manifest
from rayfed_hn.verbs.common import before_anything_starts

SHOWN = 3  # examples of what was left out for one reason


def manifest_tcga(folder: Path, labels: Path, to: Path, diagnostic_only: bool) -> int:
    """See ``rayfed-hn manifest tcga --help``."""
    return _write(
        to, lambda: manifest_builders.tcga(folder, labels, diagnostic_only=diagnostic_only)
    )


def manifest_camelyon17(folder: Path, labels: Path, to: Path) -> int:
    """See ``rayfed-hn manifest camelyon17 --help``."""
    return _write(to, lambda: manifest_builders.camelyon17(folder, labels))


def manifest_clam(
    table: Path, folder: Path, to: Path, site_column: str | None, label_column: str | None
) -> int:
    """See ``rayfed-hn manifest clam --help``."""
    return _write(to, lambda: manifest_builders.clam(table, folder, site_column, label_column))


def _write(to: Path, build: Callable[[], Draft]) -> int:
    if to.exists():
        raise ConfigError(f"--to: {to} exists; delete it, or give another name")
    with before_anything_starts():
        draft = build()
        write_manifest(to, draft)
    records = draft.records
    sites, cases = {r.site for r in records}, {r.case_id for r in records}
    print(f"{to}: {len(records)} slides of {len(cases)} cases at {len(sites)} sites")
    for reason, count in draft.reasons.items():
        names = [item.name for item in draft.left_out if item.reason == reason][:SHOWN]
        more = ", ..." if count > len(names) else ""
        print(f"left out: {count} ({', '.join(names)}{more}): {reason}")
    home = to.resolve().parent
    if not all(record.path.resolve().is_relative_to(home) for record in records):
        print("note: some slides lie outside the manifest's folder; embed needs data.root then")
    return 3 if draft.left_out else 0


def export(bags: Path, folder: Path, layout: str) -> int:
    """See ``rayfed-hn export --help``."""
    with before_anything_starts():
        written = write_export(bags, folder, "clam" if layout == "clam" else "trident")
    print(f"{folder}: {written.num_bags} bags; {written.manifest} lists them")
    for problem in written.unusable:
        print(f"left out: {problem}")
    if not written.num_bags:
        raise DataError(f"{bags} has no usable bag")
    return 3 if written.unusable else 0
