"""The verb that goes on with a run, whichever verb made it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rayfed_hn.errors import ConfigError
from rayfed_hn.run_directory import verb_of
from rayfed_hn.storage.keeping import bring_run
from rayfed_hn.storage.remote import named
from rayfed_hn.verbs.common import in_a_job

ALLOWED = ("resources.", "data.bags=")  # where a run computes, and where its bags have gone
ANEW = ("demo", "onboard")  # the same command goes on, or starts again
APART = ("serve", "join")  # which need their certificates again


def resume(place: str, words: Sequence[str]) -> int:
    """See ``rayfed-hn resume --help``."""
    for word in words:
        if not word.startswith(ALLOWED):
            raise ConfigError(
                f"'{word}': resume goes on with the run as it is; only resources.key=value, and "
                "data.bags where the bags have moved, can be given"
            )
    run = Path(bring_run(place, goes_on=True))
    folder = run.resolve()
    if not (folder / "config.yaml").is_file():
        remedy = in_a_job(folder) or "give the run.dir that the interrupted command printed"
        raise ConfigError(f"RUN: {named(run)} holds no run (no config.yaml); {remedy}")
    summary = _summary(folder)
    verb = verb_of(folder) or summary.get("verb")
    go_on = _verbs().get(str(verb))
    if go_on is None:
        raise ConfigError(_why_not(run, verb))
    ended = summary.get("verb") == verb and summary.get("status") != "failed"
    if ended and not summary.get("failed_cells") and not summary.get("failed_trials"):
        print(
            f"{named(run)} is finished ({verb}, {summary.get('status')}); nothing is left to do. "
            f"Pictures: rayfed-hn report {named(run)}"
        )
        return 0
    print(f"Going on with {verb} in {named(run)}")
    return go_on([str(folder / "config.yaml"), f"run.dir={folder}", "run.resume=true", *words])


def _verbs() -> dict[str, Callable[[Sequence[str]], int]]:
    from rayfed_hn.verbs import federation, scale, slides, tune

    return {
        "train": federation.train,
        "compare": federation.compare,
        "scale": scale.scale,
        "tune": tune.tune,
        "embed": lambda words: slides.embed(words, False),
    }


def _why_not(run: Path, verb: str | None) -> str:
    if verb in ANEW:
        return f"RUN: {run} was made by '{verb}', which goes on when its own command is given again"
    if verb in APART:
        return (
            f"RUN: {named(run)} was made by '{verb}'; give its own command again, with its "
            f"certificates and run.dir={named(run)} run.resume=true"
        )
    return (
        f"RUN: {named(run)} does not say by which verb it was made; give the command that made it "
        f"again, with run.dir={named(run)} run.resume=true"
    )


def _summary(folder: Path) -> dict[str, Any]:
    """Of a run that has ended; empty of one that has not, or if it cannot be read."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
