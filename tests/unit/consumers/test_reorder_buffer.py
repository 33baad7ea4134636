"""What is waited for, for how long, and what becomes of what comes too late."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consumers.stream.reorder_buffer import (
    MAX_LEAP_NUMBERS,
    REMEMBERED_RUNS,
    Released,
    ReorderBuffer,
    ReorderLimits,
)
from ids_plugin.sources.flow_batches import Batch, Watermarks
from tests.support.stream_model import TOPIC, Record, rows

RUN = "a"
SHORT = ReorderLimits(
    visibility_ms=100, idle_partition_ms=1_000, gap_timeout_ms=5_000, max_held_records=20
)


def batch(
    numbers: Sequence[int], first_ms: int = 1_000, run: str = RUN, end: int | None = None
) -> Batch:
    """Numbered flows of one sensor, one ms apart."""
    records = [Record("s", run, number, first_ms + index) for index, number in enumerate(numbers)]
    return Batch(
        "s",
        TOPIC,
        run,
        rows([(record, 0, record.number or 0) for record in records]),
        first_ms,
        end=end,
    )


def unnumbered(times: Sequence[int], partition: int = 0) -> Batch:
    """Flows without numbers."""
    records = [(Record("s", "", None, time), partition, time) for time in times]
    return Batch("s", TOPIC, "", rows(records), min(times))


def watermarks(now: int, *times: int | None) -> Watermarks:
    """How far the topic's partitions are read; None has no watermark."""
    read_up_to = {
        f"{TOPIC}/{number}": time for number, time in enumerate(times) if time is not None
    }
    return Watermarks(now, {TOPIC: len(times)}, read_up_to)


def begun(limits: ReorderLimits = SHORT, now: int = 2_000) -> ReorderBuffer:
    """One whose run may be released as it comes."""
    buffer = ReorderBuffer(limits)
    buffer.add(watermarks(now, now))
    return buffer


def numbers(released: Sequence[Released]) -> list[str]:
    return [uid.rsplit("/", 1)[1] for part in released for uid in part.flows["uid"].to_list()]


def test_a_gap_waits_until_its_number_comes() -> None:
    buffer = begun()
    assert numbers(buffer.add(batch([0, 1, 3, 4]))) == ["0", "1"]
    assert buffer.held_records == 2
    assert buffer.add(watermarks(2_100, 2_100)) == []
    assert numbers(buffer.add(batch([2]))) == ["2", "3", "4"]


def test_a_run_begins_when_all_that_was_sent_before_is_seen() -> None:
    buffer = ReorderBuffer(SHORT)
    assert buffer.add(batch([0], first_ms=1_000)) == []
    assert buffer.add(watermarks(2_000, 2_000, None)) == []
    assert buffer.add(watermarks(2_000, 2_000, 1_099)) == []
    assert numbers(buffer.add(watermarks(2_000, 2_000, 1_100))) == ["0"]


def test_repetitions_are_counted_by_source_and_not_released_again() -> None:
    buffer = begun()
    buffer.add(batch([0, 1]))
    (again,) = buffer.add(batch([1, 1, 2, 2]))
    assert numbers([again]) == ["2"]
    assert again.duplicates == {"zeek": 3}
    assert buffer.counts["duplicate"] == 3


def test_the_end_comes_once_and_behind_everything() -> None:
    buffer = begun()
    assert buffer.add(batch([], end=2)) == []
    (first,) = buffer.add(batch([0]))
    assert not first.is_end
    (last,) = buffer.add(batch([1]))
    assert last.is_end
    assert numbers([last]) == ["1"]
    assert buffer.add(batch([], end=2)) == []


def test_a_gap_is_given_up_when_all_partitions_are_read_far_beyond() -> None:
    buffer = begun(now=4_000)
    buffer.add(batch([0, 2], first_ms=3_000))
    assert buffer.add(watermarks(8_000, 8_000)) == []
    assert numbers(buffer.add(watermarks(8_101, 8_101))) == ["2"]
    assert buffer.counts["given_up"] == 1
    (late,) = buffer.add(batch([1], first_ms=3_001))
    assert numbers([late]) == ["1"]
    assert buffer.counts["late"] == 1


