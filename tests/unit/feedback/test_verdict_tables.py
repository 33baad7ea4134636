"""Verdicts from a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from ids_plugin.errors import InputError
from ids_plugin.feedback.verdict_tables import Verdicts, read_table

HEADER = "event.id,verdict,note,analyst,time\n"


def read(folder: Path, text: str) -> Verdicts:
    path = folder / "v.csv"
    path.write_text(text, "utf-8")
    return read_table(path)


def test_a_table_is_read_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = (
        "\ufefftime;verdict;analyst;note;event.id\r\n"
        '2026-11-21T10:00:00+01:00; False ;anna;"a scanner; ours";a1\r\n'
        "2026-11-21;benign;;;a2\r\n"
        ";TRUE;bert;;a3\r\n"
    )
    first, second, third = read(tmp_path, text).verdicts
    assert (first.alert, first.verdict, first.note, first.analyst) == (
        "a1",
        "false",
        "a scanner; ours",
        "anna",
    )
    assert first.time == datetime(2026, 11, 21, 10, tzinfo=timezone(timedelta(hours=1)))
    assert (first.source, first.place) == (str(tmp_path / "v.csv"), "line 2")
    assert (second.verdict, second.time, second.description) == (
        "benign",
        datetime(2026, 11, 21, tzinfo=UTC),
        "benign on 2026-11-21",
    )
    assert (third.time, third.description) == (None, "true by bert")


def test_only_two_columns_are_needed(tmp_path: Path) -> None:
    assert read(tmp_path, "verdict,event.id\ntrue,a1\n").verdicts[0].alert == "a1"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a1,maybe,,,", "no_verdict"),
        ("a1,,,,", "no_verdict"),
        (",true,,,", "no_alert"),
        ("a1,true,,,yesterday", "bad_time"),
        ("a1,true", "wrong_columns"),
        ("a1,true,,,,", "wrong_columns"),
    ],
)
def test_a_line_that_makes_no_sense_is_a_reject_with_its_place(
    tmp_path: Path, line: str, reason: str
) -> None:
    found = read(tmp_path, f'{HEADER}a0,true,"two\nlines",,\n\n{line}\na2,false,,,\n')
    assert [one.alert for one in found.verdicts] == ["a0", "a2"]
    assert [(one.place, one.reason) for one in found.rejects] == [("line 5", reason)]
    assert found.records == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "v.csv:1: column event.id is missing (the header is "
            "event.id,verdict,note,analyst,time)",
        ),
        ("event.id,note\n", "v.csv:1: column verdict is missing"),
        (
            "event.id,verdict,annalyst\n",
            "v.csv:1: unknown column 'annalyst' (did you mean analyst?)",
        ),
        ("event.id,verdict,verdict\n", "v.csv:1: a column is there twice"),
        (f'{HEADER}a1,"true\n', "v.csv:2: no CSV: unexpected end of data"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_a_file_that_can_not_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "nowhere.csv")
    (tmp_path / "v.csv").write_bytes(b"event.id,verdict\n\xff,true\n")
    with pytest.raises(InputError, match="no UTF-8"):
        read_table(tmp_path / "v.csv")
