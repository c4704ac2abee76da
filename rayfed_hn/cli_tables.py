"""The commands that make manifests, and that write bags for other programs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import click


@click.group()
def manifest() -> None:
    """Make the table of slides from the names of files, or from a table of CLAM's or HistoFL's.

    Whatever cannot be placed is counted with its reason. Exit code 3 if anything was left out.
    """


def _builder(
    *arguments: tuple[str, str], example: str
) -> Callable[[Callable[..., int]], click.Command]:
    """A subcommand of ``manifest`` with its arguments and where to write."""

    def decorate(function: Callable[..., int]) -> click.Command:
        text = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n  {example}"
        command = click.option(
            "--to",
            type=click.Path(path_type=Path),
            default=Path("manifest.csv"),
            show_default=True,
            help="The manifest to write. Best beside the slides: paths in it are relative then.",
        )(function)
        for name, metavar in reversed(arguments):
            kind = click.Path(exists=True, path_type=Path)
            command = click.argument(name, type=kind, metavar=metavar)(command)
        return manifest.command(function.__name__.removeprefix("manifest_"), help=text)(command)

    return decorate


@_builder(
    ("folder", "FOLDER"),
    ("labels", "LABELS.csv"),
    example="rayfed-hn manifest tcga slides/ labels.csv --to slides/manifest.csv",
)
@click.option("--diagnostic-only", is_flag=True, help="Leave frozen sections (TS, MS, BS) out.")
def manifest_tcga(folder: Path, labels: Path, to: Path, diagnostic_only: bool) -> int:
    """Find the slides of TCGA in FOLDER, at any depth; the site is the tissue source site.

    LABELS.csv has the columns label and slide_id (as much of the barcode as is known) or case_id.
    """
    from rayfed_hn.verbs import tables

    return tables.manifest_tcga(folder, labels, to, diagnostic_only)


@_builder(
    ("folder", "FOLDER"),
    ("labels", "STAGES.csv"),
    example="rayfed-hn manifest camelyon17 slides/ stage_labels.csv --to slides/manifest.csv",
)
def manifest_camelyon17(folder: Path, labels: Path, to: Path) -> int:
    """Find the training slides of Camelyon17 in FOLDER; the site is the centre.

    STAGES.csv is the table that the challenge publishes; itc, micro and macro become tumor.
    """
    from rayfed_hn.verbs import tables

    return tables.manifest_camelyon17(folder, labels, to)


@_builder(
    ("table", "TABLE.csv"),
    ("folder", "FOLDER"),
    example="rayfed-hn manifest clam dataset.csv features/ --site-column institute",
)
@click.option("--site-column", help="Column of the site (default: site or institute).")
@click.option("--label-column", help="Column of the label (default: label or diagnosis_label).")
def manifest_clam(
    table: Path, folder: Path, to: Path, site_column: str | None, label_column: str | None
) -> int:
    """Take slides from a table of CLAM's or HistoFL's and their files from FOLDER, at any depth.

    TABLE.csv has the columns case_id, slide_id, a label and a site. If any slide has a file of
    features (.h5 or .pt), features are taken for all; else slides.
    """
    from rayfed_hn.verbs import tables

    return tables.manifest_clam(table, folder, to, site_column, label_column)


@click.command()
@click.argument("bags", type=click.Path(path_type=Path), metavar="BAGS")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option(
    "--layout",
    type=click.Choice(["trident", "clam"]),
    default="trident",
    show_default=True,
    help="Whose programs shall read them.",
)
def export(bags: Path, folder: Path, layout: str) -> int:
    """Write the bag store BAGS into FOLDER as files of features that CLAM or TRIDENT read.

    With them go a table of slides in their form and a manifest.csv that rayfed-hn embed reads.
    """
    from rayfed_hn.verbs import tables

    return tables.export(bags, folder, layout)
