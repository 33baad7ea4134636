"""Suricata's EVE JSON: its flow records, with Zeek's meaning of every column, and what its http,
tls and dns events say of flows.

Fields: https://docs.suricata.io/en/latest/output/eve/eve-json-format.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from ids_plugin.schema.icmp import ANSWER_TYPES, ICMP6_PROTOCOL, ICMP_PROTOCOL
from ids_plugin.sources import Input, Read
from ids_plugin.sources.readers import ndjson
from ids_plugin.sources.readers.eve_facts import EVENTS, tables_of_eve
from ids_plugin.sources.readers.flow_builder import text_times
from ids_plugin.sources.readers.ndjson import Bad, Field, Layout, OutOfScope

SNIFFED = 20
EVENT = re.compile(r"[a-z0-9_]{1,30}")
PROTOCOLS = {"tcp": ("tcp", 6), "udp": ("udp", 17), "icmp": ("icmp", 1), "ipv6-icmp": ("icmp", 58)}
OTHERS = {
    "sctp": 132,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "igmp": 2,
    "ospf": 89,
    "ospfigp": 89,
    "ipv6": 41,
    "ipip": 4,
    "ipencap": 4,
    "pim": 103,
    "ipv6-frag": 44,
    "vrrp": 112,
    "l2tp": 115,
    "eigrp": 88,
    "rsvp": 46,
}
NUMBERS_AS_TEXT = {f"{number:03d}": number for number in range(256)}
"""Suricata writes protocols that have no name as three digits."""
NUMBERS_AS_TEXT |= {str(number): number for number in range(256)}
NAMES_OF_NUMBERS = {str(number): name for name, (_, number) in PROTOCOLS.items()}
SERVICES = {
    "tls": "ssl",
    "dcerpc": "dce_rpc",
    "krb5": "krb",
    "http2": "http",
    "dnp3": "dnp3_tcp",
    "rfb": "rfb",
}
"""Suricata's names of application protocols where Zeek has others."""
UNKNOWN_SERVICES = ("failed", "unknown")
ETHERNET, TAG = 14, 4
"""Bytes of an Ethernet header and of a VLAN tag."""
FIN, SYN, RST = 1, 2, 4
NOT_ETHERNET = 0.01
"""Share of flows too small for Ethernet frames from which on a source isn't taken for Ethernet."""

FIELDS = (
    Field("event", "text", ("event_type",)),
    Field("ts", "iso", ("flow", "start")),
    Field("end", "text", ("flow", "end")),
    Field("uid", "text", ("flow_id",)),
    Field("orig_h", "text", ("src_ip",)),
    Field("src_port", "int", ("src_port",)),
    Field("resp_h", "text", ("dest_ip",)),
    Field("dest_port", "int", ("dest_port",)),
    Field("icmp_type", "int", ("icmp_type",)),
    Field("icmp_code", "int", ("icmp_code",)),
    Field("transport", "text", ("proto",)),
    Field("app", "text", ("app_proto",)),
    Field("orig_pkts", "int", ("flow", "pkts_toserver")),
    Field("resp_pkts", "int", ("flow", "pkts_toclient")),
    Field("orig_frames", "int", ("flow", "bytes_toserver")),
    Field("resp_frames", "int", ("flow", "bytes_toclient")),
    Field("flags_ts", "text", ("tcp", "tcp_flags_ts")),
    Field("flags_tc", "text", ("tcp", "tcp_flags_tc")),
    Field("vlan", "ints", ("vlan",)),
    Field("community_id", "text", ("community_id",)),
    Field("sensor", "text", ("host",)),
)


def _why_out_of_scope(but: Collection[str] = ()) -> pl.Expr:
    """The reason of an event that is no flow's, null for types in `but`: these are looked at one by
    one."""
    event = pl.col("event")
    is_other = event.str.contains(f"^{EVENT.pattern}$") & ~event.is_in(["flow", *but])
    return pl.when(is_other).then(pl.concat_str(pl.lit("eve_"), "event"))


FLOW = Layout(
    FIELDS,
    is_ours=(pl.col("event") == "flow") & pl.col("ts_text").is_not_null(),
    why_out_of_scope=_why_out_of_scope(),
)


