"""The commands that put the networks of a finished run to use."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click

_RUN = click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
_BAGS = click.option(
    "--bags",
    type=click.Path(exists=True, path_type=Path),
    help="The bag store, made as the run's was (default: the run's own data.bags).",
)


def _taught(command: click.Command, example: str) -> None:
    """Give a command its help: what it does, and how it is called."""
    about = inspect.cleandoc(inspect.getdoc(command.callback) or "")
    command.help = f"{about}\n\n\b\nExample:\n  {example}"


@click.command()
@_RUN
@click.argument("words", nargs=-1, metavar="[data.bags=BAGS] [evaluation.readout=READOUT]")
@_BAGS
@click.option("--site", "sites", multiple=True, help="Only this site; may be given again.")
@click.option(
    "--to",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("predictions.csv"),
    show_default=True,
    help="The table to write.",
)
def predict(
    run: Path, words: tuple[str, ...], bags: Path | None, sites: tuple[str, ...], to: Path
) -> int:
    """Score new bags with the networks of a finished run; labels are not needed.

    RUN is the run.dir of a finished train. The bags of a site are scored with that site's own
    network under the run's readout (evaluation.readout=last, best or mixture takes another); those
    of a site that the run does not know with the network that all share. The table says which: one
    line a slide, or a case where task.unit=case, with the probability of every class or grade, or
    the risk. The standardisation of training is part of the networks.

    Bags of another encoder, scale or tile are refused. Damaged ones are set aside with the reason,
    and the exit code is 3.
    """
    from rayfed_hn.verbs import models

    return models.predict(run, words, bags, sites, to)


_taught(
    predict,
    "rayfed-hn embed   data.manifest=new/manifest.csv data.bags=new-bags\n"
    "  rayfed-hn predict runs/one data.bags=new-bags --to new.csv",
)


@click.command("export-model")
@_RUN
@click.option("--site", required=True, help="Whose network.")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("model"),
    show_default=True,
    help="The folder to write into.",
)
def export_model(run: Path, site: str, to: Path) -> int:
    """Write a site's network as a file that needs nothing but torch, with a model card.

    RUN is the run.dir of a finished train. SITE.pt2 is a program of torch.export: the tile features
    of one slide in, as they are in the bag store and of any number of tiles, and out what predict
    says of it, under the run's readout. MODEL_CARD.md says what it was trained and tested on, what
    the run promises of the data behind it, and how to load it.

    A site's network may have been trained on its bags without noise: to hand it on is a release of
    its own (docs/privacy.md). The card says whether it was.
    """
    from rayfed_hn.verbs import models

    return models.export_model(run, site, to)


_taught(export_model, "rayfed-hn export-model runs/one --site north --to north-model")


@click.command()
@_RUN
@click.argument("words", nargs=-1, metavar="[data.bags=BAGS] [data.manifest=FILE]")
@click.option("--slide", required=True, help="Its slide_id.")
@click.option("--site", help="Where the slide is filed, if several sites have one of this name.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Another run on bags of the same recipe, say one of fedavg, drawn beside.",
)
@_BAGS
@click.option(
    "--slide-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The slide itself (default: where data.manifest says; without either, blank ground).",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("heatmaps"),
    show_default=True,
    help="The folder to write into.",
)
def heatmap(run: Path, words: tuple[str, ...], **asked: Any) -> int:
    """Show where a site's network looks on a slide, as a picture and for QuPath.

    RUN is the run.dir of a finished train. Written are SLIDE.heatmap.png (the slide, and the
    percentile of every tile's attention over it), .heatmap.geojson (tiles as objects, in level-0
    pixels), .heatmap.tiff (a pyramid with the overlay) and .tiles.png (tiles of the highest and
    the lowest attention). With --against the attention of the other run's network is beside it.

    Attention says which tiles the network took its evidence from. It does not say that they are
    tumour, nor what another network would have made of them. Models that pool by mean or max have
    none.
    """
    from rayfed_hn.verbs.heatmap import Wanted
    from rayfed_hn.verbs.heatmap import heatmap as show

    return show(run, words, Wanted(**asked))


_taught(
    heatmap,
    "rayfed-hn heatmap runs/one --slide north-003 data.manifest=slides/manifest.csv\n"
    "  rayfed-hn heatmap runs/one --slide north-003 --slide-file north-003.svs "
    "--against runs/fedavg",
)
