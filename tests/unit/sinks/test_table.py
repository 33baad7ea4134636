"""The table in the terminal: one row a fold, readable at 80 and at 160 columns, nothing of the
traffic obeyed."""

from __future__ import annotations

import io

import pytest

from ids_plugin.schema.alert import Document
from ids_plugin.schema.score import CLASSES
from ids_plugin.sinks.table import Table
from tests.support.factories import alerts_of


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(documents: list[Document], width: int = 160, stream: io.StringIO | None = None) -> str:
    stream = stream or io.StringIO()
    sink = Table(stream, width)
    for document in documents:
        sink.write([document])
    sink.close()
    return stream.getvalue()


def everything() -> list[Document]:
    return [document for name in CLASSES[1:] for document in alerts_of(name)]


@pytest.mark.parametrize("width", [80, 120, 160, 250])
def test_it_fits(width: int) -> None:
    assert max(map(len, printed(everything(), width).splitlines())) <= width


def test_one_row_a_fold_worst_first() -> None:
    lines = printed(everything()).splitlines()
    severities = [line.split()[0] for line in lines[2:] if line[0] != " "]
    assert severities == ["critical"] * 2 + ["high"] * 3 + ["medium"] * 2 + ["low"] + ["8"]
    assert lines[-1] == "8 alerts: 2 critical, 3 high, 2 medium, 1 low"


def test_a_row_names_who_what_whom_how_often_and_why() -> None:
    text = printed(alerts_of("scan"))
    for said in (
        "medium",
        "Network scan",
        "10.0.0.66",
        "→ 250 hosts",
        "300",
        "03-02 09:00–09:01",
        "0.97",
        "84 connections",
    ):
        assert said in text
    assert "← 200 hosts" in printed(alerts_of("inbound_noise"))
    assert "→ 203.0.113.80" in printed(alerts_of("exfiltration"))


def test_narrow_terminals_read_the_message_and_the_reason() -> None:
    text = " ".join(printed(alerts_of("scan"), 80).split())
    assert "10.0.0.66 scans 250 hosts, 3 ports" in text
    assert "84 connections that failed" in text


def test_an_open_fold_is_shown_until_it_closes() -> None:
    opened, closed = alerts_of("brute_force")
    assert "1   03-02" in printed([opened])
    assert "60   03-02" in printed([opened, closed])


def test_colours_are_for_terminals() -> None:
    assert "\x1b[" not in printed(everything())
    assert "\x1b[" in printed(everything(), stream=Terminal())


def test_nothing_from_the_traffic_is_obeyed() -> None:
    (opened, _) = alerts_of("scan")
    opened["ids_plugin"]["evidence"]["summary"] = "[bold]x[/] \x1b[2J\x07 [/nothing]"
    text = printed([opened])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x[/]" in text
    assert "[/nothing]" in text


def test_a_stream_that_only_knows_ascii_gets_what_it_can_take() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    sink = Table(stream, 160)
    sink.write(alerts_of("scan"))
    sink.close()
    stream.flush()
    assert b"? 250 hosts" in raw.getvalue()


def test_no_alerts() -> None:
    assert printed([]) == "No alerts.\n"
