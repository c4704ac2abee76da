"""The report of an experiment with more and more sites: what a version costs, and why."""

from __future__ import annotations

from rayfed_hn.reporting import page
from rayfed_hn.reporting.run_files import Run
from rayfed_hn.reporting.scale_figures import first_screen, more, phases_figure
from rayfed_hn.reporting.scale_rows import Columns, Record, by_method, memories, phases, rounds
from rayfed_hn.reporting.scale_scores import scores, tested
from rayfed_hn.reporting.scale_words import notes, troubles, verdict
from rayfed_hn.reporting.words import duration

_REPEAT = (
    "How long this takes depends on the machine and on what else it does. config.yaml lies beside "
    "this page and holds every setting:"
)
_LIMITS = (
    "Sites are virtual: their bags are drawn from one pool, and networks are not kept. Times and "
    "memory are those of this machine; between hospitals lie slower lines. Research use only."
)


def parts(run: Run) -> page.Parts:
    """Return what a report shows of a ladder of federations."""
    about_time, about_bytes, about_memory, *about_scores = notes(run.summary)
    below = [
        *(_scores(run.summary, about_scores[0]) if tested(run.summary) else []),
        page.section(
            "Where the time goes",
            page.figures([phases_figure(run.summary)]),
            _table(phases(run.summary)),
            page.paragraph(about_time, "quiet"),
            page.paragraph(about_bytes, "quiet"),
        ),
        page.section(
            "Memory", _table(memories(run.summary)), page.paragraph(about_memory, "quiet")
        ),
        page.section("Updates and bytes", page.figures(more(run.summary))),
    ]
    return page.Parts(
        verdict(run.summary),
        troubles(run.summary),
        _table(rounds(run.summary)),
        tuple(first_screen(run.summary)),
        tuple(below),
        page.Setting(_what_was_run(run), _REPEAT, _LIMITS),
    )


def _scores(summary: Record, about: str) -> list[str]:
    table = _table(scores(summary))
    return [page.section("How good the networks are", table, page.paragraph(about, "quiet"))]


def _table(columns: Columns) -> str:
    return page.table(f"{columns.title}.", columns.header, columns.rows)


def _what_was_run(run: Run) -> str:
    summary, rows = run.summary, run.summary["rows"]
    sites = sorted({row["sites"] for row in rows})
    ladder = f"{sites[0]:,} to {sites[-1]:,} sites" if len(sites) > 1 else f"{sites[0]:,} sites"
    sizes = sorted({row["num_parameters"] for row in rows})
    return " · ".join(
        [
            ", ".join(by_method(summary)),
            ladder,
            _steps(summary),
            f"networks of {' or '.join(f'{size:,}' for size in sizes)} parameters",
            f"bags drawn by '{summary['partition']}'",
            "on actors" if summary["where"] == "actors" else "in one process",
            f"run.seed {run.knob('run', 'seed')}",
            duration(float(summary["seconds"])),
        ]
    )


def _steps(summary: Record) -> str:
    steps = summary["steps"]
    return f"{steps} gradient steps a version" if steps else "sites answer without training"
