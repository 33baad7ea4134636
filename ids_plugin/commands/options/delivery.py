"""Waiting for a sink that can't take a batch yet."""

from __future__ import annotations

import time
from collections.abc import Callable

from ids_plugin.errors import ServiceError
from ids_plugin.sinks import Delivered, RetryAfter

MAX_WAIT_S = 5.0
"""that a command waits for a service to take one batch"""


def deliver(
    write: Callable[[], Delivered | RetryAfter], sleep: Callable[[float], None] = time.sleep
) -> Delivered:
    """Calls `write`, a sink's with one batch, until the batch is written.

    Raises:
        ServiceError: the sink did not take it within MAX_WAIT_S.
    """
    waited_s = 0.0
    while not isinstance(answer := write(), Delivered):
        waited_s += answer.seconds
        if waited_s >= MAX_WAIT_S:
            raise ServiceError(answer.reason)
        sleep(answer.seconds)
    return answer
