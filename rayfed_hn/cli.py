"""The command line: ``rayfed-hn VERB [CONFIG.yaml] [section.key=value ...]``.

Exit codes: 0 all well; 1 failed; 2 bad usage or configuration, nothing was started; 3 finished, but
something was set aside or missing; 4 interrupted, can be resumed.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from rayfed_hn import __version__
from rayfed_hn.errors import ConfigError, Interrupted, RayfedError
from rayfed_hn.loading import help_text, is_knob


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every verb takes [CONFIG.yaml] [section.key=value ...]; 'rayfed-hn VERB --help' lists "
    "its keys. Exit codes: 0 all well, 1 failed, 2 bad usage or configuration, 3 finished but "
    "something was set aside or missing, 4 interrupted and resumable.",
)
@click.version_option(__version__, prog_name="rayfed-hn")
def app() -> None:
    """Federated learning with a hypernetwork for whole-slide images, on Ray."""


def _verb(*keys: str, example: str) -> Callable[[Callable[..., int]], click.Command]:
    """A verb whose help lists the keys that start so."""

    def decorate(function: Callable[..., int]) -> click.Command:
        def run(words: tuple[str, ...], **flags: bool) -> int:
            for word in words:
                key, equals, _ = word.partition("=")
                if equals and is_knob(key) and not key.startswith(keys):
                    _say(f"note: {key} has no effect on {function.__name__}", 0)
            return function(words, **flags)

        text = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n  {example}"
        text += f"\n\n\b\n{help_text(keys)}"
        words = click.argument("words", nargs=-1, metavar="[CONFIG.yaml] [section.key=value ...]")
        run.__click_params__ = getattr(function, "__click_params__", [])  # pyright: ignore[reportFunctionMemberAccess]
        return app.command(function.__name__, help=text)(words(run))

    return decorate


@_verb(
    "demo.",
    "run.dir",
    "run.seed",
    "resources.cpus",
    "compare.",
    "training.",
    "rounds.",
    example="rayfed-hn demo",
)
def demo(words: tuple[str, ...]) -> int:
    """Run everything on synthetic slides of four hospitals that differ in stain and scanner.

    Makes the slides, embeds them, compares isolated sites, FedAvg and the hypernetwork, and writes
    a report. Needs no data; a few minutes on two cores.
    """
    from rayfed_hn.verbs import federation

    return federation.demo(words)


@_verb(
    *("data.manifest", "data.root", "data.bags", "embed.", "run.dir", "run.resume"),
    *("resources.cpus", "resources.gpus_per_encoder"),
    example="rayfed-hn embed data.manifest=slides/manifest.csv data.bags=bags",
)
@click.option("--retry", is_flag=True, help="Take slides again that were set aside before.")
def embed(words: tuple[str, ...], retry: bool) -> int:
    """Turn slides into bags: tissue, tiles, features; one stored bag a slide.

    Slides that are in the store already are skipped, so an interrupted run is simply started again;
    unusable slides are set aside with reason and remedy, and taken again when their file changes or
    with --retry. A manifest of .h5 or .pt files (CLAM, TRIDENT) is imported as features.
    """
    from rayfed_hn.verbs import slides

    return slides.embed(words, retry)


@_verb(
    *("data.bags", "data.positive_label", "data.fold", "data.splits", "data.max_"),
    *("run.", "task.", "method.", "hypernetwork."),
    *("rounds.", "simulation.", "training.", "model.", "privacy.", "evaluation.", "resources."),
    example="rayfed-hn train data.bags=bags method.name=hypernetwork privacy.noise_scale=0.1\n"
    "  rayfed-hn train data.bags=bags task.kind=survival task.unit=case",
)
def train(words: tuple[str, ...]) -> int:
    """Train one federation: sites as actors with their own bags, the hypernetwork at the centre.

    What is predicted is up to task.kind: one of two classes, one of several, a grade, or the time
    until an event; each has its own metric.

    Writes every site's network and scores, metrics per version and a summary into run.dir.
    """
    from rayfed_hn.verbs import federation

    return federation.train(words)


@_verb(
    *(
        "compare.",
        "data.bags",
        "data.positive_label",
        "data.splits",
        "data.max_",
        "run.",
        "task.",
        "hypernetwork.",
        "rounds.",
        "simulation.",
    ),
    *("training.", "model.", "privacy.", "evaluation.", "resources.cpus"),
    example="rayfed-hn compare data.bags=bags compare.methods=local,fedavg,hypernetwork\n"
    "  rayfed-hn compare data.bags=bags task.kind=ordinal task.classes=low,middle,high",
)
def compare(words: tuple[str, ...]) -> int:
    """Compare methods over seeds and folds by case, with equal budgets.

    Versions are chosen on validation cases only. Prints the table and writes summary.json, table.md
    and scores.parquet into run.dir.
    """
    from rayfed_hn.verbs import federation

    return federation.compare(words)


@app.group()
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


@app.command()
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


@app.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
def report(run: Path) -> int:
    """Make a self-contained report.html from the files of the run directory RUN."""
    from rayfed_hn.verbs import federation

    return federation.report(run)


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 2
    except ConfigError as error:
        code = _say(error, 2)
    except Interrupted as error:
        code = _say(error, 4)
    except RayfedError as error:
        code = _say(error, 1)
    except (KeyboardInterrupt, click.Abort):
        code = _say("interrupted before anything was done; give the same command again", 4)
    except BrokenPipeError:  # the reader of our output went away, as with '| head'
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        code = 1
    sys.exit(code or 0)


def _say(what: object, code: int) -> int:
    print(f"rayfed-hn: {what}", file=sys.stderr)
    return code


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
