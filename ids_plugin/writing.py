"""What it means when a place can't be written to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ids_plugin.errors import UsageError


@contextlib.contextmanager
def writing(location: str | Path, undo: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Says why `location` can't be written to, after `undo`. A BrokenPipeError passes: whoever
    reads has seen enough.

    Raises:
        UsageError: it can't be made or written (no permission, full disk, ...).
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        with contextlib.suppress(OSError, AttributeError):
            undo()
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"can't be written: {why}", location=str(location)) from error
