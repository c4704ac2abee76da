"""The moments at which a run may be cut: named, so that tests can cut it at every one of them.

Reaching one raises an audit event of the standard library, which costs nothing as long as nobody
has installed a hook.
"""

from __future__ import annotations

import sys

EVENT = "rayfed_hn.point"

RECEIVED = "centre.received"  # the server is about to be told of an event
APPLIED = "centre.applied"  # a version was made, and nothing of it is written yet
METRICS = "metrics.appended"
EVENTS = "events.appended"
TENSORS = "commit.tensors_written"
DESCRIBED = "commit.described"  # the commit is whole, but the pointer is on the one before
POINTED = "commit.pointed"
PRUNED = "commit.pruned"
EVALUATION = "evaluation.begun"
SUMMARY = "summary.written"
ALL = (
    *(RECEIVED, APPLIED, METRICS, EVENTS, TENSORS, DESCRIBED, POINTED, PRUNED),
    *(EVALUATION, SUMMARY),
)
SITE_RECEIVED = "site.received"  # a site was asked, and has done nothing yet
SITE_TRAINED = "site.trained"
SITE_SEALED = "site.sealed"  # the update is charged, but has not left
SITE_ANSWERED = "site.answered"  # the answer is about to leave
SITE = (SITE_RECEIVED, SITE_TRAINED, SITE_SEALED, SITE_ANSWERED)
DRIVER_STARTED = "driver.started"  # all actors are there
DRIVER_VERSION = "driver.version"  # the driver has heard of a version
DRIVER_ENDED = "driver.ended"  # it has the result, and has written nothing of it
DRIVER = (DRIVER_STARTED, DRIVER_VERSION, DRIVER_ENDED)


def reached(point: str) -> None:
    """Say that a moment has come."""
    sys.audit(EVENT, point)
