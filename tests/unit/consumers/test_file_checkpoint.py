"""What ship remembers, as it stands on the topic."""

from __future__ import annotations

import orjson

from consumers.shipping.file_checkpoint import Journal
from consumers.shipping.tail import Place

PLACE = Place(3, "/var/log/eve.json", "ab", 1, 2, 17)


def replayed(who: str, journal: Journal, *changes: dict[int, Place | None]) -> Journal:
    """What `who` reads of what a journal wrote."""
    again = Journal(who)
    for change in changes:
        for message in journal.messages("ids.places", change):
            assert message.key is not None
            again.take(message.key.decode(), orjson.loads(message.value))
    return again


def test_a_journal_is_read_as_it_was_written() -> None:
    journal = Journal("ids-ship-zeek/a", sent=41, since={"/var/log/*.json": 12.5})
    again = replayed("ids-ship-zeek/a", journal, {3: PLACE})
    assert (again.run, again.sent, again.since, again.places) == (
        journal.run,
        41,
        journal.since,
        {3: PLACE},
    )


def test_later_places_replace_earlier_ones_and_forgotten_ones_are_gone() -> None:
    later = Place(3, "/var/log/eve.json", "ab", 1, 2, 99, True)
    journal = Journal("a")
    assert replayed("a", journal, {3: PLACE, 4: PLACE}, {3: later, 4: None}).places == {3: later}


def test_other_instances_are_left_alone() -> None:
    journal = Journal("ids-ship-zeek/a", sent=5)
    again = replayed("ids-ship-zeek/b", journal, {3: PLACE})
    assert (again.sent, again.places) == (0, {})
    assert again.run != journal.run
