"""Whatever comes as a message is accounted for, and how messages are cut into polls changes
nothing."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from polars.testing import assert_frame_equal

from ids_plugin.sources.messages import Fetched, MessageReader, Messages
from tests.support.message_fuzz import NOW, fuzz, messages


def test_mutated_messages_are_accounted_for() -> None:
    found = fuzz(4_000)
    assert found["messages"] == 4_000
    assert all(found[what] > 200 for what in ("flows", "rejects", "out of scope"))


def cut(whole: Fetched, step: int) -> list[Fetched]:
    """The same messages in polls of `step`."""
    return [
        whole._replace(
            offsets=whole.offsets[at : at + step],
            times=whole.times[at : at + step],
            values=whole.values[at : at + step],
            headers=whole.headers[at : at + step],
        )
        for at in range(0, len(whole.offsets), step)
    ]


def rows(found: Sequence[Messages]) -> pl.DataFrame:
    frames = [
        batch.rows.with_columns(run=pl.lit(batch.run)) for one in found for batch in one.batches
    ]
    return pl.concat(frames).sort("offset", "uid", "run", "ts", "orig_p")


def test_how_messages_are_cut_into_polls_changes_nothing() -> None:
    whole = cut(next(part for part in messages(5_000, 5) if len(part.offsets) == 1_000), 400)[0]
    once = [MessageReader().read([whole], NOW)]
    for step in (1, 13, 200):
        reader = MessageReader()
        found = [reader.read([part], NOW) for part in cut(whole, step)]
        assert_frame_equal(rows(found), rows(once))
        rejects = [[(one.offset, one.reason, one.data) for one in part.rejects] for part in found]
        assert [one for part in rejects for one in part] == [
            (one.offset, one.reason, one.data) for one in once[0].rejects
        ]
        assert sum(part.ledger.total.read for part in found) == once[0].ledger.total.read
