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
from rayfed_hn.errors import ConfigError, DataError, SetAside, StorageError
from rayfed_hn.slides.embedding import encode_reading
from rayfed_hn.slides.encoders import TileEncoder
from rayfed_hn.slides.isolation import IsolatedReader
from rayfed_hn.slides.outcome import SlideOutcome
from rayfed_hn.slides.worklist import Job, files_of, make_folder, picture_path, put_aside
from rayfed_hn.storage.elsewhere import StoreElsewhere, StoreHere, store_of

MAX_ATTEMPTS = 3  # of a slide whose worker died; the machine may have been to blame once

EncoderFactory = Callable[[EmbedConfig, str], TileEncoder]


class SlideWorker:
    """Lives in a Ray actor and is called from several threads, each with a slide of its own.

    Reading is isolated in other processes; what can still kill this one is the encoder. So every
    attempt leaves a mark, and a slide that was under way when a worker died is tried again alone.

    Args:
        root: The bag store.
        attempts: Folder of the marks, below the store's.
        config: ``embed`` and ``resources``.
        factory: Makes the encoder; None imports features.
    """

    def __init__(
        self, root: Path, attempts: Path, config: Config, factory: EncoderFactory | None
    ) -> None:
        self._root = root
        self._attempts = attempts.name
        self._config = config.embed
        self._encoder: TileEncoder | None = None
        self._no_encoder = self._no_store = ""
        self._free: SimpleQueue[IsolatedReader] = SimpleQueue()
        self._store: StoreHere | StoreElsewhere | None = None
        try:
            self._store = store_of(root, attempts)
        except StorageError as error:  # raised here it would be Ray's, over and over
            self._no_store = str(error)
        if self._store is None:
            return
        try:
            device = _device(config.resources.gpus_per_encoder)
            self._encoder = factory and factory(config.embed, device)
        except ConfigError as error:
            self._no_encoder = str(error)
        digest = self._encoder and self._encoder.digest
        self._as_agreed = digest == store.read_recipe(root).get("encoder_digest")
        self._encoder_turn = threading.Lock()
        self._taking = threading.Lock()
        self._places = config.embed.slides_in_flight
        for _ in range(self._places):
            self._free.put(IsolatedReader(config.embed))

    def close(self) -> None:
        """End its other processes; they end with this one in any case."""
        while not self._free.empty():
            self._free.get().close()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Do a batch of jobs, rows in and rows out."""
        numbers = range(len(batch["slide_id"]))
        jobs = [Job.of({name: column[i] for name, column in batch.items()}) for i in numbers]
        rows = [asdict(self._outcome(job)) for job in jobs]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _outcome(self, job: Job) -> SlideOutcome:
        """Do a job, if there is a place for what comes of it."""
        if self._store is None:
            return _unstored(job, self._no_store or "this node has no disk that the store is on")
        try:
            return self._attempt(job, self._store)
        except StorageError as error:
            return _unstored(job, str(error))

    def _attempt(self, job: Job, place: StoreHere | StoreElsewhere) -> SlideOutcome:
        """Do a job, unless that has killed a worker too often.

        Ray gives a task whose worker died to the next worker, for ever.
        """
        names = files_of(job.record)
        place.bring(names)
        for number in range(MAX_ATTEMPTS):
            mark = f"{self._attempts}/{job.record.slide_id}.{number}"
            if not place.is_marked(mark):
                with self._reader(alone=number > 0) as reader:
                    place.set_mark(mark)
                    outcome = self._do(job, reader)
                break
        else:
            mark, outcome = None, lost(self._root, job)
        place.send(names)
        if mark is not None:
            place.clear_mark(mark)
        return outcome

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
        outcome = self._draw(job, reader) if job.draw_only else self._bag(job, reader)
        return replace(outcome, seconds=time.monotonic() - started)

    def _bag(self, job: Job, reader: IsolatedReader) -> SlideOutcome:
        """Write the bag of a slide, or say why there is none."""
        record = job.record
        if self._no_encoder:
            reason = f"the encoder cannot be made on a worker: {self._no_encoder}"
            return put_aside(self._root, job, reason, "see the message", lasting=False)
        if not self._as_agreed:
            return put_aside(self._root, job, *_OTHER_ENCODER, lasting=False)
        try:
            num_tiles, notes = self._write_bag(job, reader)
        except SetAside as error:
            return put_aside(self._root, job, error.reason, error.remedy)
        except DataError as error:
            return put_aside(self._root, job, str(error), "see the message")
        except ConfigError as error:  # a GPU without enough memory, for one
            return put_aside(self._root, job, str(error), "see the message", lasting=False)
        except OSError as error:
            reason = f"the bag store cannot be written ({error.strerror})"
            return put_aside(self._root, job, reason, "look at its disk", lasting=False)
        except Exception as error:
            # Its text could hold a path or a name, so only its type leaves the worker.
            reason = f"unexpected error {type(error).__name__}"
            return put_aside(self._root, job, reason, "look at the slide, and report this")
        set_aside.forget(self._root, record.site, record.slide_id)
        return SlideOutcome(record.slide_id, record.site, "embedded", num_tiles, notes=notes)

    def _write_bag(self, job: Job, reader: IsolatedReader) -> tuple[int, tuple[str, ...]]:
        """Write the bag; returns its number of tiles and what the user should know."""
        record, source = job.record, job.source
        if self._encoder is None:
            make_folder(self._root, record)
            return reader.import_features(record, source, self._root), ()
        drawing = picture_path(self._root, record)
        drawing.unlink(missing_ok=True)  # one of another file must not stand beside this bag
        if self._config.pictures:
            make_folder(self._root, record, "pictures")
        picture = drawing if self._config.pictures else None
        with reader.open_reading(record, source, picture) as reading:
            bag = encode_reading(record, source, reading, self._encoder, self._encoder_turn)
        store.write(self._root, bag)
        return len(bag), reading.found.notes

    def _draw(self, job: Job, reader: IsolatedReader) -> SlideOutcome:
        """Draw a slide whose bag is there; no failure is a reason to lose the bag."""
        record, notes = job.record, ()
        try:
            make_folder(self._root, record, "pictures")
            reader.draw(record, job.source, picture_path(self._root, record))
        except SetAside as error:
            notes = (f"could not be drawn: {error.reason}",)
        except Exception as error:
            notes = (f"could not be drawn ({type(error).__name__})",)
        return replace(kept(self._root, job), notes=notes)


_OTHER_ENCODER = (
    "the worker's encoder is not the one of the recipe",
    "install the same rayfed_hn and weights on every machine of the cluster, and a torch that "
    "finds its GPU if resources.gpus_per_encoder is above 0",
)


def _unstored(job: Job, why: str) -> SlideOutcome:
    """A slide that could not be filed, which is not its fault: it is taken again the next time."""
    remedy = (
        "let data.bags be a folder that all nodes share, or an address in object storage that all "
        "of them can reach, and give the same command again"
    )
    names = job.record.slide_id, job.record.site
    return SlideOutcome(*names, "set_aside", reason=f"nowhere to put its bag: {why}", remedy=remedy)


def kept(root: Path, job: Job) -> SlideOutcome:
    """A slide whose bag stays as it is."""
    entry = store.find_entry(root, job.record.site, job.record.slide_id)
    num_tiles = entry.num_tiles if entry else 0
    return SlideOutcome(job.record.slide_id, job.record.site, "skipped", num_tiles)


def lost(root: Path, job: Job) -> SlideOutcome:
    """What became of a slide whose workers died, or of which Ray lost the news."""
    record = job.record
    entry = store.find_entry(root, record.site, record.slide_id)
    if job.draw_only:
        return replace(kept(root, job), notes=("could not be drawn: its worker died",))
    if entry is not None and entry.source_sha256 == job.source:
        return SlideOutcome(record.slide_id, record.site, "embedded", entry.num_tiles)
    remedy = "look at the slide and at the machine's memory, then embed with --retry"
    return put_aside(root, job, "the worker that encoded it died", remedy)


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
