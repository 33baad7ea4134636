"""Sends lines to Kafka as librdkafka in a sensor does (no key, no header), for next to no CPU:
batches are made before.

A prepared batch gets the present as its time, its checksum
(https://kafka.apache.org/documentation/#recordbatch) and is sent in a Produce request, version 3
(https://kafka.apache.org/protocol#The_Messages_Produce).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import crc32c
from kafka.record.default_records import DefaultRecordBatchBuilder

CHECKSUM, ATTRIBUTES, TIMES = 17, 21, 27
"""offsets in a record batch of the CRC, of the first byte it covers, and of base and largest
timestamp"""
PRODUCE, VERSION = 0, 3


def batches(lines: Iterable[bytes], size: int) -> Iterator[bytearray]:
    """Record batches of `size` lines, all of time 0."""
    builder, count = _builder(), 0
    for line in lines:
        builder.append(count, 0, None, line, [])
        count += 1
        if count == size:
            yield builder.build()
            builder, count = _builder(), 0
    if count:
        yield builder.build()


def _builder() -> DefaultRecordBatchBuilder:
    return DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)


class Sender:
    """A connection to the one broker there is; batches go to the partitions in turn."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        host, _, port = bootstrap.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._topic, self._partitions, self._sent = topic.encode(), partitions, 0

    def send(self, some: Sequence[bytearray]) -> int:
        """Sends batches one after the other and waits for all answers; their time in ms since the
        epoch."""
        now = time.time_ns() // 1_000_000
        for batch in some:
            struct.pack_into(">qq", batch, TIMES, now, now)
            struct.pack_into(">I", batch, CHECKSUM, crc32c.crc32c(memoryview(batch)[ATTRIBUTES:]))
            self._socket.sendall(self._request(batch))
            self._sent += 1
        for _ in some:
            self._answer()
        return now

    def _request(self, batch: bytearray) -> bytes:
        """Header (key, version, correlation, client) and body (no transaction, acks of the leader,
        30 s, one topic)."""
        head = struct.pack(">hhih", PRODUCE, VERSION, self._sent, -1)
        body = struct.pack(">hhiih", -1, 1, 30_000, 1, len(self._topic)) + self._topic
        body += struct.pack(">iii", 1, self._sent % self._partitions, len(batch)) + batch
        return struct.pack(">i", len(head) + len(body)) + head + body

    def _answer(self) -> None:
        (size,) = struct.unpack(">i", self._read(4))
        answer = self._read(size)
        (error,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(self._topic) + 4 + 4)
        if error:
            raise RuntimeError(f"the broker refuses a batch: error {error}")

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._socket.recv(size - len(found))
            if not piece:
                raise ConnectionError("the broker closed the connection")
            found += piece
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._socket.close()
