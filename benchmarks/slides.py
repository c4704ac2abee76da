"""How fast are slides read, embedded and opened again? Rivals side by side in one run.

Three parts: reading tiles (OpenSlide one at a time, ours, tiffslide where it is installed, and the
JPEG decoder alone as the limit), the whole pipeline on Ray against one plain process, and opening a
bag against HDF5. One JSON line a figure.

    python benchmarks/slides.py [reading] [pipeline] [bags] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bags import measure_bags
from pipeline import measure_pipeline
from pyramid import make_pyramid
from reading import measure_reading

PARTS = ("reading", "pipeline", "bags")
SIDE_PX, TILES, SLIDES = 20_000, 2_000, 8
CMU = "slides/cmu-1-small-region.svs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--work", type=Path, default=None, help="kept and used again")
    arguments = parser.parse_args()
    parts = tuple(arguments.parts) or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"{unknown.pop()} is no part; they are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="slides-benchmark-") as fresh:
        work = arguments.work or Path(fresh)
        work.mkdir(parents=True, exist_ok=True)
        for line in measure(parts, work):
            print(json.dumps(line), flush=True)


def measure(parts: tuple[str, ...], work: Path) -> Iterator[dict[str, Any]]:
    pyramid = make_pyramid(work, SIDE_PX) if set(parts) & {"reading", "pipeline"} else work
    if "reading" in parts:
        yield from measure_reading(pyramid, TILES)
        real = Path(os.environ.get("RAYFED_HN_DATA", "../shared/data")) / CMU
        if real.exists():
            yield from measure_reading(real, TILES)
    if "pipeline" in parts:
        yield from measure_pipeline(pyramid, work / "pipeline", SLIDES)
    if "bags" in parts:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            yield from measure_bags(Path(folder))


if __name__ == "__main__":
    main()
