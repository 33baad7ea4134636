"""Distance: carries frames between pairs of taps with delay, jitter and loss, since the kernel here
has no netem.

Run by `network.Network` as a process of its own, with the taps' descriptors inherited and the links
on standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

TUNSETIFF = 0x400454CA
TAP_WITHOUT_HEADER = 0x1002
"""IFF_TAP | IFF_NO_PI"""
BURST = 64
"""Frames taken from a tap before the others get their turn."""


@dataclass(frozen=True)
class Link:
    """Two taps and what lies between them; seconds one way."""

    near: int
    """descriptor of the host's tap"""
    far: int
    """descriptor of the bridge's or router's tap"""
    delay: float
    jitter: float
    loss: float
    spread: float = 0.0
    """seconds added at most by the near side's address, for a host that plays many places"""


def tap(name: str) -> int:
    """Makes a tap in the calling thread's namespace; its descriptor, which other threads may
    use."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_WITHOUT_HEADER))
    return descriptor


def encode(links: Sequence[Link]) -> str:
    """What `main` reads."""
    return json.dumps([asdict(link) for link in links])


def place(frame: bytes, leaving: bool, spread: float) -> float:
    """Seconds that the near side's IPv4 address adds: the same for the same address."""
    if not spread or frame[12:14] != b"\x08\0":
        return 0.0
    address = frame[26:30] if leaving else frame[30:34]
    return spread * (zlib.crc32(address) % 997) / 997


def carry(links: Sequence[Link], leash: int) -> None:
    """Carries frames in the order they came per link, direction and place, until `leash` is closed
    at its other end."""
    rng = random.Random(1)
    ends = {link.near: (link, link.far, True) for link in links} | {
        link.far: (link, link.near, False) for link in links
    }
    waiting: list[tuple[float, int, int, bytes]] = []
    latest: dict[tuple[int, float], float] = {}
    number = 0
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready = select.select([leash, *ends], [], [], patience)[0]
        if leash in ready:
            return
        for descriptor in ready:
            link, out, leaving = ends[descriptor]
            for frame in _read(descriptor):
                if rng.random() < link.loss:
                    continue
                extra = place(frame, leaving, link.spread)
                due = time.monotonic() + link.delay + extra + link.jitter * rng.random() ** 3
                due = latest[out, extra] = max(due, latest.get((out, extra), 0.0))
                heapq.heappush(waiting, (due, number, out, frame))
                number += 1
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, out, frame = heapq.heappop(waiting)
            with contextlib.suppress(OSError):
                os.write(out, frame)


def _read(descriptor: int) -> list[bytes]:
    frames: list[bytes] = []
    with contextlib.suppress(OSError):
        while len(frames) < BURST:
            frames.append(os.read(descriptor, 4096))
    return frames


if __name__ == "__main__":
    carry([Link(**link) for link in json.loads(sys.stdin.readline())], sys.stdin.fileno())
