"""Whatever a rotator does to a log, however often its follower dies: each line once.

In order too, where the rotated files aren't named as logs of their own.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.shipping.follow import Follower
from consumers.shipping.tail import BLOCK_BYTES, ROTATED_LINGER_S, FileOffset


class World:
    """A log, its writer, its rotator, and a follower that remembers its offsets now and then."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self.log = folder / "eve.json"
        self.pattern = str(folder / pattern)
        self.written = 0
        self.ticks = 0
        self.now = 0.0
        self.pace = 1.0
        self.watched = False
        self.received: list[bytes] = []
        self.offsets: dict[int, FileOffset] = {}
        self.safe = 0
        self.follower = self.begin()

    def begin(self) -> Follower:
        return Follower({self.pattern: 0.0}, offsets=self.offsets.values(), clock=lambda: self.now)

    def tick(self, path: Path) -> None:
        self.ticks += 1
        os.utime(path, ns=(self.ticks * 10**9, self.ticks * 10**9))

    def write(self, count: int) -> None:
        with self.log.open("ab") as file:
            for _ in range(count):
                file.write(b'{"n": %d}\n' % self.written)
                self.written += 1
        self.tick(self.log)

    def write_half(self) -> None:
        """A line whose second half comes after the follower looked."""
        line = b'{"n": %d}\n' % self.written
        self.written += 1
        with self.log.open("ab") as file:
            file.write(line[:5])
            file.flush()
            self.tick(self.log)
            self.read()
            file.write(line[5:])
        self.tick(self.log)

    def shift(self) -> None:
        """As logrotate does: .2.gz becomes .3.gz, .1 becomes .2.gz."""
        for number in range(30, 1, -1):
            old = self.log.with_name(f"eve.json.{number}.gz")
            if old.exists():
                old.rename(self.log.with_name(f"eve.json.{number + 1}.gz"))
        first = self.log.with_name("eve.json.1")
        if first.exists():
            self.pack(first, self.log.with_name("eve.json.2.gz"))

    def pack(self, path: Path, to: Path) -> None:
        packed = gzip.compress(path.read_bytes())
        to.write_bytes(packed[: len(packed) // 2])
        self.peek()
        to.write_bytes(packed)
        shutil.copystat(path, to)
        self.peek()
        path.unlink()
        self.peek()

    def peek(self) -> None:
        """The follower may look while the rotator is at work."""
        if self.watched:
            self.read()

    def rename(self) -> None:
        if self.log.exists():
            self.shift()
            self.log.rename(self.log.with_name("eve.json.1"))
            self.peek()

    def rename_and_pack(self) -> None:
        if self.log.exists():
            self.rename()
            self.shift()

    def copy_and_truncate(self) -> None:
        if self.log.exists():
            self.shift()
            shutil.copy2(self.log, self.log.with_name("eve.json.1"))
            self.peek()
            os.truncate(self.log, 0)

    def read(self) -> int:
        self.now += self.pace
        blocks = self.follower.read(BLOCK_BYTES if self.pace == 1.0 else 1)
        lines = [line for block in blocks for line in block.lines]
        self.received += lines
        return len(lines)

    def remember(self) -> None:
        for number, offset in self.follower.changes().items():
            if offset is None:
                self.offsets.pop(number)
            else:
                self.offsets[number] = offset
        self.safe = len(self.received)

    def die(self) -> None:
        self.follower.close()
        del self.received[self.safe :]
        self.follower = self.begin()

    def watch(self) -> None:
        self.watched = not self.watched

    def hurry(self) -> None:
        """Reads from now on are of one file, and come sooner than looks at what files there are; or
        not."""
        self.pace = 0.1 if self.pace == 1.0 else 1.0

    def finish(self) -> None:
        quiet, self.pace = 0, 1.0
        while quiet <= ROTATED_LINGER_S + 2:
            quiet = 0 if self.read() else quiet + 1


STEPS = [
    "read",
    "remember",
    "die",
    "watch",
    "hurry",
    "write_half",
    "rename",
    "rename_and_pack",
    "copy_and_truncate",
]


@settings(max_examples=300)
@given(
    st.lists(st.one_of(st.integers(1, 30), st.sampled_from(STEPS)), max_size=40),
    st.sampled_from(["eve.json", "eve.json*", "*"]),
)
def test_each_line_once_and_in_order(steps: list[int | str], pattern: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), pattern)
        for step in steps:
            if isinstance(step, int):
                world.write(step)
            else:
                getattr(world, step)()
        world.finish()
        lines = [b'{"n": %d}' % number for number in range(world.written)]
        assert sorted(world.received) == sorted(lines)
        assert world.received == lines or pattern != "eve.json"
        world.follower.close()
