"""The verb that gives a hospital that joins later its own network."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.federation.record import package_versions, write_summary
from rayfed_hn.files import write_text
from rayfed_hn.loading import load
from rayfed_hn.progress import bar
from rayfed_hn.reporting.boards import write_curves
from rayfed_hn.storage.keeping import bring_run
from rayfed_hn.storage.remote import named
from rayfed_hn.verbs.common import (
    before_anything_starts,
    connected,
    print_troubles,
    resumable,
    run_dir,
)
from rayfed_hn.verbs.slides import embed_manifest

if TYPE_CHECKING:
    from rayfed_hn.bags.store import SiteBags
    from rayfed_hn.federation.data import Folds
    from rayfed_hn.federation.onboarding.arms import Arms
    from rayfed_hn.federation.onboarding.origin import Origin
    from rayfed_hn.federation.onboarding.trial import Labelled, Tried


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are: the run to join, the FedAvg run, the new site's slides or bags."""

    run: Path
    fedavg: Path | None
    bags: Path | None
    manifest: Path | None


def onboard(places: Places, site: str, words: Sequence[str]) -> int:
    """See ``rayfed-hn onboard --help``."""
    from rayfed_hn.federation.onboarding.arms import Arms
    from rayfed_hn.federation.onboarding.origin import read_origin

    begun = time.monotonic()
    with before_anything_starts():
        origin = read_origin(places.run)
        fedavg = None if places.fedavg is None else read_origin(places.fedavg)
        config = _configuration(places, words)
        _check(origin, fedavg, site)
        _check_places(config, places, site)
        at_hand = None if places.manifest else _open(config, origin, site)
    folder, set_aside = run_dir(config, "onboard"), []
    with resumable(
        f"the same command with run.dir={named(folder)} run.resume=true starts it again"
    ):
        if places.manifest is not None:
            config, set_aside = _embed(config, places.manifest, folder, site)
        with before_anything_starts():
            bags, folds = at_hand or _open(config, origin, site)
        arms = Arms(origin, fedavg, config.onboard, config.run.seed, site)
        summary = _try(arms, bags, folds, folder)
    summary |= _status([*summary["set_aside"], *set_aside])
    summary |= {name: path and str(path.resolve()) for name, path in vars(places).items()}
    summary |= {"origin": summary.pop("run"), "bags": str(Path(config.data.bags or "").resolve())}
    summary |= {"seconds": round(time.monotonic() - begun, 2), "versions": package_versions()}
    write_summary(folder, summary)
    write_curves(folder, summary)
    _print(summary)
    print_troubles(summary)
    print(f"\nRun directory: {named(folder)}. Pictures: rayfed-hn report {named(folder)}")
    return summary["exit_code"]


def _configuration(places: Places, words: Sequence[str]) -> Config:
    """The run's own settings, and what was asked for on the command line."""
    own = ["run.dir=", "run.resume=false", "data.leave_out=", "data.manifest=", "data.root="]
    config = load(places.run / "config.yaml", [*own, *words])
    if config.run.dir:
        place = bring_run(config.run.dir, goes_on=config.run.resume)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, dir=place))
    if places.bags is not None:
        data = dataclasses.replace(config.data, bags=str(places.bags.resolve()))
        config = dataclasses.replace(config, data=data)
    return config


def _check(origin: Origin, fedavg: Origin | None, site: str) -> None:
    if site in origin.networks:
        raise ConfigError(
            f"--site: {site} took part in the run and has its network; to try what would be "
            f"without it, train again with data.leave_out={site}"
        )
    if fedavg is None:
        return
    method = fedavg.config.method.name
    if method != "fedavg":
        raise ConfigError(
            f"--fedavg: was trained with method.name={method}; give a run of fedavg on the same "
            "bags"
        )
    if site in fedavg.networks:
        raise ConfigError(f"--fedavg: {site} took part in that run; leave it out there too")
    one, other = (
        (o.recipe, o.task, o.feature_dim, o.config.model, o.config.training, o.config.rounds)
        for o in (origin, fedavg)
    )
    if one != other or origin.networks.keys() != fedavg.networks.keys():
        raise ConfigError(
            "--fedavg: that run has other bags or sites, another task or model, or another budget "
            "than RUN; train it with the same settings but method.name=fedavg"
        )


def _check_places(config: Config, places: Places, site: str) -> None:
    """Refuse a name that is no file's name, a run.dir that is another run's, a strange manifest."""
    if places.manifest is not None and config.embed.encoder.startswith("module:"):
        raise ConfigError(
            f"--manifest: the run's embed.encoder={config.embed.encoder} is a program, which is "
            "not run on the word of another's config.yaml; embed the slides with rayfed-hn embed "
            "and give --bags"
        )
    from rayfed_hn.slides.manifest import is_name, read_manifest

    if not is_name(site):
        raise ConfigError(f"--site: {site!r} is no name of a site; give it as in its manifest")
    runs = {path.resolve() for path in (places.run, places.fedavg) if path}
    if config.run.dir is not None and Path(config.run.dir).resolve() in runs:
        raise ConfigError(f"run.dir: {config.run.dir} is the run that {site} joins; give another")
    if places.manifest is None:
        return
    if places.bags is not None:
        raise ConfigError("--manifest: makes bags of its own; give it or --bags, not both")
    root = config.data.root
    records = read_manifest(places.manifest, None if root is None else Path(root))
    if site not in (named := sorted({record.site for record in records})):
        raise ConfigError(f"--site: {places.manifest} has no slide of {site}, but {named}")


