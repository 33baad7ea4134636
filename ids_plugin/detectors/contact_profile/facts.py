"""Flow columns → what contact profiles read of them: sizes, outcome, and the facts of other logs as
bits.

No name, address or URI is a feature. A fact is unknown where no log says anything of the flow:
never 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ids_plugin.windows.contacts import (
    COMPLETED,
    HTTP_ADDRESS,
    HTTP_ERROR,
    HTTP_KNOWN,
    HTTP_NO_AGENT,
    HTTP_NO_REFERRER,
    HTTP_POST,
    HTTP_RARE_AGENT,
    HTTP_TOOL_AGENT,
    NO_REPLY,
    REFUSED,
    REPLIED,
    RESET,
    SIZE_UNIT_B,
    TLS_CERTIFICATE,
    TLS_FAILED,
    TLS_KNOWN,
    TLS_LONG_VALIDITY,
    TLS_NAME_MISMATCH,
    TLS_NO_ALTERNATIVE_NAME,
    TLS_NO_NAME,
    TLS_SELF_SIGNED,
    ContactFlows,
    DistinctCounts,
    Flags,
    Floats,
    Keys,
    quantise,
)
from ids_plugin.windows.slots import mix

INFRASTRUCTURE_UDP_PORTS = (53, 67, 68, 123, 137, 138, 546, 547, 1900, 3702, 5353, 5355)
GROUP_ADDRESS = r"^(?:22[4-9]|23\d|255)\.|\.255$|^ff[0-9a-f]{2}:"
PRIVATE_ADDRESS = (
    r"^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|169\.254\.|127\."
    r"|fe80:|f[cd][0-9a-f]{2}:|::1$)"
)
NO_ANSWER_STATES = ("S0", "REJ", "SH", "RSTOS0", "OTH")
LONG_VALIDITY_DAYS = 3 * 365.25
ERROR_STATUS = 400
TCP_HEADER_B, UDP_HEADER_B = 40, 28
PEERS_TO_JUDGE_AGENTS = 3
"""HTTP peers that a host must have before one of its user agents can be called rare"""
PEERS_TO_JUDGE_LOOKUPS = 3
NAMED_SHARE_VISIBLE = 0.5
"""A host's look-ups count as visible when at least this share of its external peers was looked
up."""
LOOKUP_FEATURES: tuple[tuple[str, str, str], ...] = (
    ("looked_up", "0-1", "the host looked up a name for this peer"),
    ("name_length", "log", "length of the name looked up"),
    ("name_digits", "0-1", "share of digits in the name looked up"),
    ("name_labels", "labels", "labels of the name looked up"),
    ("name_ttl", "log s", "time to live of the answer"),
)
"""name, unit, meaning; unknown where the host's look-ups aren't visible"""
FACT_COLUMNS: Mapping[str, pl.DataType] = {
    "http_requests": pl.UInt16(),
    "http_method": pl.String(),
    "http_host_is_address": pl.Boolean(),
    "http_user_agent": pl.String(),
    "http_is_tool_agent": pl.Boolean(),
    "http_has_referrer": pl.Boolean(),
    "http_status": pl.UInt16(),
    "http_uri_bytes": pl.UInt32(),
    "tls_established": pl.Boolean(),
    "tls_server_name": pl.String(),
    "tls_has_certificate": pl.Boolean(),
    "tls_is_self_signed": pl.Boolean(),
    "tls_validity_days": pl.Float32(),
    "tls_is_name_mismatch": pl.Boolean(),
    "tls_has_alternative_name": pl.Boolean(),
    "resp_name": pl.String(),
    "resp_name_ttl": pl.Float32(),
}
"""Flow columns that facts are made of"""


def is_tracked() -> pl.Expr:
    """Flows that belong to a contact: TCP and UDP to one host, from a local host or to one that
    isn't. A connection counts when it has ended, once, however many records tell of it before."""
    is_service = (pl.col("proto") == "udp") & pl.col("resp_p").is_in(INFRASTRUCTURE_UDP_PORTS)
    is_inbound = ~_is_true("local_orig") & _is_true("local_resp")
    is_group = pl.col("resp_h").str.contains(GROUP_ADDRESS)
    is_transport = pl.col("proto").is_in(["tcp", "udp"])
    return is_transport & ~is_service & ~is_inbound & ~is_group & ~_is_true("open")


def has_facts(flows: pl.DataFrame) -> bool:
    """Whether any flow of a batch has a fact of another log."""
    return any(
        flows[name].null_count() < len(flows)
        for name in ("http_requests", "tls_established", "resp_name")
        if name in flows.columns
    )


def with_fact_columns(flows: pl.DataFrame) -> pl.DataFrame:
    """The frame with all fact columns, null where it has none."""
    missing = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in FACT_COLUMNS.items()
        if name not in flows.columns
    ]
    return flows.with_columns(missing) if missing else flows


