"""Every kind of file and message that comes from others: a good one, and who reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import mutations
import numpy as np
import tifffile
import torch
import yaml
from PIL import Image
from tiny_bags import make_bag

from rayfed_hn.bags import entry, set_aside, store
from rayfed_hn.bags.clam_tables import read_clam_splits, read_clam_table
from rayfed_hn.bags.interop import read_features, read_width
from rayfed_hn.config import SimulationConfig
from rayfed_hn.federation.event_trace import read_trace
from rayfed_hn.federation.exchanges import Exchange, ExchangeFiles
from rayfed_hn.federation.messages import TrainRequest, Update, read_answer
from rayfed_hn.federation.readouts import BestVersions
from rayfed_hn.federation.score_messages import (
    CandidateMetrics,
    CandidatesRequest,
    EvaluateRequest,
    Scores,
)
from rayfed_hn.federation.site_clock import SiteClock
from rayfed_hn.federation.site_memory import SiteMemory
from rayfed_hn.federation.statistics_messages import FeatureStatistics, StatisticsRequest
from rayfed_hn.loading import load, to_yaml
from rayfed_hn.privacy.ledger import Charge, FileLedger, ReleaseKey
from rayfed_hn.slides.manifest import read_manifest
from rayfed_hn.slides.plain_image import open_image
from rayfed_hn.slides.state_dicts import parse_state
from rayfed_hn.slides.user_mask import read_user_mask

NAMES: dict[str, Any] = {"slide_id": "s", "case_id": "c", "site": "north", "label": "x"}
VECTOR = np.linspace(-1, 1, 20, dtype=np.float32)
PIXELS = np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3)


@dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        path: Of the file, below a folder.
        write: Makes a good one there.
        read: Reads it as the package does; raises only what a user should see.
        structural: Damage that is made with knowledge of the format.
        number: How many damaged ones are tried.
    """

    path: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    structural: mutations.Mutate | None
    number: int


def _manifest(path: Path) -> None:
    rows = [f"s{i},slides/s{i}.svs,c{i},{('n', 's')[i % 2]},t,0.5,{i + 1},1" for i in range(6)]
    path.write_text("\n".join(["slide_id,path,case_id,site,label,mpp,time,event", *rows, ""]))


def _message(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


UPDATE = Update("north", 3, 2, VECTOR, 0.5, 0.5, 0.7, 4, 0.1, 2.0, 0.5, 1, 1.0)
SCORES = Scores(
    *("north", 3, 0.5, np.array([2]), np.zeros(3, np.int64), np.arange(3), np.arange(3)),
    *(np.zeros(3, bool), np.array([0, 1, 0]), np.zeros(3), np.ones(3, bool)),
    *(np.ones((3, 1), np.float32) for _ in range(3)),
)
ASKED = {
    "update": (TrainRequest("north", 3, VECTOR, 2), bytes(UPDATE.to_bytes())),
    "scores": (EvaluateRequest("north", 3, np.zeros(2)), SCORES.to_bytes()),
    "metrics": (
        CandidatesRequest("north", 3, VECTOR, np.zeros((0, 20), np.float32), 1),
        CandidateMetrics("north", 3, np.full((1, 2), 0.5)).to_bytes(),
    ),
    "statistics": (
        StatisticsRequest("north", 3, 4),
        FeatureStatistics("north", 3, np.zeros(4), np.ones(4)).to_bytes(),
    ),
}


def _messages() -> dict[str, Kind]:
    return {
        name: Kind(
            "message",
            _message(data),
            lambda path, request=request: read_answer(request, path.read_bytes()),
            None,
            40,
        )
        for name, (request, data) in ASKED.items()
    }


def _bag(path: Path) -> None:
    root = path.parents[1]
    store.create(root, {"feature_dim": 12})
    store.write(root, make_bag(np.random.default_rng(0), "north", 1))


def _use_bag(path: Path) -> None:
    bag = entry.read_bag(path)
    assert np.isfinite(float(np.nan_to_num(bag.features_ND).astype(np.float64).sum()))
    assert len(bag.coords_N2) == len(bag.tissue_N) == len(bag.artefacts_N4) == len(bag)
    store.SiteBags(path.parents[1], "north")


def _recipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    store.create(path.parent, {"feature_dim": 12, "tissue": {"otsu": True}})


def _ledger(path: Path) -> None:
    for turn in range(3):
        FileLedger(path).charge(Charge(ReleaseKey("r", "north", 1, turn, "x"), "y", None))


def _h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"] = np.arange(24, dtype=np.float32).reshape(8, 3)
        file["coords"] = np.arange(16).reshape(8, 2)
        file["coords"].attrs["patch_size_level0"] = 256


def _features(path: Path) -> None:
    read_width(path)
    assert np.isfinite(read_features(path, **NAMES).features_ND).all()


def _exchange(path: Path) -> None:
    kept = ExchangeFiles(path.parents[1])
    kept.write(Exchange("north", 1, 0, VECTOR, VECTOR, 4))
    kept.of("north")[0].rename(path)  # whose name has a digest of the content


def _best(path: Path) -> None:
    best = BestVersions(1)
    best.observe(3, [0.5], torch.ones(20))
    best.save(path)


def _splits(path: Path) -> None:
    path.write_text(",train,val,test\n" + "".join(f"{i},a{i},b{i},c{i}\n" for i in range(4)))


GEOJSON = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[0, 0], [4e3, 0], [4e3, 4e3], [0, 0]]],
            },
        }
    ],
}


