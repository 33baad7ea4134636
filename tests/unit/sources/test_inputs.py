"""Inputs: what is found, how it is opened, what is said when it can't be."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ids_plugin.errors import InputError
from ids_plugin.schema.reject import WHOLE
from ids_plugin.sources.inputs import open_inputs, read_inputs
from tests.support.logs import conn, document, eve, jsonl, read_files, tsv


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def kinds(*specs: Path | str) -> list[tuple[str, str | None]]:
    found = open_inputs([str(spec) for spec in specs], stdin=io.BytesIO())
    return [(Path(one.input.name).name, one.source.name if one.source else None) for one in found]


def test_kinds_are_told_apart_by_content_not_by_name(tmp_path: Path) -> None:
    for name, data in {
        "a.pcap": jsonl([conn()]),
        "b": tsv([conn()]),
        "c.log": jsonl([eve()]),
        "d": jsonl([document()]),
    }.items():
        put(tmp_path, name, data)
    assert kinds(tmp_path) == [
        ("a.pcap", "zeek"),
        ("b", "zeek"),
        ("c.log", "suricata"),
        ("d", "ecs"),
    ]


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        zstandard.compress,
        lambda data: gzip.compress(data[:900]) + gzip.compress(data[900:]),
    ],
)
def test_compressed_inputs(tmp_path: Path, pack: object) -> None:
    assert callable(pack)
    path = put(tmp_path, "conn.log", pack(jsonl([conn(n) for n in range(20)])))
    got = read_files(path)
    assert (got.flows.height, got.rejects) == (20, [])


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_compressed_input_cut_in_the_middle_gives_what_came_before(
    tmp_path: Path, pack: object
) -> None:
    assert callable(pack)
    noise = [conn(n, uid=os.urandom(16).hex()) for n in range(20_000)]
    whole = pack(jsonl(noise))
    got = read_files(put(tmp_path, "conn.log", whole[: len(whole) // 2]))
    assert 5_000 < got.flows.height < 15_000
    assert set(got.reasons) == {"cut_off"}
    assert got.rejects[-1].place == f"byte {len(whole) // 2}"


def test_damage_inside_compressed_data_is_a_reject(tmp_path: Path) -> None:
    whole = bytearray(
        gzip.compress(jsonl([conn(n, uid=os.urandom(16).hex()) for n in range(20_000)]))
    )
    whole[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    got = read_files(put(tmp_path, "conn.log.gz", bytes(whole)))
    assert got.flows.height > 1000
    assert "bad_compression" in got.reasons or "cut_off" in got.reasons


def test_directories_come_sorted_and_unknown_members_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "b/conn.log", jsonl([conn(1)]))
    put(tmp_path, "a/conn.log", tsv([conn(2)]))
    put(tmp_path, "a/dns.log", tsv([conn()], ["ts", "uid"], path="dns"))
    put(tmp_path, "picture.png", b"\x89PNG\r\n\x1a\n" + bytes(64))
    put(tmp_path, "empty.log", b"")
    put(tmp_path, ".hidden", jsonl([conn(3)]))
    got = read_files(tmp_path)
    assert got.flows["uid"].to_list() == [conn(2)["uid"], conn(1)["uid"]]
    assert got.flows["origin"].to_list() == [f"{tmp_path}/a/conn.log:5", f"{tmp_path}/b/conn.log:1"]
    assert got.out_of_scope == {"facts_dns": 1}
    assert got.notes == {"unknown_inputs": 1, "empty_inputs": 1}


def test_globs_and_standard_input(tmp_path: Path) -> None:
    for n in range(3):
        put(tmp_path, f"conn.{n}.log", jsonl([conn(n)]))
    assert read_files(tmp_path / "conn.*.log").flows.height == 3
    steps = read_inputs(["-"], batch_rows=100, stdin=io.BytesIO(gzip.compress(jsonl([conn(9)]))))
    assert [step.flows["origin"].to_list() for step in steps if step.flows.height] == [["-:1"]]


def test_sensors_by_glob(tmp_path: Path) -> None:
    for name in ("east/conn.log", "west/conn.log"):
        put(tmp_path, name, jsonl([conn()]))
    got = read_files(tmp_path, sensors=[("e", "*/east/*")])
    assert got.flows["sensor"].to_list() == ["e", "default"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.bin", bytes(range(1, 200)), "no known kind"),
        ("notes.txt", b"Dear diary\n", "it begins with 'Dear diary"),
        (None, b"", "no such file"),
    ],
)
def test_a_named_file_that_cannot_be_read_says_why(
    tmp_path: Path, name: str | None, data: bytes, message: str
) -> None:
    path = put(tmp_path, name, data) if name else tmp_path / "absent.log"
    with pytest.raises(InputError, match=message) as error:
        read_files(path)
    assert str(path) in str(error.value)
    assert error.value.exit_code == 3


def test_nothing_known_in_a_directory_or_glob(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty directory"):
        read_files(tmp_path)
    put(tmp_path, "notes.txt", b"Dear diary\n")
    with pytest.raises(InputError, match="nothing of a known kind"):
        read_files(tmp_path)
    with pytest.raises(InputError, match="no file matches"):
        read_files(tmp_path / "*.pcap")


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    got = read_files(put(tmp_path, "conn.log", b""))
    assert (got.flows.height, got.notes) == (0, {"empty_inputs": 1})


def test_what_cannot_be_opened_is_an_error_alone_and_a_reject_beside_others(tmp_path: Path) -> None:
    good = put(tmp_path, "a.log", jsonl([conn(1)]))
    for bad, why in (
        (tmp_path / "absent.log", "no such file"),
        (put(tmp_path, "notes.txt", b"Dear diary"), "it begins"),
    ):
        with pytest.raises(InputError, match=why):
            read_files(bad)
        got = read_files(bad, good)
        assert got.flows.height == 1
        assert [(one.input, one.place, one.reason) for one in got.rejects] == [
            (str(bad), WHOLE, "unreadable")
        ]


def test_a_disk_that_fails_while_reading_keeps_what_came_before() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            if not found:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return found

    whole = jsonl([conn(n) for n in range(2000)])
    steps = list(read_inputs(["-"], batch_rows=100, stdin=Failing(whole)))
    assert sum(step.flows.height for step in steps) > 1000
    assert [(one.reason, one.detail) for step in steps for one in step.rejects][-1] == (
        "unreadable", "can't be read: input/output error"
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0, reason="not possible here: root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = put(tmp_path, "conn.log", jsonl([conn()]))
    path.chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        read_files(path)


def test_one_refused_input_is_a_reject_beside_others_and_an_error_alone(tmp_path: Path) -> None:
    bad = put(tmp_path, "a.log", jsonl([conn(n, duration=1e9) for n in range(3)]))
    with pytest.raises(InputError, match="duration"):
        read_files(bad)
    put(tmp_path, "b.log", jsonl([conn(1)]))
    got = read_files(tmp_path)
    assert got.flows.height == 1
    assert [(reject.input, reject.reason) for reject in got.rejects] == [(str(bad), "refused")]


def test_a_name_that_is_no_utf8_is_shown_with_its_bytes(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcnchen.json")
    Path(path).write_bytes(b'{"ts": 1}\n')
    (opened,) = open_inputs([path], stdin=io.BytesIO())
    opened.input.stream.close()
    assert opened.input.name.endswith("/M\\xfcnchen.json")


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress])
def test_xz_and_bzip2_are_read(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "conn.json.packed"
    path.write_bytes(compress(b'{"ts": 1700000000.0, "conn_state": "SF"}\n'))
    (opened,) = open_inputs([str(path)], stdin=io.BytesIO())
    with opened.input.stream as stream:
        assert stream.read().startswith(b'{"ts"')


def test_other_compressions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "conn.json.lz4"
    path.write_bytes(b"\x04\x22\x4d\x18" + bytes(100))
    (opened,) = open_inputs([str(path)], stdin=io.BytesIO())
    opened.input.stream.close()
    assert "LZ4" in str(opened.error)
