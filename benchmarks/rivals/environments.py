"""The rivals' environments: one a rival, made by pip at the first use.

They are apart from the project's: each rival has dependencies of its own, Flower another Ray.
pip's own configuration says where packages come from; with an index of CPU builds of PyTorch an
environment takes a fraction of the disk.

    python benchmarks/rivals/environments.py flower|pfl [--root .rivals]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2] / ".rivals"
TORCH = "torch==2.13.0"
REQUIREMENTS = {
    "flower": ("flwr[simulation]<1.42", TORCH),
    "pfl": ("pfl[pytorch]==0.6.0", TORCH),
}
MARKER = "complete"  # written last; it holds what was asked for
PATIENCE_S = 1800
TAIL = 5  # lines of pip's that are worth reading when it fails


def ensure(rival: str, root: Path = ROOT) -> Path | str:
    """A rival's Python, with its environment made if it is not there.

    Args:
        rival: A key of REQUIREMENTS.
        root: Where the environments are; ours is in a folder of the rival's name.

    Returns:
        The interpreter, or one line that says why there is none; pip's last lines are on stderr
        then.
    """
    folder = root / rival
    python, marker = folder / "bin" / "python", folder / MARKER
    wanted = "\n".join(REQUIREMENTS[rival])
    if marker.is_file() and marker.read_text() == wanted:
        return python
    if folder.exists() and not (folder / "pyvenv.cfg").is_file():
        return f"no environment for {rival}: {folder} is there and is none"
    shutil.rmtree(folder, ignore_errors=True)  # half made, or for other requirements
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, *REQUIREMENTS[rival]],
    ):
        if trouble := call(command):
            print(*trouble, sep="\n", file=sys.stderr)
            return f"no environment for {rival}: {trouble[-1]}"
    marker.write_text(wanted)
    return python


def call(command: list[str]) -> list[str]:
    """Run a command in silence; the last lines that it wrote if it fails, at least one."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)]
    if done.returncode == 0:
        return []
    written = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return written[-TAIL:] or [f"exit status {done.returncode}"]


def main() -> None:
    """Print the interpreter, or exit with the reason why there is none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rival", choices=REQUIREMENTS)
    parser.add_argument("--root", type=Path, default=ROOT)
    options = parser.parse_args()
    found = ensure(options.rival, options.root)
    if isinstance(found, str):
        raise SystemExit(found)
    print(found)


if __name__ == "__main__":
    main()
