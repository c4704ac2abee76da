"""The verbs that put the networks of a finished run to use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rayfed_hn.errors import ConfigError
from rayfed_hn.progress import Bar, bar
from rayfed_hn.verbs.common import before_anything_starts, print_troubles, resumable

if TYPE_CHECKING:
    from rayfed_hn.prediction.scores import Predictions


def predict(
    run: Path, words: Sequence[str], bags: Path | None, sites: Sequence[str], to: Path
) -> int:
    """See ``rayfed-hn predict --help``."""
    import torch

    from rayfed_hn.prediction import scores
    from rayfed_hn.prediction.finished import FinishedRun

    torch.set_num_threads(1)  # as sites train: results must not depend on cores
    for path in (to, _beside(to)):
        if path.exists():
            raise ConfigError(f"--to: {path} exists; delete it, or give another name")
    with before_anything_starts():
        finished = FinishedRun.read(run, words)
        root = finished.bags(bags)
    with resumable("nothing was written; give the same command again"), _lazy_bar() as progress:
        predictions = scores.predict(finished, root, sites, progress)
    scores.write_csv(to, finished.task, predictions.found)
    _tell(predictions, to)
    own, known = finished.own_bags, {one.site for one in predictions.found} & {*finished.sites}
    if own is not None and root.resolve() == Path(own).resolve() and known:
        print(
            "note: these are the bags of the run itself; those that it trained on are scored too, "
            "and better than new ones would be"
        )
    return 3 if predictions.set_aside else 0


def export_model(run: Path, site: str, to: Path) -> int:
    """See ``rayfed-hn export-model --help``."""
    import torch

    from rayfed_hn.prediction.finished import FinishedRun
    from rayfed_hn.prediction.handed_on import hand_on
    from rayfed_hn.reporting.model_card import trained_without_noise, write_model_card
    from rayfed_hn.reporting.run_files import read_run

    torch.set_num_threads(1)
    if to.exists() and any(to.iterdir()):
        raise ConfigError(f"--to: {to} is not empty; give another folder")
    with before_anything_starts():
        finished = FinishedRun.read(run)
        why = trained_without_noise(read_run(run))
    with resumable(f"delete {to} and give the same command again"):
        one = hand_on(finished, site, to)
        card = write_model_card(to, run, site, one.path, one.sha256, one.about)
    print(f"{one.path}: {one.about['network']} network of {site}; SHA-256 {one.sha256}")
    print(f"{card}: what goes with it")
    if why is not None:
        print(
            f"note: it was trained at {site} without noise ({why}); to hand it on is a release of "
            "its own, which no mechanism of the run covers (docs/privacy.md)"
        )
    return 0


def _tell(predictions: Predictions, to: Path) -> None:
    from rayfed_hn.prediction.scores import write_set_aside

    sites = {one.site for one in predictions.found}
    print(f"{to}: {len(predictions.found)} bags of {len(sites)} sites")
    for note in predictions.notes:
        print(f"note: {note}")
    aside = predictions.set_aside
    print_troubles({"set_aside": [vars(one) for one in aside]})
    if aside:
        write_set_aside(_beside(to), aside)
        print(f"{_beside(to)}: what was set aside, and why")


def _beside(to: Path) -> Path:
    """Where it is written what could not be scored."""
    return to.with_name(f"{to.stem}.set_aside.csv")


@contextmanager
def _lazy_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is there once it is known of how much."""
    with ExitStack() as stack:
        shown: list[Bar] = []

        def show(done: int, total: int) -> None:
            if not shown:
                shown.append(stack.enter_context(bar("scoring bags", total)))
            shown[0].update(done)

        yield show