def _embed(
    config: Config, manifest: Path, folder: Path, site: str
) -> tuple[Config, list[dict[str, Any]]]:
    """Make the new site's bags as the run's were made; with the slides that were set aside."""
    places = {"manifest": str(manifest.resolve()), "bags": str(folder / "bags")}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **places))
    with connected(config):
        summary = embed_manifest(config, folder / "embed")
    return config, [slide for slide in summary["set_aside"] if slide["site"] == site]


def _open(config: Config, origin: Origin, site: str) -> tuple[SiteBags, Folds]:
    from rayfed_hn.bags.splits import check_leakage
    from rayfed_hn.bags.store import SiteBags, list_sites, read_recipe, recipe_digest
    from rayfed_hn.bags.tile_filter import tile_filter
    from rayfed_hn.federation.labels import check_cases, knows

    if config.data.bags is None:
        raise ConfigError("--bags: missing; give the bag store of the new site, or --manifest")
    root = Path(config.data.bags)
    if recipe_digest(read_recipe(root)) != origin.recipe:
        raise ConfigError(
            f"--bags: {root} holds bags of another recipe (encoder, scale or tiles) than those "
            "that the run was trained on; embed the new site with the settings that those were "
            "embedded with (embed.key=value)"
        )
    bags = SiteBags(root, site, tile_filter(config.data))
    bags.keep(lambda entry: knows(origin.task, entry))
    if not bags.entries:
        raise ConfigError(
            f"--site: no bag of {site} has a label of the run's task "
            f"({', '.join(origin.task.names)}); correct its manifest and embed again"
        )
    check_cases(origin.task, {site: bags.entries})
    # Where the federation's bags are at hand, as in a simulation, none may be tested on.
    trained = [name for name in list_sites(root) if name in origin.networks]
    check_leakage({name: SiteBags(root, name).entries for name in trained} | {site: bags.entries})
    return bags, _folds(config, bags)


def _folds(config: Config, bags: SiteBags) -> Folds:
    """By the run's tables, if they name any slide of the site."""
    from rayfed_hn.federation.data import Folds

    folds = Folds.of(config)
    parts = [folds.shifted(i).split(bags.entries) for i in range(len(folds.tables))]
    if folds.tables and not any(p.train or p.validation or p.test for p in parts):
        print("note: data.splits names no slide of the site; its cases are divided by data.folds")
        return dataclasses.replace(folds, tables=())
    return folds


def _try(arms: Arms, bags: SiteBags, folds: Folds, folder: Path) -> dict[str, Any]:
    import torch

    from rayfed_hn.federation.onboarding.keep import keep_networks
    from rayfed_hn.federation.onboarding.trial import attempt, curve, divide, summarise
    from rayfed_hn.models.parameters import ParameterLayout

    torch.set_num_threads(1)  # as sites train: results must not depend on cores
    task, knobs = arms.origin.task, arms.config
    total = knobs.repeats * len(knobs.labelled)
    with bar("trying labelled bags", total) as progress:
        records = list(curve(arms, bags, folds, progress.update))
    everything = divide(bags, task, folds)
    tried = attempt(arms, everything, 0)
    own = folder / "sites" / arms.site
    layout = ParameterLayout.of(arms.origin.model)
    keep_networks(own, arms.site, layout, tried.fitted, tried.recommendation)
    write_text(folder / "curve.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    return {
        **_outcome(arms, bags, everything, tried),
        "curve": summarise(records),
        "recommended": dict(tried.recommendation.weights),
        "held_out": dict(tried.recommendation.metrics),
        "values": tried.values,
    }


def _outcome(arms: Arms, bags: SiteBags, everything: Labelled, tried: Tried) -> dict[str, Any]:
    remedy = "rayfed-hn embed finds damaged bags; correct labels in the manifest"
    aside = len(bags.unlabelled) + len(bags.unusable)
    reason = f"{aside} of its bags are damaged or have no label of the task"
    set_aside = [{"site": arms.site, "reason": reason, "remedy": remedy}] if aside else []
    task = arms.origin.task
    return {
        "verb": "onboard",
        "site": arms.site,
        "method": arms.origin.config.method.name,
        "task": task.kind,
        "unit": task.unit,
        "metric": task.judge.name,
        "classes": list(task.names),
        "num_sites": len(arms.origin.networks),
        "num_labelled": len(everything.bags),
        "num_test": len(everything.test),
        "set_aside": set_aside,
        "lost_sites": [],
    }


def _status(set_aside: list[dict[str, Any]]) -> dict[str, Any]:
    status, code = ("degraded", 3) if set_aside else ("complete", 0)
    return {"status": status, "exit_code": code, "set_aside": set_aside}


def _print(summary: Mapping[str, Any]) -> None:
    points, metric = summary["curve"], summary["metric"]
    counts = sorted({point["labelled"] for point in points})
    table = {(point["arm"], point["labelled"]): point["mean"] for point in points}
    each = {"survival": "with and without event", "ordinal": "of every grade"}
    alike = each.get(summary["task"], "of every class")
    print(f"\n{metric} on held-out cases, by labelled bags {alike}\n")
    # The last column is of one fold alone, and so not to be compared with the others.
    header = [*map(str, counts), f"all {summary['num_labelled']}*"]
    print(f"{'arm':26}" + "".join(f"{name:>9}" for name in header))
    for arm, last in summary["values"].items():
        values = [table.get((arm, count)) for count in counts] + [last]
        cells = "".join(f"{'–' if value is None else f'{value:.3f}':>9}" for value in values)
        print(f"{arm:26}{cells}")
    parts = ", ".join(f"{share:.0%} {arm}" for arm, share in summary["recommended"].items())
    print(
        f"* tested on one fold alone, {summary['num_test']} bags; the others are means over folds"
    )
    print(f"\nRecommended for {summary['site']}: {parts}")