def test_an_end_behind_a_gap_comes_when_the_gap_is_given_up() -> None:
    buffer = begun()
    buffer.add(batch([0], first_ms=3_000, end=5))
    (end,) = buffer.add(watermarks(9_000, 9_000))
    assert end.is_end
    assert buffer.counts["given_up"] == 4


def test_no_more_is_held_back_than_allowed() -> None:
    buffer = begun()
    assert numbers(buffer.add(batch(range(1, 21)))) == []
    released = numbers(buffer.add(batch([21, 22])))
    assert released == [str(number) for number in range(1, 23)]
    assert buffer.counts["given_up"] == 1


def test_a_leap_gives_what_was_before_it() -> None:
    buffer = begun()
    buffer.add(batch([0, 2]))
    leapt = buffer.add(batch([3, MAX_LEAP_NUMBERS + 7, 1 << 60]))
    assert numbers(leapt) == ["2", "3", str(MAX_LEAP_NUMBERS + 7), str(1 << 60)]
    assert buffer.held_records == 0
    assert numbers(buffer.add(batch([1]))) == ["1"]


@pytest.mark.parametrize("holes", [[(0, 1 << 62)], [(3, 9), (0, 2)], [(5, 5)] * 3])
def test_holes_of_any_size(holes: list[tuple[int, int]]) -> None:
    buffer = begun()
    buffer.add(Batch("s", TOPIC, RUN, rows([]), 1_000, holes))
    following = max(last for _, last in holes) + 1
    released = numbers(buffer.add(batch([following])))
    assert released == ([str(following)] if min(first for first, _ in holes) == 0 else [])


def test_unnumbered_records_wait_for_the_slowest_partition() -> None:
    buffer = ReorderBuffer(SHORT)
    buffer.add(watermarks(2_000, 1_000, 1_000))
    assert buffer.add(unnumbered([1_500, 1_600], partition=1)) == []
    assert buffer.add(unnumbered([1_400, 1_550])) == []
    assert numbers(buffer.add(watermarks(2_000, 2_000, 1_650))) == ["1400", "1500", "1550"]
    assert numbers(buffer.add(watermarks(2_100, 2_100, 2_100))) == ["1600"]


def test_a_partition_without_watermarks_stops_holding_the_rest() -> None:
    buffer = ReorderBuffer(SHORT)
    buffer.add(watermarks(2_000, 2_000, 2_000))
    buffer.add(unnumbered([2_500]))
    assert buffer.add(watermarks(2_900, 2_900, None)) == []
    assert numbers(buffer.add(watermarks(3_001, 3_001, None))) == ["2500"]


def test_a_partition_that_is_behind_and_has_watermarks_holds_the_rest() -> None:
    buffer = ReorderBuffer(SHORT)
    buffer.add(unnumbered([2_500]))
    assert buffer.add(watermarks(900_000, 900_000, 1_000)) == []


def test_late_unnumbered_records_are_released_at_once() -> None:
    buffer = ReorderBuffer(SHORT)
    buffer.add(watermarks(2_000, 2_000))
    assert numbers(buffer.add(unnumbered([1_500, 1_700, 2_500]))) == ["1500", "1700"]
    assert buffer.counts["late"] == 0
    buffer.add(watermarks(3_000, 3_000))
    assert numbers(buffer.add(unnumbered([2_800, 2_950]))) == ["2800"]
    assert buffer.counts["late"] == 1


def test_unnumbered_records_are_bounded_too() -> None:
    buffer = ReorderBuffer(SHORT)
    released = buffer.add(unnumbered(range(1_000, 1_030)))
    assert numbers(released) == [str(time) for time in range(1_000, 1_015)]
    assert buffer.held_records == 15


def test_runs_are_remembered_within_bounds() -> None:
    buffer = begun()
    for number in range(3 * REMEMBERED_RUNS):
        assert buffer.add(batch([0], run=f"run-{number}", end=1))[0].is_end
    assert len(buffer.state()["runs"]) == REMEMBERED_RUNS
    (again,) = buffer.add(batch([0], run=f"run-{3 * REMEMBERED_RUNS - 1}"))
    assert again.flows.is_empty()
    assert again.duplicates == {"zeek": 1}
