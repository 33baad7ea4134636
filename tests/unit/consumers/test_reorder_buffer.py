"""What is waited for, for how long, and what becomes of what comes too late."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consumers.stream.reorder_buffer import RUNS, SPAN, Released, ReorderBuffer, ReorderLimits
from ids_plugin.sources.flow_batches import Batch, Watermarks
from tests.support.stream_model import TOPIC, Record, rows

RUN = "a"
SHORT = ReorderLimits(buffer=100, stale=1_000, gap=5_000, held=20)


def batch(numbers: Sequence[int], at: int = 1_000, run: str = RUN, end: int | None = None) -> Batch:
    """Numbered flows of one sensor, one ms apart."""
    records = [Record("s", run, number, at + index) for index, number in enumerate(numbers)]
    return Batch(
        "s", TOPIC, run, rows([(record, 0, record.number or 0) for record in records]), at, end=end
    )


def loose(times: Sequence[int], partition: int = 0) -> Batch:
    """Flows without numbers."""
    records = [(Record("s", "", None, at), partition, at) for at in times]
    return Batch("s", TOPIC, "", rows(records), min(times))


def marks(now: int, *times: int | None) -> Watermarks:
    """How far the topic's partitions are read; None is not told of."""
    told = {f"{TOPIC}/{at}": time for at, time in enumerate(times) if time is not None}
    return Watermarks(now, {TOPIC: len(times)}, told)


def begun(patience: ReorderLimits = SHORT, now: int = 2_000) -> ReorderBuffer:
    """One whose run may be released as it comes."""
    arrival = ReorderBuffer(patience)
    arrival.take(marks(now, now))
    return arrival


def numbers(released: Sequence[Released]) -> list[str]:
    return [uid.rsplit("/", 1)[1] for one in released for uid in one.flows["uid"].to_list()]


def test_a_gap_waits_until_its_number_comes() -> None:
    arrival = begun()
    assert numbers(arrival.take(batch([0, 1, 3, 4]))) == ["0", "1"]
    assert arrival.held == 2
    assert arrival.take(marks(2_100, 2_100)) == []
    assert numbers(arrival.take(batch([2]))) == ["2", "3", "4"]


def test_a_run_begins_when_all_that_was_sent_before_is_seen() -> None:
    arrival = ReorderBuffer(SHORT)
    assert arrival.take(batch([0], at=1_000)) == []
    assert arrival.take(marks(2_000, 2_000, None)) == []
    assert arrival.take(marks(2_000, 2_000, 1_099)) == []
    assert numbers(arrival.take(marks(2_000, 2_000, 1_100))) == ["0"]


def test_repetitions_are_counted_by_source_and_not_given_again() -> None:
    arrival = begun()
    arrival.take(batch([0, 1]))
    (again,) = arrival.take(batch([1, 1, 2, 2]))
    assert numbers([again]) == ["2"]
    assert again.duplicates == {"zeek": 3}
    assert arrival.counts["duplicate"] == 3


def test_the_end_comes_once_and_behind_everything() -> None:
    arrival = begun()
    assert arrival.take(batch([], end=2)) == []
    (first,) = arrival.take(batch([0]))
    assert not first.ended
    (last,) = arrival.take(batch([1]))
    assert last.ended
    assert numbers([last]) == ["1"]
    assert arrival.take(batch([], end=2)) == []


def test_a_gap_is_given_up_when_all_partitions_are_read_far_beyond() -> None:
    arrival = begun(now=4_000)
    arrival.take(batch([0, 2], at=3_000))
    assert arrival.take(marks(8_000, 8_000)) == []
    assert numbers(arrival.take(marks(8_101, 8_101))) == ["2"]
    assert arrival.counts["given_up"] == 1
    (late,) = arrival.take(batch([1], at=3_001))
    assert numbers([late]) == ["1"]
    assert arrival.counts["late"] == 1


