"""Strategies for lines of logs: good, odd, damaged; and streams that give them in pieces of any
size."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.support.logs import conn, document, eve

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.integers(0, 70000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        [
            "-",
            "",
            "(empty)",
            "10.0.0.1",
            "::1",
            "1e400",
            "T",
            "[1]",
            "{}",
            "conn",
            "2023-11-14T22:13:20Z",
            "a,b",
        ]
    ),
    st.lists(st.one_of(st.text(max_size=3), st.integers(0, 9)), max_size=3),
    st.dictionaries(
        st.sampled_from(["ts", "ip", "orig_h", "start", "x"]), st.integers(0, 9), max_size=2
    ),
)
ZEEK_FIELDS = (*conn(), "tunnel_parents", "_path", "_system_name", "label", "id", "conn", "message")
EVE_FIELDS = (
    *eve(),
    *(f"flow {name}" for name in eve()["flow"]),
    *(f"tcp {name}" for name in eve()["tcp"]),
)
ECS_FIELDS = (
    *document(),
    "source ip",
    "source port",
    "source bytes",
    "source ip_bytes",
    "event duration",
    "event dataset",
)
PATHS: dict[str, list[tuple[str, ...]]] = {
    "zeek": [(name,) for name in ZEEK_FIELDS],
    "suricata": [tuple(name.split(" ")) for name in (*EVE_FIELDS, "icmp_type", "vlan", "host")],
    "ecs": [
        tuple(name.split(" "))
        for name in (*ECS_FIELDS, "zeek session_id", "zeek connection", "network connection")
    ],
}
MAKERS: dict[str, Callable[[int], dict[str, Any]]] = {
    "zeek": conn,
    "suricata": eve,
    "ecs": document,
}


@st.composite
def records(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """A record of a kind with up to three values replaced by odd ones, in an envelope or bare."""
    record = MAKERS[kind](draw(st.integers(0, 50)))
    for path in draw(st.lists(st.sampled_from(PATHS[kind]), max_size=3)):
        at = record
        for key in path[:-1]:
            at = at.setdefault(key, {}) if isinstance(at.get(key, {}), dict) else {}
        at[path[-1]] = draw(ODD)
    wrap = draw(st.sampled_from(["", "", "", "", "tag", "message", "_source"]))
    if wrap == "tag" and kind == "zeek":
        return {draw(st.sampled_from(["conn", "conn-2", "dns"])): record}
    if wrap == "message":
        return {"message": json.dumps(record)}
    return {"_source": record} if wrap == "_source" and kind == "ecs" else record


def lines(kind: str) -> st.SearchStrategy[bytes]:
    """A line without its newline."""
    good = st.builds(MAKERS[kind], st.integers(0, 50)).map(
        lambda record: json.dumps(record).encode()
    )
    odd = records(kind).map(lambda record: json.dumps(record).encode())
    cut = st.tuples(odd, st.integers(0, 300)).map(lambda pair: pair[0][: pair[1]])
    junk = st.binary(max_size=30).map(lambda data: data.replace(b"\n", b" "))
    return st.one_of(
        good,
        good,
        odd,
        odd,
        odd,
        cut,
        junk,
        st.sampled_from([b"", b" ", b"\r", b"{}", b"[]", b"null", b'{"a":"\\ud800"}']),
    )


class Dribble(io.BytesIO):
    """A stream that gives at most `step` bytes a read."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self.step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.step if size is None or size < 0 else min(size, self.step))
