"""Between reading and committing: the same records give the same documents, whoever goes on where."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from consumers.stream.checkpoints import Pointer
from consumers.stream.detector import Detector
from ids_plugin import bundle, checkpoint, config
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Ledger
from ids_plugin.sources.flow_batches import Watermarks, encode, encode_watermarks
from tests.support.detect_harness import SENSORS, START, expected, pieces, plain

CONFIG = config.Config()


class Record(NamedTuple):
    """As kafka-python gives one."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes]]


def detector() -> Detector:
    return Detector(CONFIG, bundle.read(bundle.find("default")))


def topic(chance: Random) -> dict[int, list[Record]]:
    """Records of all sensors, a partition each, with marks between them."""
    found: dict[int, list[Record]] = {number: [] for number in range(len(SENSORS))}

    def add(partition: int, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        found[partition].append(Record("flows", partition, len(found[partition]), value, headers))

    for number, portion in enumerate(pieces(chance, 6), 1):
        for batch in portion:
            for value, headers in encode(batch):
                add(list(SENSORS).index(batch.sensor), value, headers)
        now = START + 60_000 + 1_000 * number
        for partition in found:
            add(partition, *encode_watermarks(Watermarks(now, {"zeek": 1}, {"zeek/0": now})))
    return found


def rounds(records: dict[int, list[Record]], chance: Random) -> Iterator[list[Record]]:
    """Portions as polls give them: the order of each partition is kept."""
    waiting = {partition: list(some) for partition, some in records.items()}
    while any(waiting.values()):
        partition = chance.choice([one for one in waiting if waiting[one]])
        most = chance.randint(1, 30)
        yield waiting[partition][:most]
        del waiting[partition][:most]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_records_give_the_same_documents_wherever_another_process_goes_on(
    seed: int,
) -> None:
    chance, one = Random(seed), detector()
    documents: list[Document] = []
    ledger = Ledger()
    records = topic(chance)
    for portion in rounds(records, chance):
        for record in portion:
            one.take(record)
        documents += one.step()
        ledger += one.counted()
        if chance.random() < 0.15:
            kept = {partition: checkpoint.dump(one.state(partition)) for partition in records}
            one = detector()
            assert [
                one.restore(partition, checkpoint.load(data)) for partition, data in kept.items()
            ] == [[], [], []]
    wanted, total = expected()
    assert {document["event"]["id"]: plain(document) for document in documents} == wanted
    assert len(documents) == len(wanted)
    assert (ledger.total.scored, ledger.total.opened) == (total.total.scored, total.total.opened)
    assert one.held == one.pipeline.pairs == 0


def test_what_is_undone_or_forgotten_leaves_nothing_behind() -> None:
    one, records = detector(), topic(Random(4))
    for record in records[0][:40]:
        one.take(record)
    assert one.waiting > 0
    one.undo()
    assert (one.waiting, one.step(), one.counted()) == (0, [], Ledger())
    one.forget(0)
    assert checkpoint.dump(one.state(0)) == checkpoint.dump(detector().state(0))
    for record in (*records[1], Record("flows", 1, 9_999, b"nothing of ours", [])):
        one.take(record)
    assert [(bad.record.offset, "flows/1/9999" in bad.detail) for bad in one.unreadable] == [
        (9_999, True)
    ]
    one.clear()
    assert (one.unreadable, one.pipeline.pairs, one.held) == ([], 0, 0)


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[]", "no JSON", '{"offset": 1, "bundle": "x", "odd": 2}']
)
def test_metadata_that_is_no_pointer_is_none(text: str) -> None:
    assert Pointer.parse(text) is None


def test_a_pointer_fits_an_offsets_metadata() -> None:
    pointer: Any = Pointer(1 << 62, "ab" * 32, 2**31 - 1, 1, 1 << 62, 1 << 62, 100_000, "cd" * 32)
    assert Pointer.parse(str(pointer)) == pointer
    assert len(str(pointer)) < 4096