def test_an_end_behind_a_gap_comes_when_the_gap_is_given_up() -> None:
    arrival = begun()
    arrival.take(batch([0], at=3_000, end=5))
    (end,) = arrival.take(marks(9_000, 9_000))
    assert end.ended
    assert arrival.counts["given_up"] == 4


def test_no_more_is_held_back_than_allowed() -> None:
    arrival = begun()
    assert numbers(arrival.take(batch(range(1, 21)))) == []
    given = numbers(arrival.take(batch([21, 22])))
    assert given == [str(number) for number in range(1, 23)]
    assert arrival.counts["given_up"] == 1


def test_a_leap_gives_what_was_before_it() -> None:
    arrival = begun()
    arrival.take(batch([0, 2]))
    leapt = arrival.take(batch([3, SPAN + 7, 1 << 60]))
    assert numbers(leapt) == ["2", "3", str(SPAN + 7), str(1 << 60)]
    assert arrival.held == 0
    assert numbers(arrival.take(batch([1]))) == ["1"]


@pytest.mark.parametrize("holes", [[(0, 1 << 62)], [(3, 9), (0, 2)], [(5, 5)] * 3])
def test_holes_of_any_size(holes: list[tuple[int, int]]) -> None:
    arrival = begun()
    arrival.take(Batch("s", TOPIC, RUN, rows([]), 1_000, holes))
    following = max(last for _, last in holes) + 1
    given = numbers(arrival.take(batch([following])))
    assert given == ([str(following)] if min(first for first, _ in holes) == 0 else [])


def test_unnumbered_records_wait_for_the_slowest_partition() -> None:
    arrival = ReorderBuffer(SHORT)
    arrival.take(marks(2_000, 1_000, 1_000))
    assert arrival.take(loose([1_500, 1_600], partition=1)) == []
    assert arrival.take(loose([1_400, 1_550])) == []
    assert numbers(arrival.take(marks(2_000, 2_000, 1_650))) == ["1400", "1500", "1550"]
    assert numbers(arrival.take(marks(2_100, 2_100, 2_100))) == ["1600"]


def test_a_partition_nobody_tells_of_stops_holding_the_rest() -> None:
    arrival = ReorderBuffer(SHORT)
    arrival.take(marks(2_000, 2_000, 2_000))
    arrival.take(loose([2_500]))
    assert arrival.take(marks(2_900, 2_900, None)) == []
    assert numbers(arrival.take(marks(3_001, 3_001, None))) == ["2500"]


def test_a_partition_that_is_behind_and_told_of_holds_the_rest() -> None:
    arrival = ReorderBuffer(SHORT)
    arrival.take(loose([2_500]))
    assert arrival.take(marks(900_000, 900_000, 1_000)) == []


def test_late_unnumbered_records_are_given_at_once() -> None:
    arrival = ReorderBuffer(SHORT)
    arrival.take(marks(2_000, 2_000))
    assert numbers(arrival.take(loose([1_500, 1_700, 2_500]))) == ["1500", "1700"]
    assert arrival.counts["late"] == 0
    arrival.take(marks(3_000, 3_000))
    assert numbers(arrival.take(loose([2_800, 2_950]))) == ["2800"]
    assert arrival.counts["late"] == 1


def test_unnumbered_records_are_bounded_too() -> None:
    arrival = ReorderBuffer(SHORT)
    given = arrival.take(loose(range(1_000, 1_030)))
    assert numbers(given) == [str(at) for at in range(1_000, 1_015)]
    assert arrival.held == 15


def test_runs_are_remembered_within_bounds() -> None:
    arrival = begun()
    for number in range(3 * RUNS):
        assert arrival.take(batch([0], run=f"run-{number}", end=1))[0].ended
    assert len(arrival.state()["runs"]) == RUNS
    (again,) = arrival.take(batch([0], run=f"run-{3 * RUNS - 1}"))
    assert again.flows.is_empty()
    assert again.duplicates == {"zeek": 1}
