"""Some participants of a run in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from rayfed_hn.errors import StorageError
from rayfed_hn.federation.failures import failure_message
from rayfed_hn.federation.messages import Request, TrainRequest
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site import Begun, Site, note_failure
from rayfed_hn.federation.wire import Message
from rayfed_hn.kept_memory import keep_memory
from rayfed_hn.models.cohort import Job, train_cohort
from rayfed_hn.models.training import Trained
from rayfed_hn.points import SITE_ANSWERED, reached
from rayfed_hn.storage.elsewhere import Share, bring_bags

TOGETHER = 64  # sites that train together at most, so that the first need not wait for the last
BATCH_SECONDS, BATCH_BYTES = 0.1, 2**25  # answers wait for each other no longer


class SiteHost:
    """Holds some participants of a plan: all of them in this process, or an actor's share.

    Their bags are opened when they are first asked for something, and stay open. A participant
    whose bags cannot be read is not an error of the others: it answers every request with a failure
    message.

    Args:
        plan: The run.
        names: Which participants.
        folder: The run directory, for what sites keep; None keeps it in memory.
        device: Where to train.
        resume: Take up what the sites kept.
    """

    def __init__(
        self,
        plan: Plan,
        names: Sequence[str],
        folder: Path | None = None,
        device: str = "cpu",
        resume: bool = False,
    ) -> None:
        # One thread here and in every actor: results must not depend on the number of threads.
        torch.set_num_threads(1)
        keep_memory()
        self._plan, self._names, self._folder = plan, frozenset(names), folder
        self._device, self._resume = device, resume
        self._alone = device == "cpu" or not plan.config.resources.train_together
        folders = tuple(f"sites/{name}/" for name in names)
        self._share = Share(folder, lambda name: name.startswith(folders), plan.holder)
        self._taken_up: bool | StorageError = not resume
        self._sites: dict[str, Site] = {}
        self._failed: dict[str, bytes] = {}

    def answer(self, request: Request) -> Message:
        """A participant's answer."""
        site = self._site(request.site)
        return self._failed[request.site] if site is None else site.answer(request)

    def answers(self, requests: Sequence[Request]) -> Iterator[list[np.ndarray]]:
        """Answers in the order of the requests, some at a time, each as bytes, uint8.

        Nobody waits long for answers of others, and many short ones travel together. On a GPU the
        sites that are asked to train do so together; on a CPU that is slower than one by one.
        """
        batch: list[np.ndarray] = []
        size, begun, asked = 0, time.monotonic(), iter(requests)
        for message in map(self.answer, requests) if self._alone else self._together(requests):
            batch.append(np.frombuffer(message, np.uint8))
            size += batch[-1].size
            reached(SITE_ANSWERED)
            if size >= BATCH_BYTES or time.monotonic() - begun >= BATCH_SECONDS:
                yield self._sent(batch, asked)
                batch, size, begun = [], 0, time.monotonic()
        if batch:
            yield self._sent(batch, asked)

    def _sent(self, batch: list[np.ndarray], asked: Iterator[Request]) -> list[np.ndarray]:
        """Answers to the next requests, once what the sites keep is safe; failures if it is not."""
        answered = [next(asked) for _ in batch]
        try:
            self._share.push()  # before the server may count on it
        except StorageError as error:
            logs = (self._plan.log(request.site) for request in answered)
            failed = (failure_message(error, note_failure(log)) for log in logs)
            return [np.frombuffer(message, np.uint8) for message in failed]
        return batch

    def _take_up(self) -> None:
        """Bring what the sites kept on another node, once.

        Raises:
            StorageError: It could not be brought.
        """
        if self._taken_up is False:
            try:
                self._share.pull()
                self._taken_up = True
            except StorageError as error:
                self._taken_up = error
        if isinstance(self._taken_up, StorageError):
            raise self._taken_up

    def _together(self, requests: Sequence[Request]) -> Iterator[Message]:
        for start in range(0, len(requests), TOGETHER):
            yield from self._group(requests[start : start + TOGETHER])

    def _group(self, requests: Sequence[Request]) -> list[Message]:
        found: dict[int, Message] = {}
        begun: dict[int, tuple[Site, Begun]] = {}
        for place, request in enumerate(requests):
            site = self._site(request.site)
            if site is None or not isinstance(request, TrainRequest):
                found[place] = self.answer(request)
                continue
            try:
                before = site.again(request)
                if before is None:
                    begun[place] = site, site.begin(request)
                else:
                    found[place] = before
            except Exception as error:
                found[place] = site.failed(error)
        start, trained = time.monotonic(), self._train([one.job for _, one in begun.values()])
        each = (time.monotonic() - start) / max(1, len(begun))
        for (place, (site, one)), ended in zip(begun.items(), trained, strict=True):
            try:
                if isinstance(ended, Exception):
                    raise ended
                found[place] = site.end(one, ended, each)
            except Exception as error:
                found[place] = site.failed(error)
        return [found[place] for place in range(len(requests))]

    def _train(self, jobs: Sequence[Job]) -> list[Trained | Exception]:
        """Train together; half as many at a time where that fails, so that others do not.

        A site may have unreadable bags, or all of them take too much memory.
        """
        plan = self._plan
        try:
            return [*train_cohort(
                plan.model(), jobs, plan.config.training, task=plan.task, device=self._device
            )]  # fmt: skip
        except Exception as error:
            failed = error.with_traceback(None)  # which would keep what has failed in memory
        if len(jobs) < 2:
            return [failed] * len(jobs)
        half = len(jobs) // 2
        return self._train(jobs[:half]) + self._train(jobs[half:])

    def _site(self, name: str) -> Site | None:
        """A participant with its bags open; None if they cannot be."""
        if name not in self._names:
            raise KeyError(f"{name} does not live here")
        if name not in self._sites and name not in self._failed:
            try:
                self._take_up()
                own = None if self._folder is None else self._folder / "sites" / name
                bring_bags(self._plan.root, self._plan.origins(name))
                site = self._plan.site(name, own, self._device)
                if self._resume:
                    site.resume()
                self._sites[name] = site
            except Exception as error:
                incident = note_failure(self._plan.log(name))
                self._failed[name] = failure_message(error, incident)
        return self._sites.get(name)
