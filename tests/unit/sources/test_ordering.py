"""Order: by the time flows were known, the same in memory and on disk, and nothing left behind."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ids_plugin.errors import InputError
from ids_plugin.schema.flow import known
from ids_plugin.sources import Read, ordering
from ids_plugin.sources.ordering import ordered
from tests.support.logs import conn, jsonl, read


def flows(n: int, **changes: Any) -> pl.DataFrame:
    return read(jsonl(conn(i, duration=(i * 7919 % 600) / 3, **changes) for i in range(n))).flows


def sort(
    frame: pl.DataFrame, tmp_path: Path, parts: int = 9, rows: int = 100
) -> list[pl.DataFrame]:
    size = -(-frame.height // parts)
    reads = [Read(part, part.height) for part in frame.iter_slices(size)]
    return list(ordered(reads, batch_rows=rows, spill_dir=tmp_path))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a thousand flows need the disk."""
    monkeypatch.setattr(ordering, "HELD", 200)
    monkeypatch.setattr(ordering, "BATCH", 50)
    monkeypatch.setattr(ordering, "SMALLEST", 4)


def test_flows_come_when_they_were_known_in_frames_of_the_size_asked_for(tmp_path: Path) -> None:
    frames = sort(flows(1050), tmp_path)
    assert [frame.height for frame in frames] == [100] * 10 + [50]
    assert pl.concat(frames).select(known()).to_series().is_sorted()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_disk_gives_what_memory_gives_and_is_left_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    log = flows(1500)
    if shuffled:
        log = log.sample(fraction=1, shuffle=True, seed=3)
    on_disk = pl.concat(sort(log, tmp_path))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert_frame_equal(on_disk, pl.concat(sort(log, tmp_path, parts=1)))


@pytest.mark.usefixtures("small")
def test_flows_known_at_the_same_time_are_ordered_by_uid_and_content(tmp_path: Path) -> None:
    records = [conn(0, ts=1.7e9, uid=f"C{i % 300}", orig_bytes=i // 300) for i in range(900)]
    expected = None
    for seed in range(3):
        random.Random(seed).shuffle(records)
        got = pl.concat(sort(read(jsonl(records)).flows, tmp_path)).drop("origin")
        expected = got if expected is None else expected
        assert_frame_equal(got, expected)
    assert expected is not None
    assert (
        expected.select(pl.struct("uid", "orig_bytes").is_sorted()).item()
        or expected["uid"].is_sorted()
    )


@pytest.mark.usefixtures("small")
def test_the_temporary_folder_goes_when_reading_fails_or_stops(tmp_path: Path) -> None:
    def failing() -> Any:
        for part in flows(600).iter_slices(100):
            yield Read(part, part.height)
        raise InputError("gone")

    with pytest.raises(InputError, match="gone"):
        list(ordered(failing(), batch_rows=10, spill_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []
    some = ordered(
        [Read(part, part.height) for part in flows(600).iter_slices(100)],
        batch_rows=10,
        spill_dir=tmp_path,
    )
    next(some)
    some.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_a_full_disk_says_so(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    reads = [Read(part, part.height) for part in flows(600).iter_slices(100)]
    with pytest.raises(InputError, match="can't keep flows to sort: no space left on device"):
        list(ordered(_filling(reads, full), batch_rows=10, spill_dir=full))


def _filling(reads: list[Read], folder: Path) -> Any:
    """Before the last read, the file that is about to be written becomes a full device."""
    yield from reads[:1]
    (temporary,) = folder.iterdir()
    (temporary / "flows.arrow").symlink_to("/dev/full")
    yield from reads[1:]


def test_no_flows_give_no_frames(tmp_path: Path) -> None:
    assert list(ordered([], batch_rows=10, spill_dir=tmp_path)) == []
