"""Are features and classifier sound? Out-of-fold AUC on real breast and colon images.

Embeds ``histology/`` of the real data (RAYFED_HN_DATA), compares the methods as the README does,
and sets beside them what needs no deep learning: logistic regression on the bags' mean features,
with the same features, folds and seeds. One JSON line a method, readout and organ.

    python benchmarks/histology.py [--bags FOLDER] [--run FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rayfed_hn.bags import store
from rayfed_hn.bags.splits import split
from rayfed_hn.evaluation.metrics import auc

ORGANS = {"breast": "ucsb", "colon": "warwick"}  # by the beginning of the site's name
SEEDS, FOLDS = 3, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bags", type=Path, default=Path("bags/histology"))
    parser.add_argument("--run", type=Path, default=Path("runs/histology"))
    arguments = parser.parse_args()
    data = Path(os.environ.get("RAYFED_HN_DATA", "../shared/data"))
    for verb, *words in (
        ("embed", f"data.manifest={data / 'histology' / 'manifest.csv'}"),
        ("compare", f"run.dir={arguments.run}", "run.resume=true"),
    ):
        words = [verb, "conf/histology.yaml", f"data.bags={arguments.bags}", *words]
        begun = time.monotonic()
        subprocess.run([sys.executable, "-m", "rayfed_hn", *words], check=True)
        print(json.dumps({"verb": verb, "seconds": round(time.monotonic() - begun, 1)}))
    for line in (*federated(arguments.run), *logistic_regression(arguments.bags)):
        print(json.dumps(line))


def federated(run: Path) -> Iterator[dict[str, object]]:
    """Out-of-fold AUC of every method and readout by organ, mean over seeds."""
    scores = pq.read_table(run / "scores.parquet").to_pandas()
    scores = scores[scores["unit"] == "slide"]
    for (method, readout), rows in scores.groupby(["method", "readout"]):
        for organ, prefix in ORGANS.items():
            own = rows[rows["site"].str.startswith(prefix)]
            values = [auc(s["label"], s["score"]) for _, s in own.groupby("seed")]
            yield line(str(method), str(readout), organ, [v for v in values if v is not None])


def logistic_regression(root: Path) -> Iterator[dict[str, object]]:
    """The rival: mean features, standardised on the training bags, C = 0.1."""
    sites = {name: store.SiteBags(root, name) for name in store.list_sites(root)}
    found: dict[str, list[float]] = {organ: [] for organ in ORGANS}
    for seed in range(SEEDS):
        scored: dict[str, tuple[list[int], list[float]]] = {o: ([], []) for o in ORGANS}
        for fold in range(FOLDS):
            train, test = [], []
            for name, bags in sites.items():
                part = split(bags.entries, FOLDS, fold, seed)
                organ = next(o for o, prefix in ORGANS.items() if name.startswith(prefix))
                train += [example(bags, i) for i in part.train]
                test += [(organ, *example(bags, i)) for i in part.test]
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
            model.fit([x for x, _ in train], [y for _, y in train])
            for organ, x, y in test:
                scored[organ][0].append(y)
                scored[organ][1].append(float(model.decision_function([x])[0]))
        for organ, (labels, values) in scored.items():
            value = auc(labels, values)
            assert value is not None
            found[organ].append(value)
    for organ, values in found.items():
        yield line("logistic regression on bag means, pooled", "-", organ, values)


def example(bags: store.SiteBags, index: int) -> tuple[np.ndarray, int]:
    """Mean features and label of a bag."""
    label = int(bags.entries[index].label == "malignant")
    return bags.load(index).features_ND.mean(axis=0), label


def line(method: str, readout: str, organ: str, values: list[float]) -> dict[str, object]:
    return {
        "method": method,
        "readout": readout,
        "organ": organ,
        "out_of_fold": round(float(np.mean(values)), 3),
        "by_seed": [round(v, 3) for v in values],
    }


if __name__ == "__main__":
    main()
