"""The command line: ``rayfed-hn VERB [CONFIG.yaml] [section.key=value ...]``.

Exit codes: 0 all well; 1 failed; 2 bad usage or configuration, nothing was started; 3 finished, but
something was set aside or missing; 4 interrupted, can be resumed.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from rayfed_hn import __version__
from rayfed_hn.cli_models import export_model, heatmap, predict
from rayfed_hn.cli_runs import ONLY_PLAN, audit, help_of, ledger, note_idle, report, resume
from rayfed_hn.cli_tables import export, manifest
from rayfed_hn.cli_transport import certificates, join, serve
from rayfed_hn.errors import ConfigError, Interrupted, RayfedError
from rayfed_hn.storage.keeping import brought, storage


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Verbs that start a run take [CONFIG.yaml] [section.key=value ...]; "
    "'rayfed-hn VERB --help' lists its keys. Exit codes: 0 all well, 1 failed, 2 bad usage or "
    "configuration, 3 finished but something was set aside or missing, 4 interrupted and "
    "resumable.",
)
@click.version_option(__version__, prog_name="rayfed-hn")
def app() -> None:
    """Federated learning with a hypernetwork for whole-slide images, on Ray."""


def _verb(*keys: str, example: str) -> Callable[[Callable[..., int]], click.Command]:
    """A verb whose help lists the keys that start so."""

    def decorate(function: Callable[..., int]) -> click.Command:
        def run(words: tuple[str, ...], **flags: bool) -> int:
            note_idle(words, keys, function.__name__)
            return function(words, **flags)

        words = click.argument("words", nargs=-1, metavar="[CONFIG.yaml] [section.key=value ...]")
        run.__click_params__ = getattr(function, "__click_params__", [])  # pyright: ignore[reportFunctionMemberAccess]
        text = help_of(function, example, keys)
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
    *("data.manifest", "data.root", "data.bags", "embed.", "run.dir", "run.resume", "resources.c"),
    *("resources.gpus_per_enc", "resources.auto", "resources.start_limit", "resources.insecure"),
    example="rayfed-hn embed data.manifest=slides/manifest.csv data.bags=bags",
)
@click.option("--plan", "only_plan", is_flag=True, help=ONLY_PLAN)
@click.option("--retry", is_flag=True, help="Take slides again that were set aside before.")
def embed(words: tuple[str, ...], retry: bool, only_plan: bool) -> int:
    """Turn slides into bags: tissue, tiles, features; one stored bag a slide.

    Slides that are in the store already are skipped, so an interrupted run is simply started again;
    unusable slides are set aside with reason and remedy, and taken again when their file changes or
    with --retry. A manifest of .h5 or .pt files (CLAM, TRIDENT) is imported as features.
    """
    from rayfed_hn.verbs import slides

    return slides.embed(words, retry, only_plan)


@_verb(
    *("data.bags", "data.leave_out", "data.positive_label", "data.fold", "data.splits"),
    "data.max_",
    *("run.", "task.", "method.", "hypernetwork."),
    *("rounds.", "simulation.", "training.", "model.", "privacy.", "evaluation.", "resources."),
    example="rayfed-hn train data.bags=bags method.name=hypernetwork privacy.noise_scale=0.1\n"
    "  rayfed-hn train data.bags=bags task.kind=survival task.unit=case",
)
@click.option("--plan", "only_plan", is_flag=True, help=ONLY_PLAN)
def train(words: tuple[str, ...], only_plan: bool) -> int:
    """Train one federation: sites as actors with their own bags, the hypernetwork at the centre.

    What is predicted is up to task.kind: one of two classes, one of several, a grade, or the time
    until an event; each has its own metric.

    Writes every site's network and scores, metrics per version and a summary into run.dir.
    """
    from rayfed_hn.verbs import federation

    return federation.train(words, only_plan)


@_verb(
    *("compare.", "data.bags", "data.leave_out", "data.positive_label", "data.splits", "data.max_"),
    *("run.", "task.", "hypernetwork.", "rounds.", "simulation."),
    *("training.", "model.", "privacy.", "evaluation.", "audit.exchanges"),
    *("resources.cpus", "resources.auto", "resources.start_limit", "resources.insecure"),
    example="rayfed-hn compare data.bags=bags compare.methods=local,fedavg,hypernetwork\n"
    "  rayfed-hn compare data.bags=bags task.kind=ordinal task.classes=low,middle,high\n"
    "  rayfed-hn compare data.bags=bags compare.noise=0,0.03,0.1,0.3,1\n"
    "  rayfed-hn compare data.bags=bags privacy.mechanism=site_ldp compare.noise=1,3,8,30",
)
@click.option("--plan", "only_plan", is_flag=True, help=ONLY_PLAN)
def compare(words: tuple[str, ...], only_plan: bool) -> int:
    """Compare methods over seeds and folds by case, with equal budgets.

    With compare.noise every method is tried with several amounts of noise, and the report shows
    what each costs; differences are between methods with the same amount.

    Versions are chosen on validation cases only. Prints the table and writes summary.json,
    scores.parquet, table.md, table.csv and table.tex into run.dir.
    """
    from rayfed_hn.verbs import federation

    return federation.compare(words, only_plan)


@_verb(
    *("tune.", "data.bags", "data.leave_out", "data.positive_label", "data.folds", "data.splits"),
    *("data.max_", "run.dir", "run.seed", "run.resume", "task.", "method.", "hypernetwork."),
    *("rounds.", "simulation.", "training.", "model.", "privacy.", "evaluation."),
    *("resources.cpus", "resources.start_limit", "resources.auto", "resources.insecure"),
    *("resources.gpus_per_site", "resources.gpus_for", "resources.site", "resources.train_tog"),
    example="rayfed-hn tune conf/tune.yaml data.bags=bags\n"
    "  rayfed-hn tune data.bags=bags 'tune.space.privacy.noise_scale=loguniform(0.01,1)'\n"
    "  rayfed-hn tune data.bags=bags tune.search=grid 'tune.space.hypernetwork.rho=grid(.1,.3,.9)'",
)
@click.option("--plan", "only_plan", is_flag=True, help=ONLY_PLAN)
def tune(words: tuple[str, ...], only_plan: bool) -> int:
    """Search for good settings: trials on Ray Tune, judged on validation cases only.

    Any key that training depends on can be searched. Every trial trains all its divisions of the
    cases in step and may be stopped early (tune.scheduler=asha); trials read the same bags.

    The best setting is then trained again with seeds that no trial had, beside the configured one,
    and both are tested. Writes trials.jsonl, summary.json, table.md and best.yaml, which train
    takes, into run.dir.
    """
    from rayfed_hn.verbs.tune import tune as search

    return search(words, only_plan)


@_verb(
    *("scale.", "data.bags", "data.leave_out", "data.positive_label", "data.fold", "data.splits"),
    *("data.max_", "run.", "task.", "model."),
    *("hypernetwork.", "privacy.", "resources.", "rounds.sampling", "rounds.buffer_size"),
    *("training.opt", "training.learn", "training.weight", "training.keep", "training.class"),
    *("training.clip", "training.max", "training.instance"),
    example="rayfed-hn scale scale.sites=10,100,1000,10000\n"
    "  rayfed-hn scale data.bags=bags scale.partition=natural scale.methods=hypernetwork",
)
@click.option("--plan", "only_plan", is_flag=True, help=ONLY_PLAN)
def scale(words: tuple[str, ...], only_plan: bool) -> int:
    """Measure rounds with more and more sites, ten thousand on one machine.

    Sites are virtual: each draws its bags from one pool, synthetic or from data.bags, and trains as
    in a real run. Time, memory and bytes are measured; then the last networks of some sites are
    tested on cases of the pool that no site trains on. Networks are not kept.

    Sites keep nothing between versions: readout last, fresh optimisers, fixed rho. The length of an
    embedding is 16 unless hypernetwork.embedding_dim says otherwise. Features of data.bags are
    standardised by the scale that its real sites would agree on; synthetic ones need none.

    Writes scale.jsonl, summary.json and table.md into run.dir; report draws the pictures.
    """
    from rayfed_hn.verbs.scale import scale as measure

    return measure(words, only_plan)


@app.command(epilog="Nothing of the new site's bags is sent to the federation.")
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("words", nargs=-1, metavar="[onboard.key=value ...]")
@click.option("--site", required=True, help="The hospital that joins, as its bags are filed.")
@click.option(
    "--bags",
    type=click.Path(exists=True, path_type=Path),
    help="Its bag store, made as the run's was (default: the run's own data.bags).",
)
@click.option(
    "--manifest",
    type=click.Path(exists=True, path_type=Path),
    help="Or its slides: they are embedded first, as the run's were.",
)
@click.option(
    "--fedavg",
    type=click.Path(exists=True, path_type=Path),
    help="A run of method.name=fedavg on the same bags, to compare with and to mix in.",
)
def onboard(
    run: Path,
    words: tuple[str, ...],
    site: str,
    bags: Path | None,
    manifest: Path | None,
    fedavg: Path | None,
) -> int:
    """Give a hospital that was not there its own network, without training the federation again.

    RUN is the run.dir of a finished train. The hypernetwork is frozen; tried are its base as it is
    (no labels used), an embedding fitted to the labelled bags, fine-tuning, the FedAvg model, the
    nearest site's network and training alone, all over numbers of labelled bags, on held-out cases.
    A mixture, weighted by cross-validation on the labelled bags alone, is recommended and kept.
    """
    from rayfed_hn.verbs.onboard import Places
    from rayfed_hn.verbs.onboard import onboard as give

    note_idle(words, (*_ONBOARD, *_ONBOARD_SLIDES), "onboard")
    return give(Places(run, fedavg, bags, manifest), site, words)


_ONBOARD = ("onboard.", "run.", "data.fold", "data.splits", "data.max_")
# What embed can be told, for --manifest; what the run was told holds otherwise.
_ONBOARD_SLIDES = ("data.bags", "data.root", "embed.", "resources.cpus", "resources.gpus_per_enc")

onboard.help = help_of(
    onboard.callback,
    "rayfed-hn train   data.bags=bags data.leave_out=north run.dir=runs/three\n"
    "  rayfed-hn onboard runs/three --site north run.dir=runs/north\n"
    "  rayfed-hn report  runs/north",
    _ONBOARD,
)


_OTHERS = (
    *(audit, resume, ledger, report, manifest, export, predict, export_model, heatmap),
    *(serve, join, certificates),
)
for command in _OTHERS:
    app.add_command(command)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_MAKE_ROOM = (
    "Make room, or see to it that the place can be read and written, and give the same command "
    "again"
)


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with storage():
            code = app(brought(sys.argv[1:]), standalone_mode=False)
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
    except OSError as error:
        if error.errno not in _DISK:
            raise
        where = f"{error.filename}: " if error.filename else ""
        what = os.strerror(error.errno or 0)
        code = _say(f"{where}{what}; what is finished is kept. {_MAKE_ROOM}", 1)
    sys.exit(code or 0)


def _say(what: object, code: int) -> int:
    print(f"rayfed-hn: {what}", file=sys.stderr)
    return code


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt
