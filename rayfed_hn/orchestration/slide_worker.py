"""The Ray worker that embeds slides: one encoder, and a few processes that read ahead for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from rayfed_hn.bags import set_aside, store
from rayfed_hn.config import Config, EmbedConfig
from rayfed_hn.errors import ConfigError, DataError, SetAside
from rayfed_hn.slides import embedding
from rayfed_hn.slides.encoders import TileEncoder
from rayfed_hn.slides.isolation import IsolatedReader
from rayfed_hn.slides.manifest import SlideRecord
from rayfed_hn.slides.outcome import SlideOutcome
from rayfed_hn.slides.worklist import Job, picture_path, put_aside

MAX_ATTEMPTS = 3  # of a slide whose worker died; the machine may have been to blame once

EncoderFactory = Callable[[EmbedConfig, str], TileEncoder]


class SlideWorker:
    """Lives in a Ray actor and is called from several threads, each with a slide of its own.

    Reading is isolated in other processes; what can still kill this one is the encoder. So every
    attempt leaves a mark, and a slide that was under way when a worker died is tried again alone.

    Args:
        root: The bag store.
        attempts: Folder of the marks, shared by all workers.
        config: ``embed`` and ``resources``.
        factory: Makes the encoder; None imports features.
    """

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
        self._encoder_turn = threading.Lock()
        self._taking = threading.Lock()
        self._places = config.embed.slides_in_flight
        self._free: SimpleQueue[IsolatedReader] = SimpleQueue()
        for _ in range(self._places):
            self._free.put(IsolatedReader(config.embed))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Do a batch of jobs, rows in and rows out."""
        numbers = range(len(batch["slide_id"]))
        jobs = [Job.of({name: column[i] for name, column in batch.items()}) for i in numbers]
        rows = [asdict(self._attempt(job)) for job in jobs]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _attempt(self, job: Job) -> SlideOutcome:
        """Do a job, unless that has killed a worker too often.

        Ray gives a task whose worker died to the next worker, for ever.
        """
        for number in range(MAX_ATTEMPTS):
            marker = self._attempts / f"{job.record.slide_id}.{number}"
            if not marker.exists():
                with self._reader(alone=number > 0) as reader:
                    marker.touch()
                    outcome = self._do(job, reader)
                marker.unlink()
                return outcome
        return lost(self._root, job.record)

    @contextmanager
    def _reader(self, alone: bool) -> Iterator[IsolatedReader]:
        """Take one of the readers, or all of them so that no other slide is under way."""
        with self._taking:
            taken = [self._free.get() for _ in range(self._places if alone else 1)]
        try:
            yield taken[0]
        finally:
            for reader in taken:
                self._free.put(reader)

    def _do(self, job: Job, reader: IsolatedReader) -> SlideOutcome:
        started = time.monotonic()
        try:
            outcome = self._draw(job, reader) if job.draw_only else self._bag(job, reader)
        except SetAside as error:
            outcome = put_aside(self._root, job.record, error.reason, error.remedy)
        except (ConfigError, DataError) as error:  # a GPU without enough memory, for one
            outcome = put_aside(self._root, job.record, str(error), "see the message")
        except Exception as error:
            # Its text could hold a path or a name, so only its type leaves the worker.
            reason = f"unexpected error {type(error).__name__}"
            remedy = "embed it alone to see more, and report it"
            outcome = put_aside(self._root, job.record, reason, remedy)
        return replace(outcome, seconds=time.monotonic() - started)

    def _bag(self, job: Job, reader: IsolatedReader) -> SlideOutcome:
        """Write the bag of a slide."""
        record, notes = job.record, ""
        if not self._as_agreed:
            raise SetAside(
                "the worker's encoder is not the one of the recipe",
                "install the same rayfed_hn and weights on every machine of the cluster, and a "
                "torch that finds its GPU if gpus_per_encoder is above 0; then embed with --retry",
            )
        if self._encoder is None:
            num_tiles = reader.import_features(record, self._root)
        else:
            picture = picture_path(self._root, record) if self._config.pictures else None
            with reader.open_reading(record, picture) as reading:
                bag = embedding.encode_reading(record, reading, self._encoder, self._encoder_turn)
            store.write(self._root, bag)
            num_tiles, notes = len(bag), "; ".join(reading.found.notes)
        set_aside.forget(self._root, record.site, record.slide_id)
        return SlideOutcome(record.slide_id, record.site, "embedded", num_tiles, notes=notes)

    def _draw(self, job: Job, reader: IsolatedReader) -> SlideOutcome:
        """Draw a slide whose bag is there; a failure is no reason to lose the bag."""
        record, notes = job.record, ""
        try:
            reader.draw(record, picture_path(self._root, record))
        except SetAside as error:
            notes = f"could not be drawn: {error.reason}"
        entry = store.find_entry(self._root, record.site, record.slide_id)
        num_tiles = entry.num_tiles if entry else 0
        return SlideOutcome(record.slide_id, record.site, "skipped", num_tiles, notes=notes)


def lost(root: Path, record: SlideRecord) -> SlideOutcome:
    """What became of a slide whose workers died."""
    remedy = "look at the slide and at the machine's memory, then embed with --retry"
    return put_aside(root, record, "the worker that encoded it died", remedy)


def _device(gpus: float) -> str:
    if gpus == 0:  # and torch, which takes seconds to import, may not be needed at all
        return "cpu"
    import torch

    # Ray may hand out a GPU that this torch cannot use.
    if not torch.cuda.is_available():
        return "cpu"
    # Ray only keeps count of fractions; this keeps workers out of each other's memory.
    torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
    return "cuda"
