"""The log of a consumer on standard error: one JSON object a line, its fields named as in ECS.

Field names are flat and dotted (`log.level`), and no secret of the configuration appears in a line.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

SERVICE_NAME = "ids-consumer"
QUIET_LOGGERS = ("kafka", "elastic_transport", "elasticsearch")
"""Clients that log every lost connection; the consumers report outages themselves, once."""


class _EcsFormatter(logging.Formatter):
    """Formats a record as one line of JSON; `secrets` are masked."""

    def __init__(self, stage: str, secrets: Iterable[str]) -> None:
        super().__init__()
        self._stage = stage
        self._secrets = [orjson.dumps(secret)[1:-1].decode() for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        created = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "@timestamp": created.isoformat(timespec="milliseconds"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "service.name": SERVICE_NAME,
            "ids_plugin.stage": self._stage,
        }
        if record.name != SERVICE_NAME:
            line["log.logger"] = record.name
        if record.exc_info:
            line["error.stack_trace"] = self.formatException(record.exc_info)
        line |= getattr(record, "fields", {})
        text = orjson.dumps(line, default=str).decode()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def consumer_logger(stage: str, stream: TextIO, secrets: Iterable[str] = ()) -> logging.Logger:
    """The process's logger. It and the warnings of libraries go to `stream`; `secrets` are masked.

    Extra fields of a line are passed as `extra={"fields": {...}}`.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_EcsFormatter(stage, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logger = logging.getLogger(SERVICE_NAME)
    logger.setLevel(logging.INFO)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return logger
