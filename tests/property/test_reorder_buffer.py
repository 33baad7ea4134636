"""Whatever the partitions, readers, cuts, repetitions and restarts: the same flows in the same
order."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.stream.reorder_buffer import Released, ReorderBuffer
from tests.support.stream_model import Record, Topic, messages

LATER = 10_000_000


def numbered(sensor: str, chance: Random) -> list[Record]:
    """Two runs, one after the other, each ended; some records give no flow, some are sent twice."""
    clock = count(1_000, 7)
    sent: list[Record] = []
    for run in (f"{sensor}-1", f"{sensor}-2"):
        size = chance.randint(0, 25)
        for number in range(size):
            record = Record(
                sensor, run, number, next(clock), "hole" if chance.random() < 0.2 else "flow"
            )
            again = [chance.choice(sent)] if sent else []
            sent += [record, *(again if chance.random() < 0.1 else [])]
        sent.append(Record(sensor, run, size, next(clock), "end"))
    return sent


def unnumbered(sensor: str, chance: Random) -> list[Record]:
    """Records without numbers, at times that never repeat within a partition."""
    return [
        Record(sensor, "", None, 1_000 + 11 * number) for number in range(chance.randint(0, 25))
    ]


def expected_releases(records: list[Record]) -> dict[str, list[str]]:
    """Sensor → what has to be released, in order: uids and ends."""
    expected: dict[str, list[str]] = {}
    for record in records:
        names = expected.setdefault(record.sensor, [])
        name = f"end of {record.run}" if record.kind == "end" else record.uid
        if record.kind != "hole" and name not in names:
            names.append(name)
    return expected


def actual_releases(released: list[Released]) -> dict[str, list[str]]:
    """Sensor → uids and ends as they were released."""
    actual: dict[str, list[str]] = {}
    runs: dict[str, int] = {}
    for part in released:
        assert part.flows["sensor"].unique().to_list() in ([], [part.sensor])
        names = actual.setdefault(part.sensor, [])
        names += part.flows["uid"].to_list()
        if part.is_end:
            runs[part.sensor] = runs.get(part.sensor, 0) + 1
            names.append(f"end of {part.sensor}-{runs[part.sensor]}")
    return actual


@pytest.mark.parametrize("partitions", [1, 4, 16])
@settings(max_examples=40)
@given(seed=st.integers(0, 1 << 32), readers=st.integers(1, 3), restarts=st.booleans())
def test_any_interleaving_gives_the_same_flows_in_the_same_order(
    partitions: int, seed: int, readers: int, restarts: bool
) -> None:
    chance = Random(seed)
    sensors = [numbered("a", chance), unnumbered("b", chance), numbered("c", chance)]
    sent = sorted(
        (record for records in sensors for record in records), key=lambda record: record.time
    )
    topic = Topic.spread(sent, partitions, chance)
    buffer = ReorderBuffer()
    released: list[Released] = []
    for message in messages(topic, min(readers, partitions), chance, LATER):
        released += buffer.add(message)
        if restarts and chance.random() < 0.2:
            state, buffer = buffer.state(), ReorderBuffer()
            buffer.restore(state)
    assert actual_releases(released) == expected_releases(
        [record for records in sensors for record in records]
    )
    assert buffer.held_records == 0
    assert buffer.counts["late"] == buffer.counts["given_up"] == 0
    flows = sum(record.kind == "flow" for records in sensors for record in records)
    assert flows == sum(part.flows.height + sum(part.duplicates.values()) for part in released)
    assert buffer.counts["duplicate"] == sum(sum(part.duplicates.values()) for part in released)
