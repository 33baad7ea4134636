"""Every error the product raises on purpose.

IdsPluginError
├── UsageError            wrong option or combination of options           exit code 2
│   └── ConfigError       a configuration, allow-list or label file        exit code 2
├── InputError            an input could not be read at all                exit code 3
│   └── DialectError      its values can't be in the unit it claims        exit code 3
├── BundleError           a bundle is damaged, foreign or doesn't fit      exit code 2
├── MissingExtraError     an optional dependency isn't installed           exit code 2
├── LedgerError           the ledger doesn't balance: a defect of ours     exit code 2
├── CheckpointError       a checkpoint is damaged, or of another version   exit code 2
└── ServiceError          a service is unreachable                         exit code 4

Each carries where it happened (`location`: file, line, packet, topic/partition/offset) and what to
do next (`hint`). The command line prints `str(error)` on one line; nobody else formats errors.
"""

from __future__ import annotations


class IdsPluginError(Exception):
    """Base of all our errors: what happened, where, and what to do about it."""

    exit_code = 2

    def __init__(
        self, message: str, *, location: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        then = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.message}{then}"


class UsageError(IdsPluginError):
    """Wrong option or combination of options."""


class ConfigError(UsageError):
    """A configuration, allow-list or label file can't be used as it is."""


class InputError(IdsPluginError):
    """An input could not be read at all."""

    exit_code = 3


class DialectError(InputError):
    """A source's values can't be in the unit it claims."""


class BundleError(IdsPluginError):
    """A bundle is damaged, foreign, of another schema, or lacks a signature it needs."""


class MissingExtraError(IdsPluginError):
    """An optional dependency isn't installed; the hint names the extra."""


class LedgerError(IdsPluginError):
    """The ledger doesn't balance."""


class CheckpointError(IdsPluginError):
    """Kept state is damaged, or was made by a version that keeps it otherwise."""


class ServiceError(IdsPluginError):
    """A service can't be reached or refuses us."""

    exit_code = 4