class FactMemory:
    """What has to be remembered of a sensor's hosts to read facts: their user agents, and their
    look-ups."""

    def __init__(self) -> None:
        self._agent_peers, self._http_peers = DistinctCounts(), DistinctCounts()
        self._external_peers = DistinctCounts()

    def is_rare_agent(self, host: Keys, peer: Keys, agent: Keys, has_agent: Flags) -> Flags:
        """(n) whether the host uses the flow's user agent with one peer alone, having had three or
        more."""
        is_rare = np.zeros(len(host), np.bool_)
        rows = np.flatnonzero(has_agent)
        if len(rows):
            peers = self._http_peers.step(host[rows], peer[rows]).members
            users = self._agent_peers.step(mix(host[rows], agent[rows]), peer[rows]).members
            is_rare[rows] = (users == 1) & (peers >= PEERS_TO_JUDGE_AGENTS)
        return is_rare

    def are_lookups_visible(
        self, host: Keys, peer: Keys, is_named: Flags, is_external: Flags
    ) -> Flags:
        """(n) whether so many of the host's external peers had a name at first sight that its
        look-ups are seen."""
        is_visible = np.zeros(len(host), np.bool_)
        rows = np.flatnonzero(is_external)
        if not len(rows):
            return is_visible
        peers = self._external_peers.step(host[rows], peer[rows], is_named[rows])
        is_visible[rows] = (peers.members >= PEERS_TO_JUDGE_LOOKUPS) & (
            peers.marked >= NAMED_SHARE_VISIBLE * peers.members
        )
        return is_visible

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers."""
        return {name: counts.state() for name, counts in self._all().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own."""
        for name, counts in self._all().items():
            counts.restore(state[name])

    def _all(self) -> dict[str, DistinctCounts]:
        return {
            "agent_peers": self._agent_peers,
            "http_peers": self._http_peers,
            "external_peers": self._external_peers,
        }


def contact_flows(flows: pl.DataFrame, memory: FactMemory) -> ContactFlows:
    """(n) tracked flows, with `clock` and the fact columns, as the arrays that profiles are made
    of."""
    table = flows.select(
        *_sizes(),
        _outcome().alias("outcome"),
        pl.col("ts").dt.epoch("us").alias("start"),
        pl.col("duration").dt.total_microseconds().fill_null(0).clip(0).alias("duration"),
        pl.col("clock").dt.epoch("us").alias("clock"),
        pl.col("resp_p").fill_null(0).cast(pl.Int64).alias("port"),
        pl.when(pl.col("proto") == "tcp").then(6).otherwise(17).cast(pl.Int64).alias("proto"),
        is_external().alias("external"),
        _http_bits().alias("http"),
        _tls_bits().alias("tls"),
        pl.col("http_uri_bytes").cast(pl.Float64).fill_null(np.nan).alias("uri"),
        pl.col("orig_h").hash(1).alias("host"),
        pl.col("resp_h").hash(1).alias("peer"),
        pl.col("http_user_agent").fill_null("").hash(1).alias("agent"),
        pl.col("http_user_agent").is_not_null().alias("has_agent"),
    )
    columns = {name: table[name].to_numpy() for name in table.columns}
    http = columns["http"].copy()
    http[
        memory.is_rare_agent(
            columns["host"], columns["peer"], columns["agent"], columns["has_agent"]
        )
    ] |= HTTP_RARE_AGENT
    return ContactFlows(
        host=columns["host"],
        peer=columns["peer"],
        port=columns["port"],
        proto=columns["proto"],
        start_us=columns["start"],
        clock_us=columns["clock"],
        duration_us=columns["duration"],
        up=columns["up"],
        down=columns["down"],
        outcome=columns["outcome"],
        is_external=columns["external"],
        http=http,
        tls=columns["tls"],
        uri=quantise(columns["uri"], SIZE_UNIT_B),
    )


def lookup_features(flows: pl.DataFrame, arrays: ContactFlows, memory: FactMemory) -> Floats:
    """(n, 5) LOOKUP_FEATURES of tracked flows."""
    name = pl.col("resp_name")
    length = name.str.len_bytes().cast(pl.Float32)
    table = flows.select(
        name.is_not_null().alias("is_named"),
        length.log1p().alias("name_length"),
        (name.str.count_matches(r"\d") / length.clip(1)).cast(pl.Float32).alias("name_digits"),
        (name.str.count_matches(r"\.") + 1).cast(pl.Float32).alias("name_labels"),
        pl.col("resp_name_ttl").log1p().alias("name_ttl"),
    )
    is_named = table["is_named"].to_numpy()
    is_visible = memory.are_lookups_visible(arrays.host, arrays.peer, is_named, arrays.is_external)
    columns = np.full((len(flows), len(LOOKUP_FEATURES)), np.nan, np.float32)
    columns[:, 0] = np.where(is_visible | is_named, is_named, np.nan)
    for index, (feature, _, _) in enumerate(LOOKUP_FEATURES[1:], 1):
        columns[:, index] = table[feature].cast(pl.Float32).fill_null(np.nan).to_numpy()
    return columns


