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


def reached(point: str) -> None:
    """Say that a moment has come."""
    sys.audit(EVENT, point)
