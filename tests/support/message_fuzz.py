"""Mutated messages over all envelopes, and the promise that each of them is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from ids_plugin.sources.flow_batches import Batch, decode, encode
from ids_plugin.sources.messages import Fetched, Header, MessageReader
from tests.property.fuzz_sources import TOKENS, mutated
from tests.support.logs import conn, document, eve

NOW = 2_000_000_000_000
RUN = "00000000000000a1"


def record(number: int, chance: Random) -> bytes:
    """A good record in one of the envelopes, or one of another log."""
    iso = "2023-11-14T22:13:20.500000Z"
    records: list[Any] = [
        conn(number),
        conn(number, ts=int(1_700_000_000_000 + number)),
        {"conn": conn(number), "site": "x"},
        {"conn-2": conn(number, ts=iso)},
        conn(number, ts=iso, _path="conn", _write_ts=iso, _system_name="core"),
        {"@timestamp": iso, "message": json.dumps(conn(number)), "host": {"name": "beat"}},
        {"@timestamp": iso, "message": json.dumps(eve(number))},
        eve(number),
        document(number),
        {"_source": document(number)},
        {"dns": {"ts": 1_700_000_000.5, "uid": "C"}},
        {**eve(number), "event_type": "tls"},
    ]
    return json.dumps(chance.choice(records), indent=chance.choice([None, None, None, 1])).encode()


def value(number: int, chance: Random) -> bytes | None:
    """A message: half of them good, the others changed, joined, cut or nothing."""
    kind = chance.randrange(20)
    if kind == 0:
        return chance.choice(
            [None, b"", b"\n\n", chance.choice(TOKENS), chance.randbytes(chance.randrange(300))]
        )
    if kind == 1:
        return b"\n".join(record(number, chance) for _ in range(chance.randrange(4)))
    return mutated(record(number, chance), chance) if kind < 11 else record(number, chance)


def headers(number: int, chance: Random) -> list[Header]:
    """Headers of our own senders on a third of them, some damaged."""
    kind = chance.randrange(12)
    sent = [
        ("ids-sensor", b"s"),
        ("ids-seq", f"{RUN}:{number}".encode()),
        ("x", chance.randbytes(3)),
    ]
    if kind == 0:
        sent = [(name, mutated(text, chance)) for name, text in sent]
    if kind == 1:
        sent.append(("ids-end", b"1"))
    return sent if kind < 4 else []


def messages(count: int, seed: int, partition: int = 0) -> Iterator[Fetched]:
    """`count` messages of one partition, in polls of any size."""
    chance = Random(seed)
    done = 0
    while done < count:
        size = min(count - done, chance.choice([1, 7, 100, 1_000]))
        numbers = range(done, done + size)
        times = [
            chance.choice([-1, 0, NOW - 1_000, NOW - number, NOW + 10**9]) for number in numbers
        ]
        values = [value(number, chance) for number in numbers]
        yield Fetched(
            "zeek",
            partition,
            numbers,
            times,
            values,
            [headers(number, chance) for number in numbers],
        )
        done += size


def check(fetched: Fetched, reader: MessageReader) -> Counter[str]:
    """Reads messages: each gave flows, is rejected, out of scope or an end mark.

    Batches come back from their encoded form.

    Raises:
        AssertionError: a message isn't accounted for.
    """
    messages_read = reader.read([fetched], NOW)
    total = messages_read.ledger.total
    flows = sum(batch.rows.height for batch in messages_read.batches)
    assert total.read == flows + total.value("out_of_scope") + len(messages_read.rejects), (
        "the counts don't balance"
    )
    assert total.value("rejected") == len(messages_read.rejects)
    ends = {batch.end for batch in messages_read.batches if batch.run and batch.end is not None}
    accounted = {reject.offset for reject in messages_read.rejects}
    for batch in messages_read.batches:
        accounted |= set(batch.rows["offset"].to_list())
        parts = [decode(*message, "place") for message in encode(batch, 50_000)]
        assert (
            sum(part.rows.height for part in parts if isinstance(part, Batch)) == batch.rows.height
        )
    silent = len(set(fetched.offsets) - accounted)
    marks = 0
    for value, several in zip(fetched.values, fetched.headers, strict=True):
        marks += not value and any(name == "ids-end" for name, _ in several)
    assert silent <= total.value("out_of_scope") + marks, "a message vanished"
    assert len(ends) <= marks
    return Counter(
        {
            "flows": flows,
            "rejects": len(messages_read.rejects),
            "out of scope": total.value("out_of_scope"),
        }
    )


def fuzz(count: int, seed: int = 1) -> Counter[str]:
    """Reads `count` mutated messages.

    Returns:
        What became of them, and of how many in `messages`.
    """
    reader = MessageReader({"zeek": "branch"})
    outcomes: Counter[str] = Counter()
    for fetched in messages(count, seed):
        outcomes += check(fetched, reader) + Counter(messages=len(fetched.offsets))
    return outcomes
