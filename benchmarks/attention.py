"""Does the attention of a federation that knows labels of slides alone find the tumour?

Makes the synthetic federation (four hospitals, truth masks at 4 um), embeds it as the demo does,
trains over the folds and several seeds with the settings that ship (or with those given), and ranks
the tiles of every tumour slide by the network of its own site and of the fold in which it is test:

- attention, last: of the site's last network.
- attention, mixture: of the candidates of the mixture readout, with the weights of the scores.
- contribution, last and mixture: attention times the tile's own log-odds; over a slide's tiles
  it adds up to the log-odds that the slide is scored by.

Beside them every single feature in both directions, of which the best is chosen with hindsight over
all slides (a bound from above for any one feature), and chance. A tile is tumour if at least half
of its area is in the truth mask; the last lines tell how the figures depend on that. Only slides
whose tumour covers 2 to 15 % of their tissue tiles count. Area under the precision-recall curve
(average precision) by slide, and over the tiles of all slides together, where attention is relative
to the slide's mean. JSON lines and a markdown table.

Nothing is chosen by the truth but the single features. While this was written, other settings
(twice the versions, learning rate, weight decay, dropout, tiles per step, fedavg) were tried on
slides of --slides-seed 100 only, and none of them was taken over.

    python benchmarks/attention.py [--work FOLDER] [--slides-per-site 32] [--slides-seed 0]
        [--seeds 3] [--folds 5] [--processes 2] [training.weight_decay=1e-3 ...]

What is made already in --work is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention_figures import Line, Ranking, TestedSlide, measure, table_of
from methods import code_digest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from rayfed_hn.bags import store
from rayfed_hn.bags.splits import split
from rayfed_hn.federation.experiment import finish, prepare
from rayfed_hn.federation.loop import InProcessExecutor, run_federation
from rayfed_hn.federation.plan import Plan, make_plan
from rayfed_hn.federation.site_host import SiteHost
from rayfed_hn.files import write_text
from rayfed_hn.loading import load
from rayfed_hn.models.parameters import ParameterLayout, bind
from rayfed_hn.slides import synthetic, synthetic_plan
from rayfed_hn.slides.texture import TextureEncoder
from rayfed_hn.slides.truth import tumour_shares

FOLDS = 5
TILE_PX = 128  # as in the demo: 64 um, so that a small focus still fills tiles
SHARES = (0.02, 0.15)  # tumour tiles of a slide that counts
TUMOUR = synthetic.LABELS[True]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="settings of the training")
    parser.add_argument("--work", type=Path, default=Path("runs/attention"))
    parser.add_argument("--slides-per-site", type=int, default=32)
    parser.add_argument("--slides-seed", type=int, default=0, help="of the slides")
    parser.add_argument("--seeds", type=int, default=3, help="of divisions and trainings")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"of {FOLDS}, to test on")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    work = given.work / f"{given.slides_per_site}-slides-seed{given.slides_seed}"
    slides = make_slides(work / "slides", given.slides_per_site, given.slides_seed, given.processes)
    bags = embed(slides, work / "bags")
    cells = [(seed, fold) for seed in range(given.seeds) for fold in range(given.folds)]
    (work / "cells").mkdir(exist_ok=True)
    made = {"words": given.words, "code": code_digest(), "bags": store.digest(bags)}
    job = partial(run_cell, words=given.words, bags=bags, folder=work / "cells", made=made)
    with ProcessPoolExecutor(given.processes) as pool:
        results = list(pool.map(job, cells))
    conclude(results, slides, bags, work)


def make_slides(folder: Path, slides_per_site: int, seed: int, processes: int | None) -> Path:
    """The folder of the slides and their truth, made unless the same ones are there."""
    sources = sorted(Path(synthetic.__file__).parent.glob("synthetic*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    made = folder / "made.json"
    if not made.exists() or json.loads(made.read_text())["code"] != code:
        made.unlink(missing_ok=True)  # what an interrupted making leaves is made again
        synthetic.make_federation(folder, slides_per_site, seed, processes=processes)
        write_text(made, json.dumps({"code": code}))
    return folder


def embed(slides: Path, bags: Path) -> Path:
    """The bag store, made with the command that a user would give."""
    words = [f"data.manifest={slides / 'manifest.csv'}", f"data.bags={bags}"]
    words += [f"embed.tile_px={TILE_PX}", f"run.dir={bags.parent / 'embed'}", "run.resume=true"]
    command = [sys.executable, "-m", "rayfed_hn", "embed", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return bags.resolve()


def run_cell(
    cell: tuple[int, int], words: Sequence[str], bags: Path, folder: Path, made: dict[str, Any]
) -> dict[str, Any]:
    """How the tumour slides under test are ranked, from a file where it is there already."""
    seed, fold = cell
    path = folder / f"seed{seed}-fold{fold}.json"
    if path.exists() and json.loads(path.read_text())["made"] == made:
        return json.loads(path.read_text())
    own = [f"run.seed={seed}", f"data.folds={FOLDS}", f"data.fold={fold}"]
    plan = make_plan(load(None, [*words, *own]), bags)
    with tempfile.TemporaryDirectory(dir=folder) as run:
        train(plan, Path(run))
        slides = {
            slide: {name: value_N.tolist() for name, value_N in found.items()}
            for site in plan.hospitals
            for slide, found in rank_site(plan, site, Path(run) / "sites" / site, bags, cell)
        }
    result = {"made": made, "seed": seed, "fold": fold, "slides": slides}
    write_text(path, json.dumps(result))
    return result


def train(plan: Plan, run: Path) -> None:
    """Train in this process; every site leaves its networks in its own folder."""
    server = plan.server()
    executor = plan.executor(InProcessExecutor(SiteHost(plan, plan.participants, run)))
    prepare(plan, server, executor)
    for _ in run_federation(server, executor):
        pass
    finish(plan, server, executor)


def rank_site(
    plan: Plan, site: str, folder: Path, root: Path, cell: tuple[int, int]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Every tumour slide of a site that is test in this cell."""
    bags, (seed, fold) = store.SiteBags(root, site), cell
    readouts = read_networks(plan.model(), folder)
    for index in split(bags.entries, FOLDS, fold, seed).test:
        if bags.entries[index].label == TUMOUR:
            features_ND = torch.tensor(bags.load(index).features_ND)
            yield bags.entries[index].slide_id, rank(readouts, features_ND)


