"""What a site says when it could not answer: no more than a code and a number."""

from __future__ import annotations

import numpy as np

from rayfed_hn.errors import (
    BudgetSpent,
    DataError,
    LedgerError,
    MessageError,
    SetAside,
    StorageAway,
    StorageError,
    TakenUp,
)
from rayfed_hn.federation.wire import Message, expect, open_message, serialise


def failure_message(error: Exception, incident: int = 0) -> bytes:
    """What a site says when it could not answer: a code and a number, as texts may name a patient.

    Args:
        error: What went wrong.
        incident: Under which the site wrote it down in its own log; 0: nowhere.
    """
    codes = [i for i, (kinds, _) in enumerate(_FAILURES) if isinstance(error, kinds)]
    return serialise({"failure": np.array([codes[0], incident])})


def incident_name(incident: int) -> str:
    """How an incident is written, in a site's log as in what the server hears."""
    return f"{incident:016x}"


FAILURE_BYTES = 1024  # more than one takes
_FAILURES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((MemoryError,), "the site ran out of memory"),
    ((BudgetSpent,), BudgetSpent.told),
    ((LedgerError,), "the site's privacy ledger is damaged"),
    ((TakenUp,), "another process had taken the run up"),
    ((StorageAway,), "the site could not keep its files in object storage, which was out of reach"),
    ((StorageError,), "the site could not write its files (is its disk full?)"),
    ((DataError, SetAside, OSError), "the site could not read its bags"),
    ((MessageError, ValueError), "the site refused the request"),
    ((Exception,), "the site failed"),
)


def read_failure(message: Message) -> str | None:
    """What a failure message says; None if it is another one."""
    if len(message) > FAILURE_BYTES:  # an update is not opened twice
        return None
    failure = open_message(message, FAILURE_BYTES).get("failure")
    if failure is None:
        return None
    code, incident = expect({"failure": failure}, "failure", np.int64, (2,)).tolist()
    if not 0 <= code < len(_FAILURES) or incident < 0:
        raise MessageError("unknown failure code")
    where = f" under incident {incident_name(incident)}" if incident else ""
    return f"{_FAILURES[code][1]}; site.log beside its bags says why{where}"
