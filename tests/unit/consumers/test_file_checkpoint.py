"""What ship remembers, as it stands on the topic."""

from __future__ import annotations

import orjson

from consumers.shipping.file_checkpoint import FileCheckpoint
from consumers.shipping.tail import FileOffset

OFFSET = FileOffset(3, "/var/log/eve.json", "ab", 1, 2, 17)


def replayed(
    who: str, checkpoint: FileCheckpoint, *changes: dict[int, FileOffset | None]
) -> FileCheckpoint:
    """What `who` reads of what a checkpoint wrote."""
    again = FileCheckpoint(who)
    for change in changes:
        for record in checkpoint.records("ids.places", change):
            assert record.key is not None
            again.apply(record.key.decode(), orjson.loads(record.value))
    return again


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    checkpoint = FileCheckpoint("ids-ship-zeek/a", sent=41, since={"/var/log/*.json": 12.5})
    again = replayed("ids-ship-zeek/a", checkpoint, {3: OFFSET})
    assert (again.run, again.sent, again.since, again.offsets) == (
        checkpoint.run,
        41,
        checkpoint.since,
        {3: OFFSET},
    )


def test_later_offsets_replace_earlier_ones_and_forgotten_ones_are_gone() -> None:
    later = FileOffset(3, "/var/log/eve.json", "ab", 1, 2, 99, True)
    checkpoint = FileCheckpoint("a")
    assert replayed("a", checkpoint, {3: OFFSET, 4: OFFSET}, {3: later, 4: None}).offsets == {
        3: later
    }


def test_other_instances_are_left_alone() -> None:
    checkpoint = FileCheckpoint("ids-ship-zeek/a", sent=5)
    again = replayed("ids-ship-zeek/b", checkpoint, {3: OFFSET})
    assert (again.sent, again.offsets) == (0, {})
    assert again.run != checkpoint.run
