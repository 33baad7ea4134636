"""What a consumer writes to standard error: one JSON object a line, its fields named as ECS has them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

NAME = "ids-consumer"


class _Lines(logging.Formatter):
    def __init__(self, stage: str, secrets: Iterable[str]) -> None:
        super().__init__()
        self._stage = stage
        self._secrets = [orjson.dumps(secret)[1:-1].decode() for secret in secrets if secret]

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "service.name": NAME,
            "ids_plugin.stage": self._stage,
        }
        if record.name != NAME:
            line["log.logger"] = record.name
        if record.exc_info:
            line["error.stack_trace"] = self.formatException(record.exc_info)
        line |= getattr(record, "fields", {})
        text = orjson.dumps(line, default=str).decode()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def logger(stage: str, stream: TextIO, secrets: Iterable[str] = ()) -> logging.Logger:
    """The process's log, and what others have to say from WARNING on, as lines on `stream`; without `secrets`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines(stage, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours = logging.getLogger(NAME)
    ours.setLevel(logging.INFO)
    for chatty in ("kafka", "elastic_transport", "elasticsearch"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    return ours
