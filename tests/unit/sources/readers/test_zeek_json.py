"""Lines of files as messages that stand alone."""

from __future__ import annotations

import io
from pathlib import Path

import orjson
import pytest

from ids_plugin.schema.flow import empty
from ids_plugin.sources import Input, ReadOptions
from ids_plugin.sources.readers.zeek_json import messages
from ids_plugin.sources.zeek import PLUGIN
from tests.support.shared_data import shared

HEADER = b"""#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#path\tconn
#open\t2026-11-21-10-00-00
#fields\tts\tuid\tid.orig_p\tduration\tlocal_orig\tservice\ttunnel_parents\thistory
#types\ttime\tstring\tport\tinterval\tbool\tstring\tset[string]\tstring
"""


def translated(line: bytes) -> object:
    (found,) = messages("/logs/conn.log", HEADER, [line])
    return orjson.loads(found)


def test_a_record_of_each_kind_of_field() -> None:
    line = b"1591367999.305988\tC1\t443\t0.000010\tT\tssl,-http\tCa,Cb\tSh\\x41d"
    assert translated(line) == {
        "conn": {
            "ts": 1591367999.305988,
            "uid": "C1",
            "id.orig_p": 443,
            "duration": 0.00001,
            "local_orig": True,
            "service": "ssl,-http",
            "tunnel_parents": ["Ca", "Cb"],
            "history": "ShAd",
        }
    }


def test_unset_fields_are_left_out_and_empty_ones_are_empty() -> None:
    assert translated(b"1.5\tC1\t0\t-\tF\t(empty)\t(empty)\t-") == {
        "conn": {
            "ts": 1.5,
            "uid": "C1",
            "id.orig_p": 0,
            "local_orig": False,
            "service": "",
            "tunnel_parents": [],
        }
    }


@pytest.mark.parametrize(
    "line", [b"1.5\tC1", b"x\tC1\t0\t-\tF\t-\t-\t-", b"1.5\tC1\t0\t-\tmaybe\t-\t-\t-"]
)
def test_a_record_unlike_its_header_stays_as_it_is(line: bytes) -> None:
    assert list(messages("conn.log", HEADER, [line])) == [line]


def test_directives_among_the_records_count_from_there_on() -> None:
    lines = [
        *HEADER.splitlines(),
        b"1.5\tC1\t0\t-\t-\t-\t-\t-",
        b"#close\t2026",
        b"#path\tdns",
        b"2.5\tC2\t0\t-\t-\t-\t-\t-",
    ]
    found = [orjson.loads(message) for message in messages("x", b"", lines)]
    assert found == [
        {"conn": {"ts": 1.5, "uid": "C1", "id.orig_p": 0}},
        {"dns": {"ts": 2.5, "uid": "C2", "id.orig_p": 0}},
    ]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("/l/open_conn.log", b'{"ts":1}', b'{"open_conn":{"ts":1}}'),
        ("/l/conn.2026-11-21-10-00-00.log.gz", b'{"ts":1}', b'{"conn":{"ts":1}}'),
        ("conn-2026-11-21.log", b'{"ts":1}', b'{"conn":{"ts":1}}'),
        ("conn.log", b'{"_path":"conn","ts":1}', b'{"_path":"conn","ts":1}'),
        ("eve.json", b'{"timestamp":"x"}', b'{"timestamp":"x"}'),
        ("2026.log", b'{"ts":1}', b'{"ts":1}'),
        ("/logs/dns.pcap.17.json", b'{"ts":1}', b'{"ts":1}'),
    ],
)
def test_json_of_zeek_gets_its_path(name: str, line: bytes, message: bytes) -> None:
    assert list(messages(name, b"", [line])) == [message]


def test_real_logs_read_the_same_as_messages() -> None:
    for log in sorted((shared("zeek-8.0.8")).glob("*/conn.log")):
        data = log.read_bytes()
        sent = b"\n".join(messages(str(log), b"", data.splitlines())) + b"\n"
        found = [
            [
                step.flows
                for step in PLUGIN.read(
                    Input("conn", io.BytesIO(part), part[: 1 << 16], "s", ReadOptions()), 1000
                )
            ]
            for part in (data, sent)
        ]
        ours, theirs = [empty().vstack(frames[0]) if frames else empty() for frames in found]
        assert ours.drop("origin").equals(theirs.drop("origin")), Path(log).parent.name