def _events(path: Path) -> None:
    lines = [
        {"event": "begin", "settings": "x", "clock": "real", "time": 0.0},
        {"event": "update", "site": "north", "version": 0, "turn": 0, "time": 0.5},
        {"event": "back", "site": "north", "time": 1.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _aside(path: Path) -> None:
    set_aside.remember(path.parents[1], set_aside.SetAsideEntry("s", "north", "why", "how", "x"))


def _clock(path: Path) -> object:
    return SiteClock(SimulationConfig(enabled=True, durations=str(path)), {"north": 3}, 0)


def _absences(path: Path) -> object:
    return SiteClock(SimulationConfig(enabled=True, absences=str(path)), {"north": 3}, 0)


def _picture(path: Path) -> None:
    Image.fromarray(PIXELS).save(path)


def _mask(path: Path) -> object:
    return read_user_mask(path, (4800, 4800), (24, 24))


KINDS: dict[str, Kind] = {
    "manifest": Kind("manifest.csv", _manifest, read_manifest, mutations.by_csv, 120),
    "config": Kind("c.yaml", lambda p: p.write_text(to_yaml(load())), load, mutations.by_yaml, 6),
    "short config": Kind(
        "c.yaml",
        lambda p: p.write_text(yaml.safe_dump({"run": {"seed": 3}, "data": {"bags": "b"}})),
        load,
        mutations.by_yaml,
        100,
    ),
    **_messages(),
    "bag": Kind("site=north/north-1.arrow", _bag, _use_bag, None, 100),
    "recipe": Kind(
        "recipe.json", _recipe, lambda p: store.read_recipe(p.parent), mutations.by_json, 40
    ),
    "set aside": Kind(
        "site=north/s.set_aside.json",
        _aside,
        lambda p: set_aside.list_all(p.parents[1]),
        mutations.by_json,
        30,
    ),
    "ledger": Kind(
        "l.jsonl", _ledger, lambda p: FileLedger(p).charges(), mutations.by_json_lines, 60
    ),
    "CLAM h5": Kind("h5_files/s.h5", _h5, _features, None, 40),
    "CLAM pt": Kind(
        "pt_files/s.pt", lambda p: torch.save(torch.ones(8, 3), p), _features, None, 50
    ),
    "splits": Kind(
        "splits_0.csv", _splits, lambda p: read_clam_splits(p.parent), mutations.by_csv, 50
    ),
    "table": Kind("t.csv", _manifest, read_clam_table, mutations.by_csv, 20),
    "kept message": Kind(
        "north/turn-000000-0123456789abcdef.safetensors",
        _exchange,
        lambda p: ExchangeFiles(p.parents[1]).read(p),
        None,
        50,
    ),
    "site memory": Kind(
        "memory-1.safetensors",
        lambda p: SiteMemory(p.parent).after(1, {"x": torch.ones(4)}),
        lambda p: SiteMemory(p.parent).before(2),
        None,
        40,
    ),
    "best networks": Kind("best.safetensors", _best, lambda p: BestVersions(1).load(p), None, 40),
    "weights": Kind(
        "w.pth",
        lambda p: torch.save({"a": torch.ones(4, 4)}, p),
        lambda p: parse_state(p.read_bytes(), p, "remedy"),
        None,
        30,
    ),
    "mask": Kind(
        "m.geojson", lambda p: p.write_text(json.dumps(GEOJSON)), _mask, mutations.by_json, 60
    ),
    "mask png": Kind("m.png", _picture, _mask, None, 30),
    "mask tif": Kind("m.tif", lambda p: tifffile.imwrite(p, PIXELS), _mask, None, 40),
    "picture png": Kind("p.png", _picture, open_image, None, 20),
    "picture jpg": Kind("p.jpg", _picture, open_image, None, 20),
    "picture tif": Kind("p.tif", lambda p: tifffile.imwrite(p, PIXELS), open_image, None, 30),
    "events": Kind(
        "events.jsonl", _events, lambda p: read_trace(p, "x"), mutations.by_json_lines, 40
    ),
    "durations": Kind(
        "d.csv", lambda p: p.write_text("site,seconds\nnorth,3\n"), _clock, mutations.by_csv, 20
    ),
    "absences": Kind(
        "a.csv",
        lambda p: p.write_text("site,from,until\nnorth,3,4\n"),
        _absences,
        mutations.by_csv,
        20,
    ),
}
