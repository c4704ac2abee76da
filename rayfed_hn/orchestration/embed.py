"""Embeds the slides of a manifest over a cluster, with Ray Data.

A row is one slide, its names and path and never its pixels: a worker reads, encodes and writes the
whole bag, so nothing large passes through the object store and a slide is done or not done.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from rayfed_hn.bags import store
from rayfed_hn.config import Config, EmbedConfig
from rayfed_hn.errors import ConfigError, DataError, SetAside
from rayfed_hn.loading import require
from rayfed_hn.slides import embedding
from rayfed_hn.slides.encoders import TileEncoder, make_encoder
from rayfed_hn.slides.manifest import SlideRecord, read_manifest
from rayfed_hn.slides.outcome import EmbedReport, SlideOutcome, write_set_aside

# glibc gives large blocks back to the system at every free and faults them in again at the next
# tile. These limits let a worker keep them.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_TOP_PAD_": str(2**26),
}
FEATURE_FILES_PER_TASK = 32
MAX_ATTEMPTS = 2  # of a slide whose worker died; the machine may have been to blame once

EncoderFactory = Callable[[EmbedConfig, str], TileEncoder]


def embed(
    config: Config,
    on_slide: Callable[[SlideOutcome], None] = lambda outcome: None,
    encoder_factory: EncoderFactory = make_encoder,
) -> EmbedReport:
    """Bring the bag store up to date with the manifest. Ray must be connected.

    Args:
        config: ``data.manifest``, ``data.root``, ``data.bags``, ``embed`` and ``resources``.
        on_slide: Called here with every slide as it is done, in order of completion.
        encoder_factory: Makes the encoder of a worker from ``config.embed`` and a torch device.

    Returns:
        What became of every slide; ``set_aside.csv`` in the store lists those set aside.

    Raises:
        DataError: The manifest or the store as a whole cannot be used.
        ConfigError: The encoder cannot be made.
    """
    started = time.monotonic()
    records = _records(config)
    root = Path(require(config.data.bags, "data.bags", "give the folder to write bags to"))
    imported = any(embedding.holds_features(record) for record in records)
    if imported:
        made_by = embedding.imported_recipe(records)
    else:
        made_by = embedding.recipe(config.embed, encoder_factory(config.embed, "cpu"))
    store.create(root, made_by)
    _refuse_moved(root, records)

    outcomes: dict[str, SlideOutcome] = {}
    for outcome in _run(root, records, imported, config, encoder_factory):
        outcomes[outcome.slide_id] = outcome
        on_slide(outcome)
    report = EmbedReport([outcomes[record.slide_id] for record in records])
    write_set_aside(root / "set_aside.csv", report.set_aside)
    report.seconds = time.monotonic() - started
    return report


def _records(config: Config) -> list[SlideRecord]:
    manifest = require(config.data.manifest, "data.manifest", "give the CSV that lists the slides")
    return read_manifest(manifest, config.data.root)


def _run(
    root: Path,
    records: Sequence[SlideRecord],
    imported: bool,
    config: Config,
    encoder_factory: EncoderFactory,
) -> Iterator[SlideOutcome]:
    """Yield the outcome of every record: first those that are done already."""
    todo: dict[str, SlideRecord] = {}
    for record in records:
        outcome = _done_before(root, record)
        if outcome is None:
            todo[record.slide_id] = record
        else:
            yield outcome
    if not todo:
        return
    factory = None if imported else encoder_factory
    with _attempts_folder(root) as attempts:
        for outcome in _run_on_ray(root, attempts, list(todo.values()), config, factory):
            if todo.pop(outcome.slide_id, None):
                yield outcome
    for record in todo.values():
        yield _lost(record)


@contextmanager
def _attempts_folder(root: Path) -> Iterator[Path]:
    """A folder where workers note which slide they are at; what a killed run left is cleared."""
    for old in root.glob(".attempts-*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=".attempts-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lost(record: SlideRecord) -> SlideOutcome:
    return SlideOutcome(
        record.slide_id,
        record.site,
        "set_aside",
        reason="the worker that read it died",
        remedy="look at the slide and at the machine's memory, then embed again",
    )


def _done_before(root: Path, record: SlideRecord) -> SlideOutcome | None:
    """Return an outcome if the store has the slide; its case and label are brought up to date."""
    entry = store.find_entry(root, record.site, record.slide_id)
    if entry is None or record.mpp not in (None, entry.mpp):
        return None
    if (entry.case_id, entry.label) != (record.case_id, record.label):
        bag = store.SiteBags(root, record.site)
        index = [e.slide_id for e in bag.entries].index(record.slide_id)
        store.write(root, replace(bag.load(index), case_id=record.case_id, label=record.label))
    return SlideOutcome(record.slide_id, record.site, "skipped", entry.num_tiles)


def _refuse_moved(root: Path, records: Sequence[SlideRecord]) -> None:
    """A slide that changed its site must not be trained on at both."""
    home = {record.slide_id: record.site for record in records}
    for path in root.glob("site=*/*.arrow"):
        site = path.parent.name.removeprefix("site=")
        if home.get(path.stem, site) != site:
            raise DataError(
                f"slide {path.stem!r} is of site {home[path.stem]!r} in the manifest, but the "
                f"store has it under site {site!r}; delete {path}, or give data.bags another folder"
            )


class _SlideWorker:
    """Lives in a Ray worker: makes the encoder once, then one bag after the other."""

    def __init__(
        self, root: Path, attempts: Path, config: Config, factory: EncoderFactory | None
    ) -> None:
        self._root = root
        self._attempts = attempts
        self._config = config.embed
        device = _device(config.resources.gpus_per_encoder)
        self._encoder = factory and factory(config.embed, device)
        digest = self._encoder and self._encoder.digest
        self._as_agreed = digest == store.read_recipe(root).get("encoder_digest")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        records = [
            SlideRecord(
                str(batch["slide_id"][i]),
                Path(str(batch["path"][i])),
                str(batch["case_id"][i]),
                str(batch["site"][i]),
                str(batch["label"][i]),
                None if np.isnan(batch["mpp"][i]) else float(batch["mpp"][i]),
            )
            for i in range(len(batch["slide_id"]))
        ]
        rows = [asdict(self._attempt(record)) for record in records]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _attempt(self, record: SlideRecord) -> SlideOutcome:
        """Embed a slide, unless that has killed a worker too often.

        Ray gives a task whose worker died to the next worker, for ever.
        """
        for number in range(MAX_ATTEMPTS):
            marker = self._attempts / f"{record.slide_id}.{number}"
            if not marker.exists():
                marker.touch()
                outcome = self._embed(record)
                marker.unlink()
                return outcome
        return _lost(record)

    def _embed(self, record: SlideRecord) -> SlideOutcome:
        started = time.monotonic()
        num_tiles, reason, remedy = 0, "", ""
        try:
            if not self._as_agreed:
                raise SetAside(
                    "the worker's encoder is not the one of the recipe",
                    "install the same rayfed_hn and weights on every machine of the cluster",
                )
            bag = embedding.embed_slide(record, self._encoder, self._config)
            store.write(self._root, bag)
            num_tiles = len(bag)
        except SetAside as error:
            reason, remedy = error.reason, error.remedy
        except DataError as error:
            reason, remedy = str(error), "see the message"
        except Exception as error:
            # Its text could hold a path or a name, so only its type leaves the worker.
            reason = f"unexpected error {type(error).__name__}"
            remedy = "embed it alone to see more, and report it"
        status = "set_aside" if reason else "embedded"
        seconds = time.monotonic() - started
        return SlideOutcome(
            record.slide_id, record.site, status, num_tiles, seconds, reason, remedy
        )


def _device(gpus: float) -> str:
    if gpus == 0:  # and torch, which takes seconds to import, may not be needed at all
        return "cpu"
    import torch

    # Ray may hand out a GPU that this torch cannot use.
    return "cuda" if torch.cuda.is_available() else "cpu"


def _run_on_ray(
    root: Path,
    attempts: Path,
    records: Sequence[SlideRecord],
    config: Config,
    factory: EncoderFactory | None,
) -> Iterator[SlideOutcome]:
    """Yield the outcomes as they come."""
    _silence_ray_data()
    slides_per_task = 1 if factory else FEATURE_FILES_PER_TASK
    num_tasks = -(-len(records) // slides_per_task)
    gpus = config.resources.gpus_per_encoder if factory else 0.0
    rows = ray.data.from_items([_row(r) for r in records], override_num_blocks=num_tasks)
    outcomes = rows.map_batches(
        _SlideWorker,
        batch_size=slides_per_task,
        fn_constructor_args=(root.resolve(), attempts.resolve(), config, factory),
        compute=ray.data.ActorPoolStrategy(size=min(num_tasks, _num_workers(config, gpus))),
        num_cpus=1,
        num_gpus=gpus,
        runtime_env={"env_vars": WORKER_ENVIRONMENT},
    )
    for row in outcomes.iter_rows():
        yield SlideOutcome(**row)


def _row(record: SlideRecord) -> dict[str, Any]:
    mpp = np.nan if record.mpp is None else record.mpp
    return asdict(record) | {"path": str(record.path), "mpp": mpp}


def _num_workers(config: Config, gpus_per_worker: float) -> int:
    """Return how many workers fit on the cluster; one too many would wait for ever."""
    have = ray.cluster_resources()
    cpus = max(1, int(have.get("CPU", 1)))
    fit = min(cpus, config.resources.cpus or cpus)
    if gpus_per_worker == 0:
        return fit
    gpus = int(have.get("GPU", 0))
    if gpus < 1:
        raise ConfigError(
            f"resources.gpus_per_encoder: {gpus_per_worker:g} asked for, but the cluster has no "
            "GPU; set it to 0"
        )
    return min(fit, gpus * int(1 / gpus_per_worker))


def _silence_ray_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    # A block that Ray loses for its own reasons is missed in the end, and takes nothing along.
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
