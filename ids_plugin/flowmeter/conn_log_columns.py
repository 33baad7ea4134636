"""Columns of conn.log that follow from a whole connection: byte counts, conn_state, service."""

from __future__ import annotations

import re

import numpy as np

from ids_plugin.flowmeter.connection_table import (
    CLOSED,
    ESTABLISHED,
    INACTIVE,
    PARTIAL,
    RESET,
    SYN_ACK_SENT,
    SYN_SENT,
    Table,
)
from ids_plugin.flowmeter.meter import EndedConnections
from ids_plugin.flowmeter.packets.headers import Int64s
from ids_plugin.flowmeter.packets.packet_columns import (
    ICMP,
    ICMP6,
    TCP,
    UDP,
)
from ids_plugin.flowmeter.protocol_detection import service_names


def payload_sizes(table: Table) -> Int64s:
    """(n, 2) payload bytes of both sides: TCP by sequence numbers, others by their headers'
    lengths.
    """
    byte_span = np.maximum(table["highest_sequence"], table["highest_ack"])
    byte_span = np.where(byte_span > 0, byte_span - 1, 0)
    byte_span = np.where((table["fin_count"] > 0) & (byte_span > 0), byte_span - 1, byte_span)
    is_aborted = (
        (table["previous_state"] == SYN_SENT)
        & (table["state"] == RESET)
        & (table["state"][:, ::-1] == INACTIVE)
    )
    byte_span = np.where(
        (table["state"] == INACTIVE) | is_aborted & (table["highest_ack"] == 0), 0, byte_span
    )
    protocol = table["protocol"][:, None]
    is_counted = np.isin(protocol, (UDP, ICMP, ICMP6))
    return np.where(protocol == TCP, byte_span, np.where(is_counted, table["payload_bytes"], 0))


CONN_STATES = (
    "REJ",
    "RSTRH",
    "RSTR",
    "RSTOS0",
    "OTH",
    "RSTO",
    "SF",
    "SH",
    "S2",
    "SHR",
    "S3",
    "S0",
    "S1",
)


def conn_states(finished: EndedConnections, payload_size: Int64s) -> Int64s:
    """Zeek's conn_state of every connection as index into STATES, as
    base/protocols/conn/main.zeek decides it.
    """
    table = finished.table
    row = np.arange(len(table))
    originator = table["originator"]
    originator_state, responder_state = (
        table["state"][row, originator],
        table["state"][row, 1 - originator],
    )
    is_silent = (originator_state == INACTIVE) | (originator_state == PARTIAL)
    is_unanswered = (responder_state == INACTIVE) | (responder_state == PARTIAL)
    is_empty = (payload_size == 0).all(axis=1)
    is_rejected = (
        (originator_state == SYN_SENT)
        | (originator_state == SYN_ACK_SENT)
        | ((originator_state == RESET) & is_empty)
    )
    is_syn_then_reset = np.zeros(len(table), dtype=bool)
    for index in np.flatnonzero(
        (originator_state == RESET) & is_unanswered & (table["protocol"] == TCP)
    ).tolist():
        is_syn_then_reset[index] = _SYN_THEN_RESET.fullmatch(finished.history(index)) is not None
    tcp_states = np.select(
        [
            (responder_state == RESET) & is_rejected,
            (responder_state == RESET) & is_silent,
            responder_state == RESET,
            is_syn_then_reset,
            (originator_state == RESET) & is_unanswered,
            originator_state == RESET,
            (originator_state == CLOSED) & (responder_state == CLOSED),
            (originator_state == CLOSED) & is_unanswered,
            originator_state == CLOSED,
            (responder_state == CLOSED) & is_silent,
            responder_state == CLOSED,
            (originator_state == SYN_SENT) & (responder_state == INACTIVE),
            (originator_state == ESTABLISHED) & (responder_state == ESTABLISHED),
        ],
        range(len(CONN_STATES)),
        CONN_STATES.index("OTH"),
    )
    has_sent, has_answered = (
        table["packets"][row, originator] > 0,
        table["packets"][row, 1 - originator] > 0,
    )
    names = [CONN_STATES.index(name) for name in ("SF", "S0", "SHR")]
    datagram_states = np.select(
        [has_sent & has_answered, has_sent, has_answered], names, CONN_STATES.index("OTH")
    )
    is_tcp, is_udp = table["protocol"] == TCP, table["protocol"] == UDP
    return np.select(
        [is_tcp, is_udp], [tcp_states, datagram_states], CONN_STATES.index("OTH")
    ).astype(np.int64)


_SYN_THEN_RESET = re.compile(r"\^?S[^HAFGIQ]*R.*")


def named_services(table: Table) -> tuple[list[str | None], Int64s]:
    """Zeek's services that occur, and which of them each connection has; None where nothing was
    recognised.
    """
    row = np.arange(len(table))
    originator = table["originator"]
    port = np.where(originator == 0, table["high_port"], table["low_port"])
    originator_signatures, responder_signatures = (
        table["signatures"][row, originator],
        table["signatures"][row, 1 - originator],
    )
    return service_names(originator_signatures, responder_signatures, port, table["protocol"])