class Suricata:
    """Reads the flow events of eve.json, and the facts of http, tls and dns events; all but flow
    events are out of scope, by their type."""

    name = "suricata"

    def sniff(self, head: bytes) -> float:
        """By how many of the first lines are EVE events."""
        lines = [line for line in head.split(b"\n")[:SNIFFED] if line.strip()]
        eve_lines = sum(_is_eve(line) for line in lines)
        return 0.4 + 0.55 * eve_lines / len(lines) if eve_lines else 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """All flow events. Notes count those whose IP bytes can't be told from their frames'
        bytes."""
        link = Link()
        layout = replace(FLOW, derive=link.derive, why_out_of_scope=_why_out_of_scope(EVENTS))

        def classify_record(record: dict[str, Any]) -> Layout | OutOfScope | Bad:
            return classify(record, layout, with_facts=True)

        ndjson.probe(source, classify_record, self.name)
        link.ethernet, link.unknown = link.ethernet is not False, 0
        steps = ndjson.read(source, batch_rows, classify_record, self.name, tables_of_eve)
        for step in steps:
            notes = {"ip_bytes_unknown": link.unknown} if link.unknown else {}
            link.unknown = 0
            yield replace(step, notes=notes)


def _is_eve(line: bytes) -> bool:
    return ndjson.is_record(line, lambda record: classify(record, FLOW))


def classify(
    record: dict[str, Any], layout: Layout, *, with_facts: bool = False
) -> Layout | OutOfScope | Bad:
    """The layout of a flow event, or the type of another one; `with_facts`: events that say facts
    of flows come along."""
    kind = record.get("event_type")
    if not isinstance(kind, str) or not EVENT.fullmatch(kind):
        return ndjson.envelope(record) or Bad("not_eve", "no event_type: not a Suricata event")
    if with_facts and kind in EVENTS:
        return OutOfScope(f"facts_{kind}", (kind, record))
    return layout if kind == "flow" else OutOfScope(f"eve_{kind}")


