"""The errors a user meets. Each carries what went wrong and what to do about it."""

from __future__ import annotations


class RayfedError(Exception):
    """Base of every error that rayfed_hn raises for a user; its text is fit to print."""


class ConfigError(RayfedError):
    """The command line or configuration cannot be used; nothing has been started."""


class DataError(RayfedError):
    """A manifest, bag store or run directory as a whole cannot be used."""


class LedgerError(DataError):
    """A site's privacy ledger is damaged: what it has spent is not known."""


class FederationError(RayfedError):
    """A federation cannot go on (for example: every site was lost)."""


class NoRoom(FederationError):
    """The actors of a run found no room on the cluster in time; nothing was started."""


class MessageError(RayfedError):
    """Bytes that crossed the site boundary are not the message they should be."""


class AccountingError(RayfedError):
    """Nothing true can be said of what releases cost together."""


class StorageError(DataError):
    """A file cannot be written."""


class TakenUp(StorageError):
    """Another process has taken the run up: this one may send nothing more, and has to end."""


class StorageAway(StorageError):
    """Object storage could not be reached for as long as anybody waits for it."""


class BudgetSpent(RayfedError):
    """A site releases no more: its epsilon would be beyond what it may spend."""

    _FIRST = "the site's privacy budget"
    # All that others hear of it.
    told = f"{_FIRST} does not allow it ('rayfed-hn ledger' shows what its bags have given away)"

    @classmethod
    def is_told_by(cls, reason: object) -> bool:
        """Whether this is why a site was lost."""
        return str(reason).startswith(cls._FIRST)


class PromiseBroken(RayfedError):
    """An audit found that a run gives away more than it promises."""


class Interrupted(RayfedError):
    """The user or the cluster stopped a run; its text says how to go on."""


class SetAside(RayfedError):
    """One slide or bag cannot be used; the rest goes on without it.

    Args:
        reason: What is wrong with it, in words that name no patient.
        remedy: What the user can do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason} ({self.remedy})"
