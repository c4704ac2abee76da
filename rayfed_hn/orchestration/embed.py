"""Embeds the slides of a manifest over a cluster, with Ray Data.

A row is one slide, its names and path and never its pixels: a worker reads, encodes and writes the
whole bag, so nothing large passes through the object store and a slide is done or not done.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data

from rayfed_hn.bags import store
from rayfed_hn.config import Config
from rayfed_hn.errors import ConfigError
from rayfed_hn.loading import require
from rayfed_hn.orchestration.metrics import EmbedMetrics
from rayfed_hn.orchestration.packing import Cluster
from rayfed_hn.orchestration.planned import of_workers
from rayfed_hn.orchestration.slide_worker import EncoderFactory, SlideWorker, lost
from rayfed_hn.orchestration.store_nodes import check_nodes
from rayfed_hn.orchestration.waiting import wait_for_a_place
from rayfed_hn.rooms import Node
from rayfed_hn.slides import embedding
from rayfed_hn.slides.encoder_card import EncoderCard, describe, scale_notes
from rayfed_hn.slides.encoders import make_encoder
from rayfed_hn.slides.isolation import KEEP_MEMORY, IsolatedReader
from rayfed_hn.slides.manifest import SlideRecord, read_manifest
from rayfed_hn.slides.outcome import EmbedReport, SlideOutcome, write_set_aside
from rayfed_hn.slides.site_sheets import write_site_sheets
from rayfed_hn.slides.worklist import Job, find_work, not_in_manifest
from rayfed_hn.storage.elsewhere import collect, forget_marks, offer

FEATURE_FILES_PER_TASK = 32
ATTEMPTS = ".attempts-"  # how the names of folders with marks begin


def embed(
    config: Config,
    on_slide: Callable[[SlideOutcome, float], None] = lambda outcome, share: None,
    encoder_factory: EncoderFactory = make_encoder,
    *,
    retry: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> EmbedReport:
    """Bring the bag store up to date with the manifest. Ray must be connected.

    Args:
        config: ``data.manifest``, ``data.root``, ``data.bags``, ``embed`` and ``resources``.
        on_slide: Called here with every slide as it is done, in order of completion, and with
            the share of the work that is done by then, measured in bytes of slides.
        encoder_factory: Makes the encoder of a worker from ``config.embed`` and a torch device.
        retry: Take slides again that were set aside in an earlier run.
        say: Called with what the user should know of the encoder.

    Returns:
        What became of every slide; ``set_aside.csv`` in the store lists those set aside.

    Raises:
        DataError: The manifest or the store as a whole cannot be used.
        ConfigError: The encoder cannot be made.
        NoRoom: No worker found room on the cluster in time.
    """
    started = time.monotonic()
    manifest = require(config.data.manifest, "data.manifest", "give the CSV that lists the slides")
    records = read_manifest(manifest, config.data.root)
    root = Path(require(config.data.bags, "data.bags", "give the folder to write bags to"))
    imported = any(embedding.holds_features(record) for record in records)
    recipe = _recipe(records, imported, config, encoder_factory, say)
    with store.locked(root):
        store.create(root, recipe)
        outcomes: dict[str, SlideOutcome] = {}
        factory, metrics = None if imported else encoder_factory, EmbedMetrics(root.name)
        for outcome, share in _run(root, records, config, factory, retry):
            outcomes[outcome.slide_id] = outcome
            metrics.tell(outcome)
            on_slide(outcome, share)
        report = _report(root, records, outcomes, config.embed.pictures and not imported)
    report.seconds = time.monotonic() - started
    return report


def _report(
    root: Path, records: Sequence[SlideRecord], outcomes: Mapping[str, SlideOutcome], pictures: bool
) -> EmbedReport:
    """What became of all slides, also beside their bags."""
    ordered = [outcomes[record.slide_id] for record in records]
    report = EmbedReport(ordered, not_in_manifest(root, records), pictures)
    write_set_aside(root / "set_aside.csv", report.set_aside)
    if pictures:
        write_site_sheets(root, records, report)
    return report


def _recipe(
    records: Sequence[SlideRecord],
    imported: bool,
    config: Config,
    encoder_factory: EncoderFactory,
    say: Callable[[str], None],
) -> dict[str, Any]:
    if imported:
        with closing(IsolatedReader(config.embed)) as reader:
            return embedding.imported_recipe(records, reader.describe_features)
    # The workers' device, which this machine need not have: its precision is part of the recipe.
    device = "cuda" if config.resources.gpus_per_encoder else "cpu"
    encoder = encoder_factory(config.embed, device)
    if isinstance(card := getattr(encoder, "card", None), EncoderCard):
        say(describe(card))
        for note in scale_notes(card, config.embed):
            say(f"note: {note}")
    return embedding.recipe(config.embed, encoder)


def _run(
    root: Path,
    records: Sequence[SlideRecord],
    config: Config,
    factory: EncoderFactory | None,
    retry: bool,
) -> Iterator[tuple[SlideOutcome, float]]:
    """Yield the outcome of every record, first what is known, and the share of work done."""
    pictures = config.embed.pictures and factory is not None
    jobs, known = find_work(root, records, retry=retry, pictures=pictures)
    yield from ((outcome, 0.0) for outcome in known)
    if not jobs:
        return
    size = {job.record.slide_id: _size(job.record.path) for job in jobs}
    jobs.sort(key=lambda job: -size[job.record.slide_id])  # the longest must not start last
    todo = {job.record.slide_id: job for job in jobs}
    total, done = sum(size.values()), 0
    with _attempts_folder(root) as attempts:
        offer(root)
        check_nodes(root, attempts)
        for outcome in _run_on_ray(root, attempts, jobs, config, factory):
            if todo.pop(outcome.slide_id, None):
                done += size[outcome.slide_id]
                yield outcome, done / total
        collect(root)
    for job in todo.values():
        yield lost(root, job), 1.0


def _size(path: Path) -> int:
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1


@contextmanager
def _attempts_folder(root: Path) -> Iterator[Path]:
    """A folder where workers note which slide they are at; what a killed run left is cleared."""
    forget_marks(root, ATTEMPTS)
    for old in root.glob(f"{ATTEMPTS}*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=root, prefix=ATTEMPTS))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        forget_marks(root, ATTEMPTS)


def _run_on_ray(
    root: Path,
    attempts: Path,
    jobs: Sequence[Job],
    config: Config,
    factory: EncoderFactory | None,
) -> Iterator[SlideOutcome]:
    """Yield the outcomes as they come."""
    _silence_ray_data()
    slides_per_task = 1 if factory else FEATURE_FILES_PER_TASK
    num_tasks = -(-len(jobs) // slides_per_task)
    gpus = config.resources.gpus_per_encoder if factory else 0.0
    num_workers = min(num_tasks, _num_workers(config, gpus))
    wait_for_a_place(config, "worker that embeds slides", gpus)
    rows = ray.data.from_items([job.row() for job in jobs], override_num_blocks=num_tasks)
    outcomes = rows.map_batches(
        SlideWorker,
        batch_size=slides_per_task,
        fn_constructor_args=(root.resolve(), attempts.resolve(), config, factory),
        compute=ray.data.ActorPoolStrategy(
            min_size=num_workers,
            max_size=num_tasks if config.resources.autoscaling else num_workers,
            initial_size=num_workers,
            max_concurrent_calls_per_actor=config.embed.slides_in_flight,
            max_tasks_in_flight_per_actor=config.embed.slides_in_flight,
            enable_true_multi_threading=True,
        ),
        num_cpus=1,
        num_gpus=gpus,
        runtime_env={"env_vars": KEEP_MEMORY},
    )
    for row in outcomes.iter_rows():
        yield SlideOutcome(**row)


def placement(config: Config, records: Sequence[SlideRecord]) -> str:
    """What slides will be embedded with, in a line for people.

    Raises:
        ConfigError: Not even one worker fits.
    """
    imported = any(embedding.holds_features(record) for record in records)
    gpus = 0.0 if imported else config.resources.gpus_per_encoder
    count = len(records)
    workers = min(count, _num_workers(config, gpus))
    return of_workers(count, "slides", workers, gpus, Cluster.joined(config))


def _num_workers(config: Config, gpus_per_worker: float) -> int:
    """How many workers fit on the cluster, node by node; one too many would wait for ever.

    Raises:
        ConfigError: Not even one.
    """
    cluster = Cluster.joined(config)
    fits = sum(_fit(node, gpus_per_worker) for node in cluster.nodes)
    if fits or config.resources.autoscaling:
        return max(1, min(fits, cluster.cpus))
    what = f"1 CPU and {gpus_per_worker:g} GPU" if gpus_per_worker else "1 CPU"
    lacking = "the cluster has no GPU" if not cluster.gpus else "no node of the cluster has both"
    remedy = "set resources.gpus_per_encoder=0, or add such a node"
    if not gpus_per_worker:
        lacking, remedy = "no node of the cluster has one", "add nodes"
    raise ConfigError(
        f"resources.gpus_per_encoder: each worker needs {what}, but {lacking}; {remedy} "
        "(resources.autoscaling=true if the cluster adds nodes by itself)"
    )


def _fit(node: Node, gpus_per_worker: float) -> int:
    by_gpu = node.gpus * int(round(1 / gpus_per_worker, 6)) if gpus_per_worker else math.inf
    return int(min(node.cpus, by_gpu))


def _silence_ray_data() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    # Workers are given no more than they can do at once, so that 1 is as busy as they get.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    # A block that Ray loses for its own reasons is missed in the end, and takes nothing along.
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
