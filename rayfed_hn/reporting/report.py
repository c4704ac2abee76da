"""``report``: one self-contained page of a run, from its files alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rayfed_hn.errors import DataError
from rayfed_hn.files import write_text
from rayfed_hn.reporting import (
    compare_report,
    onboard_report,
    page,
    scale_page,
    trade_off,
    train_report,
    tune_report,
)
from rayfed_hn.reporting.choices import MAX_METHODS
from rayfed_hn.reporting.repeating import how_to_repeat
from rayfed_hn.reporting.run_files import Run, read_run
from rayfed_hn.reporting.task_words import limits, predicted
from rayfed_hn.reporting.troubles import NO_REASON, troubles
from rayfed_hn.reporting.words import counted, duration


def _compare(run: Run) -> page.Parts:
    return trade_off.parts(run) if trade_off.is_one(run) else compare_report.parts(run)


_PARTS: dict[str, Callable[[Run], page.Parts]] = {
    "train": train_report.parts,
    "compare": _compare,
    "onboard": onboard_report.parts,
    "scale": scale_page.parts,
    "tune": tune_report.parts,
}
_MAX_TROUBLES = 4  # on the first screen; a section has all


_ASIDE = "Set aside and lost"
_NOTHING = "Nothing failed, no site was lost, and no slide was set aside."


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run directory and return its path.

    Args:
        run_dir: Of a finished ``train``, ``compare``, ``onboard``, ``scale`` or ``tune``, or one
            that failed (also ``embed``).

    Raises:
        DataError: A file is missing or broken, or the run is of another verb; says what to do.
    """
    run = read_run(run_dir)
    try:
        text = render(run)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{run_dir / 'summary.json'} is not what this version of rayfed_hn writes "
            f"({type(error).__name__}: {error}); run {run.verb} again in a new run.dir"
        ) from error
    path = run_dir / "report.html"
    write_text(path, text)
    return path


def _in_order(run: Run) -> str:
    """What a run in real time needs beside its settings to be repeated; "" if nothing."""
    waits = run.knob("rounds", "buffer_size") is None and run.knob("rounds", "deadline") is None
    if run.verb != "train" or run.summary.get("clock") != "real" or waits:
        return ""
    return (
        "The order of answers was that of real machines. With rounds.replay=events.jsonl, which "
        "lies beside this page, the same bag store and the versions below, this makes the same "
        "numbers:"
    )


def render(run: Run) -> str:
    """Return the page of a run: the answer first, then what it rests on."""
    if run.failed:
        return _failure(run)
    parts = _PARTS[run.verb](run)
    found = list(parts.troubles)
    if run.summary["status"] != "complete" and not found:
        found = [f"summary.json says '{run.summary['status']}' and gives no reason"]
    setting = parts.setting or _tested(run)
    body = [
        page.first_screen(
            page.paragraph(parts.verdict, "verdict"),
            page.trouble("Not everything went through", _shortened(found)),
            parts.table,
            page.figures(parts.figures),
        ),
        *parts.more,
        _set_aside(run, found),
        how_to_repeat(run, "How to repeat it", setting.repeat),
        page.section("Limits", page.paragraph(setting.limits)),
    ]
    return _page(run, setting.about, body)


_REPEATS = (
    "With the same bag store and the versions below, this makes the same numbers on the same kind "
    "of machine. config.yaml lies beside this page and holds every setting:"
)


def _tested(run: Run) -> page.Setting:
    """Return what surrounds the results of a run whose networks are tested."""
    repeat = _noisy(run) or _in_order(run) or _REPEATS
    return page.Setting(_what_was_run(run), repeat, limits(run.judge))


def _noisy(run: Run) -> str:
    """Return what to know before a run whose noise nobody can draw again is made another time."""
    if (run.summary.get("privacy") or {}).get("noise_source") != "os":
        return ""
    return (
        "The noise of this run came from the sites' own machines and cannot be drawn again. This "
        "makes another run like it, with other numbers, and every site is charged for both. "
        "config.yaml lies beside this page and holds every setting:"
    )


def _failure(run: Run) -> str:
    """Return the page of a run that failed: why, and how to run it again."""
    found = troubles(run.summary)
    reason = run.summary.get("reason") or run.summary.get("error")
    because = f": {str(reason).rstrip('.')}" if reason else "" if found else f": {NO_REASON}"
    text = "Mend the cause first. config.yaml lies beside this page and holds every setting:"
    body = [
        page.first_screen(
            page.paragraph(
                f"This run of {run.verb} failed{because}. It has no results.", "verdict"
            ),
            page.trouble("What went wrong", found),
        ),
        how_to_repeat(run, "How to run it again", text),
    ]
    seconds = run.summary.get("seconds")
    after = "" if seconds is None else f" after {duration(float(seconds))}"
    return _page(run, f"failed{after}", body)


def _page(run: Run, subtitle: str, body: Sequence[str]) -> str:
    title = f"{run.verb}: {run.folder.resolve().name}"
    header = f"<header><h1>{page.escape(title)}</h1>{page.paragraph(subtitle)}</header>"
    return page.page(f"rayfed_hn {title}", [header, *body])


def _shortened(lines: Sequence[str]) -> list[str]:
    hidden = len(lines) - _MAX_TROUBLES
    more = [f"and {hidden} more, under '{_ASIDE}'"] if hidden > 0 else []
    return [*lines[:_MAX_TROUBLES], *more]


def _set_aside(run: Run, found: Sequence[str]) -> str:
    """Return the section of all that failed, was lost or set aside, also where nothing was."""
    if found:
        return page.section(_ASIDE, page.bullets(found))
    # Experiments with virtual sites have nothing that could be set aside.
    return page.section(_ASIDE, page.paragraph(_NOTHING)) if "set_aside" in run.summary else ""


def _what_was_run(run: Run) -> str:
    seed = run.knob("run", "seed")
    parts = [predicted(run)]
    if run.verb == "compare":
        folds, seeds = run.summary.get("folds"), run.summary.get("seeds")
        methods = list(map(str, run.summary["methods"]))
        named = ", ".join(methods) if len(methods) <= MAX_METHODS else f"{len(methods)} methods"
        parts += [named, f"{counted(seeds, 'seed')} × {counted(folds, 'fold')}"]
        if amounts := run.summary.get("noise"):
            parts.append(f"{len(amounts)} amounts of noise ({run.knob('privacy', 'mechanism')})")
    else:
        parts += [f"{run.summary['site']} joins"] if run.verb == "onboard" else []
        fold, folds = run.knob("data", "fold"), run.knob("data", "folds")
        parts += [str(run.summary["method"]), f"fold {fold} of {folds} is test"]
    since = " since it was last resumed" if run.knob("run", "resume") else ""
    parts += [f"run.seed {seed}", f"{duration(float(run.summary['seconds']))}{since}"]
    return " · ".join(parts)
