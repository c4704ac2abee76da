"""Some participants of a run in one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rayfed_hn.federation.messages import Request, failure_message
from rayfed_hn.federation.plan import Plan
from rayfed_hn.federation.site import Site, note_failure


class SiteHost:
    """Holds some participants of a plan: all of them in this process, or an actor's share.

    A participant whose bags cannot be read is not an error of the others: it answers every request
    with a failure message.

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
        self._sites: dict[str, Site] = {}
        self._failed: dict[str, bytes] = {}
        for name in names:
            try:
                own = None if folder is None else folder / "sites" / name
                self._sites[name] = plan.site(name, own, device)
                if resume:
                    self._sites[name].resume()
            except Exception as error:
                note_failure(plan.log(name))
                self._failed[name] = failure_message(error)

    def answer(self, request: Request) -> bytes:
        """A participant's answer."""
        failed = self._failed.get(request.site)
        return failed if failed is not None else self._sites[request.site].answer(request)
