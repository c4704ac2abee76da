"""Training runs of every mechanism, whose updates say of themselves what is made up here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from fake_runs import make_train_run

from rayfed_hn.errors import BudgetSpent
from rayfed_hn.federation.privacy_record import write_privacy
from rayfed_hn.federation.promises import make_mechanism, noise_multiplier, promise
from rayfed_hn.loading import load
from rayfed_hn.privacy.accounting import epsilon_of
from rayfed_hn.privacy.mechanisms import NoNoise

NUM_PARAMETERS = 788_739
VERSIONS = 12
WORDS: dict[str, tuple[str, ...]] = {
    "paper": ("privacy.noise_scale=0.1",),
    "none": ("privacy.mechanism=none",),
    "site_ldp": ("privacy.mechanism=site_ldp", "privacy.target_epsilon=8"),
    "slide_dpsgd": (
        *("privacy.mechanism=slide_dpsgd", "privacy.noise_multiplier=1.5"),
        *("training.class_balanced=false", "training.steps=5"),
    ),
}
SPENT = f"{BudgetSpent.told}; site.log beside its bags says why"
Source = Literal["os", "seeded"]


def make_private_run(
    folder: Path,
    mechanism: str = "site_ldp",
    *,
    source: Source = "os",
    method: str = "hypernetwork",
    words: Sequence[str] = (),
) -> Path:
    """A training run with ``privacy.json``; its first site stopped at version 5: budget spent."""
    make_train_run(folder)
    config = load(
        None,
        [
            *WORDS[mechanism],
            *(f"rounds.num_versions={VERSIONS}", f"method.name={method}", *words),
        ],
    )
    made = make_mechanism(config.privacy, noise_multiplier(config))
    if method in ("local", "pooled"):
        made = NoNoise()
    summary = read(folder, "summary.json")
    summary |= {
        "privacy": promise(config, made, source, NUM_PARAMETERS, 10),
        "method": method,
        "lost_sites": [{"site": summary["sites"][0]["site"], "version": 5, "reason": SPENT}],
    }
    for site in summary["sites"]:
        site["num_training_cases"] = site["num_train"] // 2
    spent = made.spent(config.training.steps)
    withheld = config.privacy.metrics == "withheld"
    records = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = []
    for number, site in enumerate(summary["sites"]):
        own = [r for r in records if r["site"] == site["site"]]
        for record in own[: 5 if number == 0 else None]:
            # The second site has charged for an answer that came too late.
            releases = record["made"] + int(number == 1 and record["made"] > 3)
            says: dict[str, Any] = {"signal_to_noise": None, "clipped": None}
            if summary["privacy"]["mechanism"] != "none" and not withheld:
                says["signal_to_noise"] = 1e-4 * (1 + number) * (1 + record["made"])
            if spent is not None and not withheld:
                says["clipped"] = float(record["made"] % 4 > 0)
            says |= {"releases": 0 if spent is None else releases, "epsilon": None}
            if spent is not None:
                says["epsilon"] = epsilon_of([spent] * releases, config.privacy.target_delta)
            kept.append(record | says)
    write(folder, "summary.json", summary)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    write_privacy(folder, summary)
    return folder


def read(folder: Path, name: str = "privacy.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def write(folder: Path, name: str, values: Any) -> None:
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


def change(folder: Path, **changes: Any) -> None:
    """Change the summary, and say anew what follows from it."""
    summary = read(folder, "summary.json") | changes
    write(folder, "summary.json", summary)
    write_privacy(folder, summary)
