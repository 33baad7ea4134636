"""Between reading and committing: the same records give the same documents, whoever goes on
where."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from consumers.stream.checkpoints import CheckpointPointer
from consumers.stream.detector import Detector
from ids_plugin import bundle, checkpoint, config
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Ledger
from ids_plugin.sources.flow_batches import Watermarks, encode, encode_watermarks
from tests.support.detect_harness import SENSORS, START, expected, pieces, plain

CONFIG = config.Config()


class Record(NamedTuple):
    """As kafka-python gives detector."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes]]


def new_detector() -> Detector:
    return Detector(CONFIG, bundle.read(bundle.find("default")))


def topic(chance: Random) -> dict[int, list[Record]]:
    """Records of all sensors, a partition each, with marks between them."""
    records: dict[int, list[Record]] = {number: [] for number in range(len(SENSORS))}

    def add(partition: int, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        records[partition].append(
            Record("flows", partition, len(records[partition]), value, headers)
        )

    for number, portion in enumerate(pieces(chance, 6), 1):
        for batch in portion:
            for value, headers in encode(batch):
                add(list(SENSORS).index(batch.sensor), value, headers)
        now = START + 60_000 + 1_000 * number
        for partition in records:
            add(partition, *encode_watermarks(Watermarks(now, {"zeek": 1}, {"zeek/0": now})))
    return records


def rounds(records: dict[int, list[Record]], chance: Random) -> Iterator[list[Record]]:
    """Portions as polls give them: the order of each partition is stored."""
    waiting = {partition: list(some) for partition, some in records.items()}
    while any(waiting.values()):
        partition = chance.choice([number for number in waiting if waiting[number]])
        most = chance.randint(1, 30)
        yield waiting[partition][:most]
        del waiting[partition][:most]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_records_give_the_same_documents_wherever_another_process_goes_on(
    seed: int,
) -> None:
    chance, detector = Random(seed), new_detector()
    documents: list[Document] = []
    ledger = Ledger()
    records = topic(chance)
    for portion in rounds(records, chance):
        for record in portion:
            detector.add(record)
        documents += detector.step()
        ledger += detector.take_ledger()
        if chance.random() < 0.15:
            stored = {
                partition: checkpoint.dump(detector.state(partition)) for partition in records
            }
            detector = new_detector()
            assert [
                detector.restore(partition, checkpoint.load(data))
                for partition, data in stored.items()
            ] == [[], [], []]
    wanted, total = expected()
    assert {document["event"]["id"]: plain(document) for document in documents} == wanted
    assert len(documents) == len(wanted)
    assert (ledger.total.scored, ledger.total.opened) == (total.total.scored, total.total.opened)
    assert detector.held_flows == detector.pipeline.pairs == 0


def test_what_is_undone_or_forgotten_leaves_nothing_behind() -> None:
    detector, records = new_detector(), topic(Random(4))
    for record in records[0][:40]:
        detector.add(record)
    assert detector.ready_flows > 0
    detector.discard_pending()
    assert (detector.ready_flows, detector.step(), detector.take_ledger()) == (0, [], Ledger())
    detector.forget(0)
    assert checkpoint.dump(detector.state(0)) == checkpoint.dump(new_detector().state(0))
    for record in (*records[1], Record("flows", 1, 9_999, b"nothing of ours", [])):
        detector.add(record)
    assert [(bad.record.offset, "flows/1/9999" in bad.detail) for bad in detector.unreadable] == [
        (9_999, True)
    ]
    detector.clear()
    assert (detector.unreadable, detector.pipeline.pairs, detector.held_flows) == ([], 0, 0)


@pytest.mark.parametrize(
    "text", ["", "{}", "null", "[]", "no JSON", '{"offset": 1, "bundle": "x", "odd": 2}']
)
def test_metadata_that_is_no_pointer_is_none(text: str) -> None:
    assert CheckpointPointer.parse(text) is None


def test_a_pointer_fits_an_offsets_metadata() -> None:
    pointer: Any = CheckpointPointer(
        1 << 62, "ab" * 32, 2**31 - 1, 1, 1 << 62, 1 << 62, 100_000, "cd" * 32
    )
    assert CheckpointPointer.parse(str(pointer)) == pointer
    assert len(str(pointer)) < 4096
