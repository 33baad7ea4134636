"""Files of documents appear whole or not at all."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from ids_plugin.errors import UsageError
from ids_plugin.sinks.ndjson import Ndjson
from tests.support.factories import alerts_of


def test_one_document_a_line(tmp_path: Path) -> None:
    target = tmp_path / "alerts.ndjson"
    with Ndjson(target) as sink:
        assert sink.write(alerts_of("scan")).documents == 2
        assert sink.write(alerts_of("flood")).documents == 2
    lines = target.read_text().splitlines()
    assert [json.loads(line) for line in lines] == alerts_of("scan") + alerts_of("flood")
    assert list(tmp_path.iterdir()) == [target]


def test_no_documents_make_an_empty_file(tmp_path: Path) -> None:
    with Ndjson(tmp_path / "rejects.ndjson"):
        pass
    assert (tmp_path / "rejects.ndjson").read_bytes() == b""


def test_a_file_that_stands_there_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "alerts.ndjson"
    target.write_text("old\n")
    sink = Ndjson(target)
    sink.write([{"new": 1}])
    assert target.read_text() == "old\n"
    sink.close()
    assert target.read_text() == '{"new":1}\n'


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), Ndjson(tmp_path / "alerts.ndjson") as sink:
        sink.write([{"new": 1}, {"not json": object()}])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    target = tmp_path / "nowhere" / "alerts.ndjson"
    with pytest.raises(UsageError) as caught:
        Ndjson(target)
    assert str(caught.value) == f"{target}: can't be written: no such file or directory"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, size: int) -> None:
    target = tmp_path / "alerts.ndjson"
    (tmp_path / "alerts.ndjson.part").symlink_to("/dev/full")
    with pytest.raises(UsageError) as caught, Ndjson(target) as sink:
        sink.write([{"text": "x" * size}])
    assert str(caught.value) == f"{target}: can't be written: no space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_went_away_is_left_to_the_caller() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = Ndjson(os.fdopen(writer, "wb", buffering=0))
    with pytest.raises(BrokenPipeError):
        sink.write([{"a": 1}])


def test_a_stream_stays_open() -> None:
    stream = io.BytesIO()
    with Ndjson(stream) as sink:
        sink.write([{"a": 1}])
    assert stream.getvalue() == b'{"a":1}\n'
