"""What the follower takes for a log, for a line, and for the same file."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from consumers.shipping.follow import Follower
from consumers.shipping.tail import KEPT_LINE_BYTES, MAX_LINE_BYTES, FileOffset


class Clock:
    """Each look at it is a second later."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def follow(tmp_path: Path) -> Callable[..., Follower]:
    def make(*names: str, since: float = 0.0, rotated: str = "", **options: object) -> Follower:
        live = {str(tmp_path / name): since for name in names}
        elsewhere = {str(tmp_path / rotated): since} if rotated else {}
        return Follower(live, elsewhere, clock=Clock(), **options)  # type: ignore[arg-type]

    return make


def drained(follower: Follower, rounds: int = 10) -> list[bytes]:
    return [line for _ in range(rounds) for block in follower.read() for line in block.lines]


def test_several_logs_by_glob_each_under_its_name(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    for name in ("conn", "dns", "conn-summary"):
        (tmp_path / f"{name}.log").write_text(f"{name} 1\n{name} 2\n")
    (tmp_path / "conn.2026-11-21-10-00-00.log").write_text("conn 0\n")
    os.utime(tmp_path / "conn.2026-11-21-10-00-00.log", (1, 1))
    blocks = [(Path(lines.name).name, lines.lines) for lines in follow("conn.log", "d*.log").read()]
    assert sorted(blocks) == [
        ("conn.log", [b"conn 0"]),
        ("conn.log", [b"conn 1", b"conn 2"]),
        ("dns.log", [b"dns 1", b"dns 2"]),
    ]


def test_a_line_is_given_when_its_newline_is_there(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    log = tmp_path / "eve.json"
    log.write_bytes(b"\n\none\r\ntw")
    follower = follow("eve.json")
    assert drained(follower) == [b"one"]
    with log.open("ab") as file:
        file.write(b"o\n \n")
    assert drained(follower) == [b"two"]


def test_the_last_line_of_a_rotated_file_needs_none(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    log = tmp_path / "eve.json"
    log.write_bytes(b"one\ntwo")
    follower = follow("eve.json")
    assert drained(follower) == [b"one"]
    log.rename(tmp_path / "eve.json.1")
    assert drained(follower, 20) == [b"two"]


def test_directives_are_sent_again_after_a_restart(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    log = tmp_path / "conn.log"
    log.write_bytes(b"#separator \\x09\n#fields\tts\tuid\n")
    follower = follow("conn.log")
    assert drained(follower) == []
    with log.open("ab") as file:
        file.write(b"1.0\tC1\n")
    (first,) = follower.read()
    assert first.header == b"#separator \\x09\n#fields\tts\tuid\n"
    assert first.lines[-1] == b"1.0\tC1"
    with log.open("ab") as file:
        file.write(b"2.0\tC2\n")
    offsets = [offset for offset in follower.changes().values() if offset]
    (second,) = follow("conn.log", offsets=offsets).read()
    assert (second.header, second.lines) == (first.header, [b"2.0\tC2"])


def test_a_line_too_long_is_given_by_its_beginning(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    log = tmp_path / "eve.json"
    log.write_bytes(b"one\n" + b"x" * (3 * MAX_LINE_BYTES))
    follower = follow("eve.json")
    assert drained(follower) == [b"one"]
    with log.open("ab") as file:
        file.write(b"x\n" + b"y" * MAX_LINE_BYTES + b"\nlast\n")
    assert drained(follower) == [b"x" * KEPT_LINE_BYTES, b"y" * MAX_LINE_BYTES, b"last"]
    assert (follower.cut_lines, follower.behind_bytes) == (1, 0)


def test_zero_bytes_that_a_truncated_writer_leaves_are_passed_over(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    log = tmp_path / "eve.json"
    with log.open("wb", buffering=0) as writer:
        writer.write(b"one\n" * 100_000)
        follower = follow("eve.json")
        assert len(drained(follower)) == 100_000
        os.truncate(log, 0)
        writer.write(b"two\nthree\n")
        assert drained(follower) == [b"two", b"three"]


def test_old_rotated_files_are_passed_over_and_new_ones_are_not(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    for name, text, time in (("eve.json.1", "old\n", 100), ("eve.json", "now\n", 300)):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (time, time))
    (tmp_path / "eve.json.2.gz").write_bytes(gzip.compress(b"older\n"))
    os.utime(tmp_path / "eve.json.2.gz", (50, 50))
    follower = follow("eve.json", since=200.0)
    assert drained(follower) == [b"now"]
    offsets = [offset for offset in follower.changes().values() if offset]
    packed = tmp_path / "eve.json.2.gz"
    (tmp_path / "eve.json.1").rename(tmp_path / "eve.json.3")
    packed.write_bytes(gzip.compress((tmp_path / "eve.json.3").read_bytes()))
    (tmp_path / "eve.json.1").write_text("while we were away\n")
    assert drained(follow("eve.json", since=200.0, offsets=offsets)) == [b"while we were away"]


def test_from_the_end_on(follow: Callable[..., Follower], tmp_path: Path) -> None:
    log = tmp_path / "eve.json"
    log.write_bytes(b"old\nhalf")
    os.utime(log, (100, 100))
    follower = follow("eve.json", since=200.0, is_from_end=True)
    assert drained(follower) == []
    with log.open("ab") as file:
        file.write(b" a line\nnew\n")
    assert drained(follower) == [b"half a line", b"new"]


def test_a_file_that_was_packed_into_another_folder(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    log, archive = tmp_path / "conn.log", tmp_path / "2026-11-21/conn.10:00:00-11:00:00.log.gz"
    log.write_bytes(b"one\n")
    follower = follow("conn.log", rotated="*/conn.*.log.gz")
    assert drained(follower) == [b"one"]
    offsets = [offset for offset in follower.changes().values() if offset]
    archive.parent.mkdir()
    packed = gzip.compress(b"one\ntwo\n" + os.urandom(1000).hex().encode() + b"\n")
    archive.write_bytes(packed[: len(packed) // 2])
    log.unlink()
    follower = follow("conn.log", rotated="*/conn.*.log.gz", offsets=offsets)
    read = drained(follower)
    archive.write_bytes(packed)
    read += drained(follower)
    assert read[0] == b"two"
    assert len(read) == 2
    offsets = [offset for offset in follower.changes().values() if offset]
    assert [offset.whole for offset in offsets] == [True]
    assert drained(follow("conn.log", rotated="*/conn.*.log.gz", offsets=offsets)) == []


def test_a_file_that_takes_the_name_between_two_looks_is_not_mistaken(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.log").write_bytes(b"%d a\n%d b\n" % (number, number))
        os.utime(tmp_path / f"{number}.log", (number, number))
    follower = follow("*.log")
    first = follower.read(1)
    (tmp_path / "2.log").rename(tmp_path / "3.log")
    (tmp_path / "1.log").rename(tmp_path / "2.log")
    lines = [line for block in first for line in block.lines] + drained(follower)
    assert sorted(lines) == [b"1 a", b"1 b", b"2 a", b"2 b"]


def test_what_cannot_be_followed_is_warned_of_once(
    follow: Callable[..., Follower], tmp_path: Path
) -> None:
    warnings: list[str] = []
    (tmp_path / "eve.json.1.zst").write_bytes(b"\x28\xb5\x2f\xfd....")
    broken = bytearray(gzip.compress(os.urandom(5000).hex().encode() + b"\n"))
    broken[3000:3010] = b"\0" * 10
    (tmp_path / "eve.json.2.gz").write_bytes(broken)
    drained(follow("eve.json", warn=warnings.append))
    assert [message.rpartition("/")[2].split(":")[0] for message in warnings] == [
        "eve.json.1.zst",
        "eve.json.2.gz",
    ]


def test_places_of_files_long_gone_are_forgotten(
    follow: Callable[..., Follower], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.shipping.follow.REMEMBERED_FILES", 2)
    offsets = [FileOffset(number, "gone.log", f"{number}", 1, number, 10) for number in range(1, 6)]
    follower = follow("gone.log", offsets=offsets)
    follower.read()
    assert follower.changes() == {1: None, 2: None, 3: None}