def is_external() -> pl.Expr:
    """The responder is neither local nor private."""
    return ~_is_true("local_resp") & ~pl.col("resp_h").str.contains(PRIVATE_ADDRESS)


def _is_true(name: str) -> pl.Expr:
    return pl.col(name).fill_null(value=False)


def _sizes() -> tuple[pl.Expr, pl.Expr]:
    """Payload bytes each way; without them IP bytes less headers, 0 for what was never answered;
    NaN where unknown."""
    is_tcp = pl.col("proto") == "tcp"
    is_unanswered = pl.col("conn_state").is_in(NO_ANSWER_STATES)
    header = pl.when(is_tcp).then(TCP_HEADER_B).otherwise(UDP_HEADER_B)

    def estimate(side: str) -> pl.Expr:
        return (
            pl.col(f"{side}_ip_bytes").cast(pl.Int64)
            - header * pl.col(f"{side}_pkts").cast(pl.Int64)
        ).clip(0)

    up = pl.coalesce("orig_bytes", pl.when(is_tcp & is_unanswered).then(0), estimate("orig"))
    down = pl.coalesce("resp_bytes", pl.when(is_unanswered).then(0), estimate("resp"))
    return (
        up.cast(pl.Float64).fill_null(np.nan).alias("up"),
        down.cast(pl.Float64).fill_null(np.nan).alias("down"),
    )


def _outcome() -> pl.Expr:
    state = pl.col("conn_state").fill_null("OTH")
    is_replied = pl.col("resp_pkts").fill_null(0) > 0
    return _bits(
        {
            NO_REPLY: state.is_in(["S0", "SH", "RSTOS0"]) | (~is_replied & (state == "OTH")),
            REFUSED: state == "REJ",
            RESET: state.is_in(["RSTO", "RSTR", "RSTRH"]),
            REPLIED: state.is_in(["SF", "S1", "S2", "S3", "RSTO", "RSTR"])
            | (is_replied & (state != "REJ")),
            COMPLETED: state == "SF",
        },
        pl.lit(0, pl.UInt8),
    )


def _http_bits() -> pl.Expr:
    status = pl.col("http_status")
    bits = _bits(
        {
            HTTP_POST: pl.col("http_method").str.contains(r"\bPOST\b"),
            HTTP_ADDRESS: pl.col("http_host_is_address"),
            HTTP_NO_AGENT: pl.col("http_user_agent").is_null(),
            HTTP_ERROR: status.is_null() | (status >= ERROR_STATUS),
            HTTP_NO_REFERRER: ~pl.col("http_has_referrer"),
            HTTP_TOOL_AGENT: pl.col("http_is_tool_agent"),
        },
        pl.lit(HTTP_KNOWN, pl.UInt8),
    )
    return _where(pl.col("http_requests").is_not_null(), bits)


def _tls_bits() -> pl.Expr:
    has_certificate = _is_true("tls_has_certificate")
    bits = _bits(
        {
            TLS_NO_NAME: pl.col("tls_server_name").is_null(),
            TLS_CERTIFICATE: has_certificate,
            TLS_SELF_SIGNED: has_certificate & _is_true("tls_is_self_signed"),
            TLS_LONG_VALIDITY: pl.col("tls_validity_days") > LONG_VALIDITY_DAYS,
            TLS_NAME_MISMATCH: has_certificate & _is_true("tls_is_name_mismatch"),
            TLS_NO_ALTERNATIVE_NAME: has_certificate & ~pl.col("tls_has_alternative_name"),
            TLS_FAILED: ~pl.col("tls_established"),
        },
        pl.lit(TLS_KNOWN, pl.UInt8),
    )
    return _where(pl.col("tls_established").is_not_null(), bits)


def _where(is_known: pl.Expr, bits: pl.Expr) -> pl.Expr:
    return pl.when(is_known).then(bits).otherwise(pl.lit(0, pl.UInt8))


def _bits(bits: Mapping[int, pl.Expr], known: pl.Expr) -> pl.Expr:
    total = known
    for bit, is_set in bits.items():
        flag = pl.when(is_set.fill_null(value=False))
        total = total | flag.then(pl.lit(bit, pl.UInt8)).otherwise(pl.lit(0, pl.UInt8))
    return total


__all__ = [
    "FACT_COLUMNS",
    "LOOKUP_FEATURES",
    "FactMemory",
    "contact_flows",
    "has_facts",
    "is_external",
    "is_tracked",
    "lookup_features",
    "with_fact_columns",
]
