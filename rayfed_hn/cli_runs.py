"""The verbs that take up a run by its directory."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from rayfed_hn.loading import help_text, is_knob

ONLY_PLAN = "Say what would run on which node, or why it has no room, and start nothing."


def help_of(function: object, example: str, keys: tuple[str, ...]) -> str:
    """What a verb does, how it is called, and the keys that it takes."""
    about = inspect.cleandoc(inspect.getdoc(function) or "")
    return f"{about}\n\n\b\nExample:\n  {example}\n\n\b\n{help_text(keys)}"


def note_idle(words: tuple[str, ...], keys: tuple[str, ...], verb: str) -> None:
    """Say which of the words mean nothing to a verb."""
    for word in words:
        key, equals, _ = word.partition("=")
        if equals and is_knob(key) and not key.startswith(keys):
            print(f"rayfed-hn: note: {key} has no effect on {verb}", file=sys.stderr)


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("words", nargs=-1, metavar="[audit.key=value ...]")
def audit(run: Path, words: tuple[str, ...]) -> int:
    """Attack a finished run as a curious server would, and compare with what it promises.

    RUN is the run.dir of a finished train, at a place where the bags are. Attacked are the messages
    that it kept (run.keep_messages=true); without them it is made again in this process.

    Was a slide trained on? Can features of tiles be read off an update? Which site is an unseen
    slide from? AUC .5 is what guessing gives. Canaries, made-up bags and updates put in by fair
    coins, give a lower bound on epsilon. Writes audit.json and audit.md into RUN; ends with 1 if
    the bound is above the promise. That no attack succeeds proves nothing (docs/audit.md).
    """
    from rayfed_hn.verbs.audit import audit as attack

    return attack(run, words)


audit.help = help_of(
    audit.callback,
    "rayfed-hn train data.bags=bags run.dir=runs/one run.keep_messages=true\n"
    "  rayfed-hn audit runs/one audit.shadows=32",
    ("audit.", "data.bags"),
)


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("words", nargs=-1, metavar="[resources.key=value ...] [data.bags=PATH]")
def resume(run: str, words: tuple[str, ...]) -> int:
    """Go on with an interrupted run: train, compare, tune, scale or embed, as its directory says.

    RUN is its run.dir; its config.yaml is used as it stands. train goes on from its last commit,
    in which every version ends: the server's state, who was away, and what was in flight, which is
    asked again. In simulated time, and in synchronous rounds, the result is that of an undisturbed
    run to the bit. A damaged commit is noticed by its SHA-256; the one before is taken, and that is
    said here, in events.jsonl and in summary.json. compare, tune and scale do what is missing.

    A finished run is left as it is (exit code 0). Two processes cannot work in one run directory.
    """
    from rayfed_hn.verbs.resume import resume as go_on

    return go_on(run, words)


resume.help = help_of(
    resume.callback,
    "rayfed-hn train data.bags=bags run.dir=runs/one   (interrupted)\n  rayfed-hn resume runs/one",
    ("resources.", "data.bags"),
)


@click.command()
@click.argument("bags", type=click.Path(exists=True, path_type=Path), metavar="BAGS")
@click.option("--site", "sites", multiple=True, help="Only this site; may be given again.")
@click.option(
    "--delta",
    default=1e-5,
    show_default=True,
    type=click.FloatRange(0, 0.1, min_open=True),
    help="Of every epsilon.",
)
@click.option(
    "--budget", type=click.FloatRange(0, min_open=True),
    help="Say how many versions a run under a privacy.budget of so much may have.",
)  # fmt: skip
def ledger(bags: Path, sites: tuple[str, ...], delta: float, budget: float | None) -> int:
    """Show what the bags of every site in BAGS have given away, run by run.

    A release of train under noise of the site's own machine, or in real time without noise, stands
    in the ledger of its site with what it cost (BAGS/site=<site>/privacy/ledger.jsonl). The name of
    a run is in the file run_id of its directory. Epsilon is at the delta given here, whatever that
    of the runs was. Ends with 1 if a ledger is damaged or has lost its end.
    """
    from rayfed_hn.verbs.ledger import ledger as show

    return show(bags, sites, delta, budget)


ledger.help = (
    f"{inspect.cleandoc(ledger.callback.__doc__ or '')}\n\n\b\n"
    "Example:\n  rayfed-hn ledger bags --budget 10"
)


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
def report(run: Path) -> int:
    """Make a self-contained report.html from the files of the run directory RUN."""
    from rayfed_hn.verbs import federation

    return federation.report(run)
