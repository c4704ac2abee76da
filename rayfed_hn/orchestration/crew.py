"""The actors of one run: those of its sites, and the central one, which is replaced if it dies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rayfed_hn.errors import FederationError, RayfedError
from rayfed_hn.federation.plan import Plan
from rayfed_hn.orchestration.actors import CentralActor, Progress, Result, SiteActor
from rayfed_hn.orchestration.hosts import Home
from rayfed_hn.orchestration.packing import Cluster, Packing, pack
from rayfed_hn.orchestration.waiting import wait_for_start


class CentreDied(FederationError):
    """The central actor is gone; what it has committed is not."""


class Crew:
    """All actors of a run.

    Args:
        plan: What.
        folder: The run directory.

    Attributes:
        centre_restarts: How often the central actor was started anew.

    Raises:
        ConfigError: There is no room for them.
        NoRoom: They did not start in time.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._packing = pack(plan.config, plan.participants, Cluster.joined(plan.config))
        resume = plan.config.run.resume
        self._homes = homes(plan, self._packing, folder)
        self.actors = [home.start(resume) for home in self._homes]
        self.centre_restarts = 0
        self._deaths = 0
        self._before: Counter[str] = Counter()  # restarts told by central actors that are gone
        self._now: Counter[str] = Counter()
        try:
            self.centre, begun = self._new_centre(resume)
            ready = (actor.ready.remote() for actor in self.actors)
            wait_for_start(plan.config, self._packing.places, [begun, *ready])
            self._begin(begun)
        except BaseException:
            self.stop()
            raise

    @property
    def restarts(self) -> dict[str, int]:
        """How often the actor of a site was started anew, where it was."""
        return dict(sorted((self._before + self._now).items()))

    def run(self) -> Iterator[Progress | Result]:
        """Run to the end, with as many central actors as that takes.

        Raises:
            FederationError: The run cannot go on.
        """
        while True:
            try:
                for reference in self.centre.run.remote():
                    news: Progress | Result = get(reference)
                    self._deaths, self._now = 0, Counter(news.restarts)
                    yield news
                    if isinstance(news, Result):
                        return
                raise FederationError("the central actor ended without a result")
            except CentreDied as death:
                self._renew(death)

    def stop(self) -> None:
        """End all actors; those that the central one has started end with it."""
        for actor in [self.centre, *self.actors]:
            ray.kill(actor)

    def _renew(self, death: CentreDied) -> None:
        """Start the central actor anew, from the last commit."""
        self._deaths += 1
        self._before, self._now = self._before + self._now, Counter()
        if self._deaths > self._plan.config.resources.centre_restarts:
            raise death
        self.centre_restarts += 1
        ray.kill(self.centre)  # which may only have been out of reach
        self.centre, begun = self._new_centre(resume=True)
        centre, everybody = [self._packing.centre], self._packing.places
        wait_for_start(self._plan.config, centre, [begun], everybody)
        self._begin(begun)

    def _begin(self, begun: Any) -> None:
        try:
            get(begun)  # a site actor that failed is found so at its first request
        except CentreDied as death:
            self._renew(death)

    def _new_centre(self, resume: bool) -> tuple[Any, Any]:
        """A central actor, and what it answers once it has begun."""
        place = self._packing.centre
        handles = {site: self.actors[number] for site, number in self._packing.host_of.items()}
        self.centre = CentralActor.options(**place.start).remote(
            self._plan, handles, self._homes, self._folder, resume, place.gpus
        )
        return self.centre, self.centre.start.remote()


def homes(plan: Plan, packing: Packing, folder: Path | None) -> list[Home]:
    """How the actors of all sites are started."""
    return [
        Home(
            place.sites,
            SiteActor.options(**place.start),
            (plan, place.sites, folder, place.gpus),
        )
        for place in packing.hosts
    ]


def start_hosts(plan: Plan, packing: Packing, folder: Path | None) -> list[Any]:
    """Start the actors of all sites, without waiting for them."""
    return [home.start(resume=False) for home in homes(plan, packing, folder)]


def get(reference: Any) -> Any:
    """The central actor's answer, or its error as it was raised there, without Ray's traceback.

    Raises:
        CentreDied: There is no central actor any more.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RayfedError):
            raise error.cause from None
        raise FederationError(f"the central actor failed: {error.cause!r}") from error
    except RayError as error:
        raise CentreDied(
            f"the central actor died ({type(error).__name__}); run.resume=true goes on from the "
            "last commit"
        ) from error