@dataclass
class Link:
    """The link layer of a source: Suricata counts whole frames, a Flow has IP bytes."""

    ethernet: bool | None = None
    """what the input's head says, which is looked at first; None before that"""
    unknown: int = 0

    def derive(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Draft columns out of EVE's."""
        end = text_times(frame["end"])
        transport = pl.col("transport").str.to_lowercase()
        digits = transport.str.strip_chars_start("0")
        transport = digits.replace_strict(NAMES_OF_NUMBERS, default=transport)
        frame = frame.with_columns(end.alias("end"), transport.alias("transport"))
        v6 = pl.col("transport") == "ipv6-icmp"
        icmp = v6 | (pl.col("transport") == "icmp")
        draft = frame.with_columns(
            proto=pl.col("transport").replace_strict(
                {name: proto for name, (proto, _) in PROTOCOLS.items()}, default="unknown_transport"
            ),
            ip_proto=pl.col("transport").replace_strict(
                {
                    **{name: number for name, (_, number) in PROTOCOLS.items()},
                    **OTHERS,
                    **NUMBERS_AS_TEXT,
                },
                default=None,
                return_dtype=pl.Int64,
            ),
            service=pl.when(~pl.col("app").is_in(UNKNOWN_SERVICES)).then(
                pl.col("app").replace(SERVICES)
            ),
            orig_p=pl.when(icmp).then("icmp_type").otherwise("src_port"),
            resp_p=pl.when(icmp)
            .then(pl.coalesce(_counterpart(v6), "icmp_code"))
            .otherwise("dest_port"),
            duration=pl.when(pl.col("orig_pkts") + pl.col("resp_pkts") > 1).then(
                (pl.col("end") - pl.col("ts")) / 1e6
            ),
        )
        return self._ip_bytes(draft.with_columns(conn_state=_conn_state()))

    def _ip_bytes(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`orig_ip_bytes` and `resp_ip_bytes`, null where the frames can't have been Ethernet's."""
        header = ETHERNET + TAG * pl.col("vlan").list.len().fill_null(0).cast(pl.Int64)
        least = _least()
        sides = {}
        for side in ("orig", "resp"):
            packets = pl.col(f"{side}_pkts")
            sides[side] = (pl.col(f"{side}_frames") - header * packets, least * packets)
        fits = pl.all_horizontal(bytes_ >= need for bytes_, need in sides.values())
        is_plausible = frame.select(fits.alias("fits")).to_series()
        if self.ethernet is None:
            self.ethernet = float(is_plausible.cast(pl.Float64).mean() or 1) > 1 - NOT_ETHERNET  # type: ignore[arg-type]
        is_known = is_plausible.fill_null(False) & self.ethernet
        self.unknown += frame.height - int(is_known.sum())
        return frame.with_columns(
            pl.when(is_known).then(bytes_).alias(f"{side}_ip_bytes")
            for side, (bytes_, _) in sides.items()
        )


def _least() -> pl.Expr:
    """Bytes of the smallest packet: an IP header and what the transport needs."""
    transport = pl.col("proto").replace_strict(
        {"tcp": 20, "udp": 8, "icmp": 8}, default=0, return_dtype=pl.Int64
    )
    return transport + pl.when(pl.col("orig_h").str.contains(":", literal=True)).then(40).otherwise(
        20
    )


def _counterpart(v6: pl.Expr) -> pl.Expr:
    """ICMP type that answers the flow's, null where none does: Zeek has it as the responder's
    port."""
    icmp_type = pl.col("icmp_type")
    by_protocol = {
        protocol: icmp_type.replace_strict(dict(answers), default=None, return_dtype=pl.Int64)
        for protocol, answers in ANSWER_TYPES.items()
    }
    return pl.when(v6).then(by_protocol[ICMP6_PROTOCOL]).otherwise(by_protocol[ICMP_PROTOCOL])


def _conn_state() -> pl.Expr:
    """What Zeek calls a connection with these flags and packets; null for TCP whose flags aren't
    given.

    Zeek's own rules are in base/protocols/conn/main.zeek (`conn_state`); the order of two resets
    isn't known here, the responder's is taken to be the first.
    """
    orig_flags = pl.col("flags_ts").str.to_integer(base=16, strict=False)
    resp_flags = pl.col("flags_tc").str.to_integer(base=16, strict=False).fill_null(0)

    def has(flags: pl.Expr, bit: int) -> pl.Expr:
        return (flags & bit) > 0

    sent, answered = has(orig_flags, SYN), has(resp_flags, SYN)
    silent = pl.col("resp_pkts") == 0
    tcp = (
        pl.when(has(resp_flags, RST))
        .then(
            pl.when(~answered & sent)
            .then(pl.lit("REJ"))
            .when(sent)
            .then(pl.lit("RSTR"))
            .otherwise(pl.lit("RSTRH"))
        )
        .when(has(orig_flags, RST))
        .then(pl.when(answered).then(pl.lit("RSTO")).otherwise(pl.lit("RSTOS0")))
        .when(has(orig_flags, FIN) & has(resp_flags, FIN))
        .then(pl.lit("SF"))
        .when(has(orig_flags, FIN))
        .then(pl.when(answered).then(pl.lit("S2")).otherwise(pl.lit("SH")))
        .when(has(resp_flags, FIN))
        .then(pl.when(sent).then(pl.lit("S3")).otherwise(pl.lit("SHR")))
        .when(sent & silent)
        .then(pl.lit("S0"))
        .when(sent & answered)
        .then(pl.lit("S1"))
        .otherwise(pl.lit("OTH"))
    )
    heard = pl.col("orig_pkts") > 0
    udp = (
        pl.when(heard & ~silent)
        .then(pl.lit("SF"))
        .when(heard)
        .then(pl.lit("S0"))
        .when(~silent)
        .then(pl.lit("SHR"))
        .otherwise(pl.lit("OTH"))
    )
    return (
        pl.when(pl.col("proto") == "tcp")
        .then(pl.when(orig_flags.is_not_null()).then(tcp))
        .when(pl.col("proto") == "udp")
        .then(udp)
        .otherwise(pl.lit("OTH"))
    )


PLUGIN = Suricata()
