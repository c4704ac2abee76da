"""What goes with a network that is handed on: what it is, what it was trained on, what it is not.

Made of the files of the run alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayfed_hn.evaluation.markdown_cells import cell, interval, lines_of, number
from rayfed_hn.files import write_text
from rayfed_hn.reporting.privacy_file import read_privacy
from rayfed_hn.reporting.run_files import Run, read_run
from rayfed_hn.reporting.task_words import limits, predicted
from rayfed_hn.reporting.tested import read_tested, readout_of

FILE = "MODEL_CARD.md"
PRIVATE_PARTS = ("fedper", "pfedhn_pc")  # methods whose classifier never leaves its site


def write_model_card(
    folder: Path, run_folder: Path, site: str, file: Path, sha256: str, about: Mapping[str, Any]
) -> Path:
    """Write the card of one site's network.

    Args:
        folder: Where to.
        run_folder: The run directory of train.
        site: Whose network it is.
        file: The program.
        sha256: Of that file.
        about: What that file says of itself.

    Raises:
        DataError: A file of the run is missing or broken.
    """
    run = read_run(run_folder)
    parts = [
        f"# {cell(site)}: {cell(predicted(run))}",
        _what(run, site, file, sha256, about),
        "## Intended use\n\nResearch only. It is no medical device, was tested on what the table "
        "below says and nothing else, and must not decide about a patient.",
        _data(run, site, about),
        _metrics(run, site),
        _privacy(run, site),
        f"## Limits\n\n{limits(run.judge)} Slides of another scanner, stain, encoder, scale or "
        "kind of tissue were not tested.",
        "## License\n\nNot stated. To be filled in by those who own the data and the network "
        "before it is handed on; the license of the feature encoder holds beside it.",
        _loading(file, about),
    ]
    path = folder / FILE
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def trained_without_noise(run: Run) -> str | None:
    """Why the network of a site knows its bags without any noise; None if it does not.

    Received networks are made of released updates alone; what a site adds on its own ground is not
    released, and so not noised.
    """
    method, readout = str(run.summary["method"]), readout_of(run)
    mechanism = (run.summary.get("privacy") or {}).get("mechanism", "none")
    if method in ("local", "pooled"):
        return f"method {method} trains on the bags themselves and noises nothing"
    if method.endswith("_ft"):
        return "it was fine-tuned on the site's bags at the end, without noise"
    if mechanism == "none":
        return "updates of all sites were released as they are (privacy.mechanism=none)"
    if _scale(run) == "site":  # folded in, also where every step was noised
        return (
            "mean and deviation of every feature over the site's training bags, which never left "
            "it, are in the first layer as they are (model.standardise=site)"
        )
    if mechanism == "slide_dpsgd":
        return None
    if method in PRIVATE_PARTS:
        return "its classifier never left the site, and was trained there without noise"
    if readout == "mixture":
        return "the mixture holds averages of what the site trained before noise was added"
    return None


def _what(run: Run, site: str, file: Path, sha256: str, about: Mapping[str, Any]) -> str:
    rows = {
        "made by": about["made_by"],
        "network": f"{about['network']}: {run.about(readout_of(run))}",
        "method": f"{run.summary['method']}, {run.summary['num_versions']} versions",
        "model": f"{run.knob('model', 'name') or 'gated_attention'}, "
        f"{run.summary['num_parameters']:,} parameters",
        "input": f"{about['input']}: the tile features of one {about['unit']}, at least one tile, "
        "as they are in the bag store; they are standardised inside",
        "output": ", ".join(about["output"]),
    }
    told = [(name, cell(value)) for name, value in rows.items()]
    file_and_sum = f"`{file.name.replace('`', '')}`, SHA-256 `{sha256}`"
    return _table(("", ""), [("file", file_and_sum), *told])


def _data(run: Run, site: str, about: Mapping[str, Any]) -> str:
    header = ("site", "training", "validation", "test")
    rows = [
        (cell(one["site"]), *(str(one[f"num_{p}"]) for p in ("train", "validation", "test")))
        for one in run.summary["sites"]
    ]
    recipe = about.get("recipe")
    told = (
        "The bag store was not at hand when this was written; the recipe is in its `recipe.json`."
        if recipe is None
        else f"```json\n{json.dumps(recipe, indent=2, sort_keys=True)}\n```"
    )
    return (
        f"## Data\n\nBags ({cell(run.unit)}s) of every site of the federation; the network is "
        f"that of **{cell(site)}**.\n\n{_table(header, rows)}\n\n"
        "Features must come from the same encoder, scale and tiles: recipe SHA-256 "
        f"`{about['recipe_sha256']}`.\n\n{told}"
    )


def _metrics(run: Run, site: str) -> str:
    tested, name = read_tested(run, run.unit), run.judge.name
    rows = [
        (
            f"**{cell(one)}**" if one == site else cell(one),
            number(found.value),
            interval(found.low, found.high),
            str(len(found.columns.get("case", ()))),
        )
        for one, found in tested.items()
    ]
    note = (
        "Intervals: 95 %, of cases (Newcombe 2006)."
        if run.judge.kind == "binary"
        else f"No interval: we know of none of a {name} that holds for few cases."
    )
    whose = "every site's own network on its test bags"
    if run.summary["method"] == "pooled":
        whose = "the pooled network on the test bags of every site"
    return (
        f"## Metrics\n\n{name} of {whose}, readout {readout_of(run)}; one division "
        "of the cases.\n\n"
        f"{_table(('site', name, '95 % interval', 'test bags'), rows)}\n\n{note}"
    )


def _privacy(run: Run, site: str) -> str:
    why, found = trained_without_noise(run), read_privacy(run.folder)
    if why is not None:
        first = (
            f"**This network was trained at {cell(site)} without noise**: {why}. To hand it on is "
            "a release of its own, which no mechanism of the run covers: who has it can test "
            "whether a slide was trained on."
        )
    else:
        first = "This network is made of what sites released under the mechanism of the run"
        if _scale(run) == "shared":
            first += (
                ", and has the mean and deviation of every feature in its first layer, which sites "
                "released once without noise"
            )
        first += "."
        if readout_of(run) != "last":
            first += (
                " Which version, or which mixture of networks, was chosen on the validation bags; "
                "that choice is not covered."
            )
    if found is None:
        return f"## Privacy\n\n{first}\n\nThe run has no `privacy.json`."
    lists = {
        "The run promises": found.in_words,
        "To be known": found.warnings,
        "Left a site without noise": found.released,
        "Not covered": found.outside,
    }
    told = [
        f"{title}:\n\n" + "\n".join(f"- {cell(t)}" for t in x) for title, x in lists.items() if x
    ]
    return "\n\n".join([f"## Privacy\n\n{first}", *told])


def _scale(run: Run) -> str:
    """Who measured what features are standardised by: ``shared``, ``site`` or ``none``."""
    return run.summary.get("standardise") or run.knob("model", "standardise") or "shared"


def _loading(file: Path, about: Mapping[str, Any]) -> str:
    return (
        "## Use\n\nA program of `torch.export` can run what its author wants: load it only from "
        "somebody you trust, and compare its SHA-256.\n\n"
        "```python\n"
        "import torch\n"
        f'program = torch.export.load("{file.name}").module()\n'
        f"features = torch.randn(1000, {about['input'].split()[-1].rstrip(')')})  "
        "# one row a tile, of the recipe above\n"
        f"names = {about['output']!r}\n"
        "print(dict(zip(names, program(features).tolist())))\n"
        "```"
    )


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(lines_of(header, rows))