def read_networks(model: nn.Module, folder: Path) -> dict[str, list[tuple[float, nn.Module]]]:
    """Networks with weights by readout, for features as they are in the bag store."""
    last_P = ParameterLayout.of(model).flatten(load_file(folder / "network_last.safetensors"))
    found = {"last": [(1.0, bind(model, last_P))]}
    if (folder / "network_mixture.safetensors").exists():  # evaluation.readout is another one
        mixture = load_file(folder / "network_mixture.safetensors")
        weight_C = (mixture["weights"][0] / mixture["weights"][0].sum()).tolist()
        networks = [bind(model, network_P) for network_P in mixture["candidates"].float()]
        found["mixture"] = list(zip(weight_C, networks, strict=True))
    return found


def rank(
    readouts: Mapping[str, Sequence[tuple[float, nn.Module]]], features_ND: Tensor
) -> dict[str, np.ndarray]:
    """Attention, relative to its mean over the slide, and contribution of every tile."""
    found: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for readout, networks in readouts.items():
            attention_N, contribution_N = torch.zeros(2, len(features_ND))
            for weight, network in networks:
                own_N = weight * network(features_ND)[1]
                # A tile as a bag of its own has all of the attention: the logits are the tile's.
                odds_N2 = torch.stack([network(tile_1D)[0] for tile_1D in features_ND.split(1)])
                attention_N += own_N
                contribution_N += own_N * (odds_N2[:, 1] - odds_N2[:, 0])
            found[f"attention, {readout}"] = (attention_N * len(features_ND)).numpy()
            found[f"contribution, {readout}"] = contribution_N.numpy()
    return found


def read_slides(slides: Path, root: Path, tested: set[str]) -> list[TestedSlide]:
    """The tumour slides under test with their truth."""
    found = []
    for site in store.list_sites(root):
        bags = store.SiteBags(root, site)
        for index, entry in enumerate(bags.entries):
            if entry.slide_id not in tested:
                continue
            bag = bags.load(index)
            assert bag.mpp is not None
            mask = np.asarray(Image.open(slides / "truth" / f"{entry.slide_id}.png")) > 0
            place = bag.coords_N2, bag.tile_size0, bag.mpp
            share_N = tumour_shares(mask, *place, synthetic_plan.GRID_UM)
            found.append(TestedSlide(entry.slide_id, site, share_N, bag.features_ND))
    return found


def conclude(results: Sequence[dict[str, Any]], slides: Path, root: Path, work: Path) -> None:
    """Print every figure, and write the table."""
    rankings: dict[str, Ranking] = {}
    for result in results:
        for slide, found in result["slides"].items():
            for name, values in found.items():
                by_seed = rankings.setdefault(name, {})
                by_seed.setdefault(result["seed"], {})[slide] = np.array(values)
    tested = {slide for result in results for slide in result["slides"]}
    all_slides = read_slides(slides, root, tested)
    kept = [s for s in all_slides if SHARES[0] <= s.tumour(0.5).mean() <= SHARES[1]]
    head = {"tumour_slides_tested": len(all_slides), "left_out": len(all_slides) - len(kept)}
    head["tiles"] = sum(len(slide.share_N) for slide in kept)
    print(json.dumps(head))
    lines: list[Line] = []
    for rule in (0.5, 0.25, 0.75):
        lines += measure(kept, rankings, TextureEncoder().feature_names, rule)
    for line in lines:
        print(json.dumps(line))
    (work / "attention.md").write_text(table_of(lines, head))


if __name__ == "__main__":
    main()
