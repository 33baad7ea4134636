"""Small logs for tests of the readers: records in our own words, and how to read them."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ids_plugin import registry
from ids_plugin.schema.flow import ZEEK_NAMES, empty
from ids_plugin.schema.reject import Reject
from ids_plugin.sources import Input, Read
from ids_plugin.sources.inputs import read_inputs

FIELDS = tuple(name for name in ZEEK_NAMES if name != "community_id")
START = 1_700_000_000.0


def conn(n: int = 0, **changes: Any) -> dict[str, Any]:
    """A Zeek conn record; None leaves a field out. `id_` stands for `id.` in names of changes."""
    record: dict[str, Any] = {
        "ts": START + n / 8,
        "uid": f"C{n:017d}",
        "id.orig_h": f"192.168.1.{n % 250 + 1}",
        "id.orig_p": 40000 + n % 20000,
        "id.resp_h": "198.51.100.7",
        "id.resp_p": 443,
        "proto": "tcp",
        "service": "ssl",
        "duration": 0.25,
        "orig_bytes": 300,
        "resp_bytes": 4000,
        "conn_state": "SF",
        "local_orig": True,
        "local_resp": False,
        "missed_bytes": 0,
        "history": "ShADadFf",
        "orig_pkts": 7,
        "orig_ip_bytes": 700,
        "resp_pkts": 9,
        "resp_ip_bytes": 4500,
        "ip_proto": 6,
    }
    record |= {name.replace("id_", "id."): value for name, value in changes.items()}
    return {name: value for name, value in record.items() if value is not None}


def eve(n: int = 0, **changes: Any) -> dict[str, Any]:
    """A Suricata flow event; `flow` and `tcp` are merged with what there is."""
    record: dict[str, Any] = {
        "timestamp": "2024-05-01T12:05:00.000000+0200",
        "flow_id": 1_000_000_000_000 + n,
        "event_type": "flow",
        "src_ip": "10.0.0.5",
        "src_port": 51000 + n,
        "dest_ip": "198.51.100.7",
        "dest_port": 443,
        "proto": "TCP",
        "app_proto": "tls",
        "flow": {
            "pkts_toserver": 10,
            "pkts_toclient": 12,
            "bytes_toserver": 1500,
            "bytes_toclient": 9000,
            "start": f"2024-05-01T12:00:{n % 60:02d}.000001+0200",
            "end": f"2024-05-01T12:01:{n % 60:02d}.500001+0200",
            "state": "closed",
            "reason": "timeout",
            "alerted": False,
        },
        "tcp": {"tcp_flags": "1b", "tcp_flags_ts": "1b", "tcp_flags_tc": "1b", "state": "closed"},
    }
    for name, value in changes.items():
        record[name] = record[name] | value if isinstance(value, dict) and name in record else value
    return {name: value for name, value in record.items() if value is not None}


def document(n: int = 0) -> dict[str, Any]:
    """A connection as Elastic's Zeek integration writes it."""
    return {
        "@timestamp": f"2024-05-01T12:00:{n % 60:02d}.857Z",
        "event": {"dataset": "zeek.connection", "duration": 76_967_000, "id": f"C{n}"},
        "network": {"transport": "udp", "protocol": "dns"},
        "source": {"ip": "10.0.0.5", "port": 40000 + n, "bytes": 103, "packets": 1},
        "destination": {"ip": "198.51.100.7", "port": 53, "bytes": 206, "packets": 1},
        "zeek": {
            "session_id": f"C{n}",
            "connection": {"state": "SF", "history": "Dd", "local_orig": True},
        },
    }


def jsonl(records: Iterable[object]) -> bytes:
    """Records as JSON lines."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def tsv(
    records: Iterable[dict[str, Any]],
    fields: Sequence[str] = FIELDS,
    path: str = "conn",
    separator: str = "\t",
    unset: str = "-",
) -> bytes:
    """Records as a Zeek TSV log."""

    def text(value: object) -> str:
        if value is None:
            return unset
        return {True: "T", False: "F"}[value] if isinstance(value, bool) else str(value)

    head = [f"#separator \\x{ord(separator):02x}"]
    head += [
        separator.join(pair)
        for pair in (("#unset_field", unset), ("#path", path), ("#fields", *fields))
    ]
    rows = [separator.join(text(record.get(name)) for name in fields) for record in records]
    return ("\n".join([*head, *rows]) + "\n").encode()


def read(
    data: bytes,
    kind: str = "zeek",
    *,
    rows: int = 8192,
    name: str = "conn.log",
    sensor: str = "default",
) -> Got:
    """All that the plugin `kind` reads from `data`."""
    source = Input(name, io.BytesIO(data), data[:65536], sensor)
    return Got(registry.load("sources", kind).read(source, rows))


def read_files(*specs: Path | str, rows: int = 8192, **options: Any) -> Got:
    """All that the inputs hold."""
    return Got(
        read_inputs([str(spec) for spec in specs], batch_rows=rows, stdin=io.BytesIO(), **options)
    )


class Got:
    """What a reader gave; its counts balance."""

    def __init__(self, steps: Iterator[Read]) -> None:
        self.steps = list(steps)
        self.flows = pl.concat([empty(), *(step.flows for step in self.steps)])
        self.rejects: list[Reject] = [reject for step in self.steps for reject in step.rejects]
        self.out_of_scope: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        for step in self.steps:
            assert step.flows.schema == empty().schema
            assert step.read == step.flows.height + len(step.rejects) + sum(
                step.out_of_scope.values()
            )
            self.out_of_scope.update(step.out_of_scope)
            self.notes.update(step.notes)

    @property
    def reasons(self) -> list[str]:
        """Reasons of the rejects, in order."""
        return [reject.reason for reject in self.rejects]

    @property
    def row(self) -> dict[str, Any]:
        """The only flow."""
        assert self.flows.height == 1, (self.flows, self.rejects)
        return self.flows.row(0, named=True)
