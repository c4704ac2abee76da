"""With ``resources.autoscaling`` a run asks for the nodes that it needs, and uses them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
APART = ["unshare", "--pid", "--fork", "--mount-proc"]
SCRIPT = Path(__file__).with_name("growing_cluster.py")
SLIDES = 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: Ray's sockets lie below it."""
    place = Path(tempfile.mkdtemp(prefix="rg", dir="/tmp"))
    yield place
    shutil.rmtree(place)


def found(verb: str, folder: Path, bags: Path) -> dict[str, Any]:
    """What was done on a cluster that had one core in the beginning."""
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        pytest.skip("process namespaces cannot be made here, and Ray's stop would end others")
    own = {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    paths = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    done = subprocess.run(
        [*APART, sys.executable, str(SCRIPT), verb, str(folder), str(bags)],
        env=kept | own | {"PATH": paths},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_slides_are_embedded_on_nodes_that_come(folder: Path) -> None:
    lines = ["slide_id,path,case_id,site,label,mpp"]
    for number in range(SLIDES):
        noise = np.random.default_rng(number).integers(0, 60, (512, 512, 3))
        picture = ([200, 90, 150] - noise).astype(np.uint8)
        path = folder / f"s{number}.tiff"
        tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb")
        lines.append(f"s{number},{path},c{number},north,x,0.5")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert found("embed", folder, folder) == {
        "embedded": SLIDES,
        "processes": 4,  # one a core: of the head, and of the node that has come
        "cpus": 4.0,
    }


def test_actors_wait_for_nodes_that_come(folder: Path, bag_root: Path) -> None:
    told = found("train", folder, bag_root)
    assert told["cpus"] == 4.0  # the server's and three sites' cores
    assert told["digest"] == told["in_process"]
