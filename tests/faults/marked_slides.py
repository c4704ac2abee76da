"""Slides full of marks that are found again wherever they turn up, and the search for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tifffile

SITES, NUM_SLIDES = ("north", "south", "west"), 8  # each
SLIDE, CASE, FOLDER = "ZQslide7719", "ZQpatient4182", "ZQfolder6604"
ERROR, DESCRIPTION, LABEL = "ZQerror9035", "ZQdescription5526", "ZQlabelpixels3390"
WORDS = {word: word.encode() for word in (SLIDE, CASE, FOLDER, ERROR, DESCRIPTION, LABEL)}
HEAD = "Aperio Image Library v12.0.15\r\n"


def make_slides(home: Path) -> Path:
    """Three sites with slides of four tiles, as a scanner of Aperio writes them; their manifest."""
    folder = home / "slides" / FOLDER
    folder.mkdir(parents=True)
    lines = ["slide_id,path,case_id,site,label"]
    for number, site in enumerate(SITES):
        for i in range(NUM_SLIDES):
            name = f"{SLIDE}-{site}-{i}"
            make_slide(folder / f"{name}.svs", 100 * number + i, rough=bool(i % 2))
            label = "tumour" if i % 2 else "normal"
            lines.append(f"{name},{FOLDER}/{name}.svs,{CASE}-{site}-{i},{site},{label}")
    manifest = home / "slides" / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def make_slide(path: Path, seed: int, rough: bool) -> None:
    """512 x 512 pixels at 0.5 um; description, label and macro picture have marks."""
    noise = np.random.default_rng(seed).integers(0, 90 if rough else 45, (512, 512, 1))
    pixels = (np.array([200, 100, 150]) - noise).clip(0, 255).astype(np.uint8)
    label = np.resize(np.frombuffer(LABEL.encode(), np.uint8), (64, 64, 3))
    user = f"512x512 [0,0 512x512] (256x256) |AppMag = 20|MPP = 0.5|User = {DESCRIPTION}"
    plain = {"photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        tiles = {"tile": (256, 256), "compression": "adobe_deflate"}
        file.write(pixels, description=HEAD + user, **tiles, **plain)
        file.write(pixels[::8, ::8].copy(), description=HEAD + "512x512 -> 64x64", **plain)
        file.write(label, description=HEAD + "label 64x64", subfiletype=1, **plain)
        file.write(label, description=HEAD + "macro 64x64", subfiletype=9, **plain)


def marks_of_features(features_ND: np.ndarray) -> tuple[dict[str, bytes], list[float]]:
    """What four features next to each other look like in every type, and their values."""
    rows = np.lib.stride_tricks.sliding_window_view(features_ND[0].astype(np.float32), 4)
    window = next(w for w in rows if len(set(w.tolist())) == 4 and (np.abs(w) > 1e-3).all())
    types = (np.float16, np.float32, np.float64)
    marks = {f"features as {kind.__name__}": window.astype(kind).tobytes() for kind in types}
    texts = [repr(value)[:9] for value in window.tolist()]
    assert all(len(text) == 9 for text in texts), texts  # short ones would be found by chance
    return marks | {f"feature {text}": text.encode() for text in texts}, window.tolist()


def hits(folder: Path, marks: dict[str, bytes], *own: Path) -> list[str]:
    """Marks in files and names below a folder, but for what is the sites' own."""
    found = []
    for path in sorted(folder.rglob("*")):
        if any(path.is_relative_to(place) for place in own):
            continue
        name = os.fsencode(path.relative_to(folder))
        found += [f"name of {path}: {mark}" for mark, text in marks.items() if text in name]
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            if path.suffix == ".parquet":  # compressed on disk
                data += repr(pq.read_table(path).to_pylist()).encode()
            found += [f"{path}: {mark}" for mark, text in marks.items() if text in data]
    return found


def hits_in_text(text: str, marks: dict[str, bytes]) -> list[str]:
    return [f"console: {mark}" for mark, word in marks.items() if word in text.encode()]
