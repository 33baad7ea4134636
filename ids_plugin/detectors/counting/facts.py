"""Flows → what counters read of them: keys, masks and numbers."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
import polars as pl

from ids_plugin.windows.named_counters import CounterFacts, Ints, Keys
from ids_plugin.windows.slots import mix


class Guess(NamedTuple):
    """A login service, and how large a session may be in which nothing but the login was tried."""

    ports: tuple[int, ...]
    most_up: int
    most_down: int
    """payload bytes"""
    recognised: str = ""
    """what the sensor calls it, on whatever port"""


GUESSES: dict[str, Guess] = {
    "ssh": Guess((22, 2222), 6_000, 8_000, "ssh"),
    "ftp": Guess((21,), 1_000, 4_000, "ftp"),
    "telnet": Guess((23, 2323), 1_000, 4_000),
    "mail": Guess((25, 110, 143, 465, 587, 993, 995), 3_000, 8_000),
    "rdp": Guess((3389,), 60_000, 150_000, "rdp"),
    "vnc": Guess((5900, 5901, 5902, 5903), 400, 1_000),
    "database": Guess((1433, 1521, 3306, 5432, 6379, 27017), 1_500, 1_500),
    "mqtt": Guess((1883,), 100, 4, "mqtt"),
    "smb": Guess((139, 445), 6_000, 6_000, "smb"),
    "rpc": Guess((135,), 2_000, 2_000),
}
"""A larger session did work: it is no guess. A refused CONNECT of MQTT is answered by four bytes.
Kerberos and LDAP are left out: ordinary domain logons look the same."""
SERVICES = tuple(GUESSES)
RPC_DYNAMIC_PORT = 49_152
"""from here on, where the sensor recognises `dce_rpc`, it is the service `rpc` too (Netlogon,
Zerologon)"""

SPREADING_PORTS = (
    21, 22, 23, 80, 135, 139, 445, 1433, 2222, 2323, 3306, 3389, 5432, 5555, 5900, 6379, 7547,
    8080, 8291, 37215, 52869,
)  # fmt: skip
"""Through which worms and botnets have entered: logins, SMB, RPC, ADB, TR-064, routers' web
pages"""
AMPLIFIER_PORTS = (17, 19, 53, 111, 123, 137, 161, 389, 1900, 3702, 5353, 11211)
"""UDP services whose answers are far larger than the question"""
SERVER_PORTS = (
    20,
    21,
    22,
    25,
    53,
    80,
    110,
    123,
    143,
    161,
    443,
    445,
    465,
    587,
    993,
    995,
    3128,
    3389,
    8080,
    8443,
)
TRACEROUTE_PORTS = (33_434, 33_600)
PROBE_DATAGRAMS = 3
"""a scan sends that many to a port at most; what sends more is a stream nobody answers"""
FILLED_DATAGRAM_BYTES = 200
"""payload; a scan's datagram is empty or a short question"""
UNUSED_PACKETS = 4
"""of a connection that was opened, and closed without a byte from the originator"""
STALL_S, STALL_BYTES = 5, 2_000
UPLOAD_BYTES, UPLOAD_RATIO = 10_000, 4
STREAM_RATE, SILENT_RATE = 1_000, 100
"""packets a second: below the first, one-way UDP may be a camera's stream; nobody keeps sending TCP
or pings unanswered as fast as the second"""


def _flag(name: str) -> pl.Expr:
    return (pl.col(name) > 0).fill_null(value=False)


def _sure(condition: pl.Expr) -> pl.Expr:
    return condition.fill_null(value=False)


_TCP, _UDP, _ICMP = (pl.col("proto").eq(name) for name in ("tcp", "udp", "icmp"))
_PORT = pl.col("resp_p").fill_null(0).cast(pl.Int64)
_NAMES = pl.col("service").fill_null("").str.split(",")
_STATE = pl.col("conn_state")
_SENT, _HEARD = pl.col("orig_pkts").fill_null(0), pl.col("resp_pkts").fill_null(0)
_INSIDE, _TO_INSIDE = _sure(pl.col("local_orig")), _sure(pl.col("local_resp"))
_SECONDS = pl.col("duration").dt.total_microseconds().fill_null(0) / 1e6
_UP, _DOWN, _LOGIN_CODE = pl.col("up"), pl.col("down"), pl.col("login_code")


def _payload(end: str) -> pl.Expr:
    """Payload bytes; where the source has none, IP bytes without headers: 52 B a packet with TCP
    timestamps, as most have, 40 B where that leaves less than nothing, and the options of a SYN."""
    packets, size = pl.col(f"{end}_pkts"), pl.col(f"{end}_ip_bytes")
    stamped, bare = size - 52 * packets, size - 40 * packets
    tcp = pl.when(stamped < -12).then(bare - 24).otherwise(stamped - 12)
    estimate = pl.max_horizontal(pl.when(_TCP).then(tcp).otherwise(size - 28 * packets), pl.lit(0))
    return pl.coalesce(f"{end}_bytes", estimate).fill_null(0)


def _login_code() -> pl.Expr:
    """Index in SERVICES + 1 of the login service a flow goes to, 0 for none."""
    conditions = []
    for name, guess in GUESSES.items():
        here = _PORT.is_in(guess.ports)
        if guess.recognised:
            here = here | _NAMES.list.contains(guess.recognised)
        if name == "rpc":
            here = here | ((_PORT >= RPC_DYNAMIC_PORT) & _NAMES.list.contains("dce_rpc"))
        conditions.append(pl.when(_TCP & here).then(SERVICES.index(name) + 1))
    return pl.coalesce(*conditions, pl.lit(0)).cast(pl.Int64)


def _login() -> pl.Expr:
    """A session with a login service, small enough to be a guess, in which both sides spoke."""
    small = reduce(
        lambda left, right: left | right,
        (
            _LOGIN_CODE.eq(code) & _UP.le(guess.most_up) & _DOWN.le(guess.most_down)
            for code, guess in enumerate(GUESSES.values(), 1)
        ),
    )
    return small & (_UP > 0) & (_DOWN > 0)


def _unicast() -> pl.Expr:
    group = _flag("to_group") | _sure(pl.col("resp_h").str.ends_with(".255"))
    return ~group & _sure(pl.col("orig_h") != pl.col("resp_h"))


def _late() -> pl.Expr:
    """What a server says after the sensor has forgotten the connection: no try of its own."""
    from_server = pl.col("orig_p").is_in(SERVER_PORTS) & (_PORT >= 1024)
    return _sure(from_server & (_UDP | ~_STATE.is_in(["S0", "REJ"])))


def _scan_masks() -> dict[str, pl.Expr]:
    unicast = _unicast()
    traceroute = _UDP & _PORT.is_between(*TRACEROUTE_PORTS)
    tried = _flag("failed") & unicast & ~_late() & ~traceroute
    failed = tried & (_TCP | (_UDP & ~_flag("infrastructure")))
    opened = _STATE.is_in(["RSTO", "RSTR"])
    unused = unicast & _TCP & opened & (_UP == 0) & (_SENT > 0) & (_SENT <= UNUSED_PACKETS)
    probe = (failed & (_TCP | (_SENT <= PROBE_DATAGRAMS))) | unused
    answered = unicast & (_TCP | _UDP) & (_UP > 0) & (_DOWN > 0)
    ping = _ICMP & pl.col("orig_p").is_in([8, 128]) & unicast
    within = _INSIDE & _TO_INSIDE
    return {
        "failed": failed,
        "probe": probe,
        "tcp_probe": probe & _TCP,
        "udp_unanswered": failed & _UDP,
        "answered": answered,
        "ping": ping,
        "silent_ping": ping & _flag("failed"),
        "local_probe": probe & _TCP & within,
        "local_answered": answered & within,
        "stranger": ~_INSIDE & _TO_INSIDE & unicast & (probe | pl.col("login") | ping),
    }


def _flood_masks() -> dict[str, pl.Expr]:
    unicast = _unicast()
    nothing = _flag("failed") | (_TCP & (_UP == 0) & (_DOWN == 0)) | (_UDP & (_HEARD == 0))
    unasked = (_SENT == 0) & (_HEARD > 0) & unicast
    amplified = unasked & _UDP & _PORT.is_in(AMPLIFIER_PORTS)
    stalled = _TCP & unicast & (_SECONDS >= STALL_S)
    return {
        "unicast": unicast & ~(_flag("infrastructure") & (_DOWN > 0)),
        "idle": unicast & nothing & (_SENT > 0) & ~(_flag("infrastructure") & _UDP),
        "filled_datagram": unicast
        & _UDP
        & (_HEARD == 0)
        & (_SENT > 0)
        & (_UP >= FILLED_DATAGRAM_BYTES * _SENT),
        "stalled": stalled & _UP.is_between(1, STALL_BYTES) & _DOWN.is_between(1, STALL_BYTES),
        "unasked": (unasked & (_DOWN == 0)) | amplified,
        "amplified": amplified,
    }


def _exfiltration_masks() -> dict[str, pl.Expr]:
    outbound = _INSIDE & ~_TO_INSIDE & _unicast()
    large = outbound & (_UP >= UPLOAD_BYTES)
    return {
        "outbound": outbound,
        "upload": large & (_UP >= UPLOAD_RATIO * _DOWN),
        "silent_upload": large & (_DOWN == 0) & _flag("completed"),
        "ftp_control": outbound & _TCP & (_PORT == 21) & (_DOWN > 0),
        "ftp_upload": outbound & _NAMES.list.contains("ftp-data") & (_UP > 0) & (_DOWN == 0),
        "dns": (_PORT == 53) & (_TCP | _UDP) & _unicast(),
    }


def _values() -> dict[str, pl.Expr]:
    rate = _SENT / pl.max_horizontal(_SECONDS, pl.lit(1.0))
    silent = (
        (_HEARD == 0)
        & ~_flag("to_group")
        & (rate >= pl.when(_UDP).then(STREAM_RATE).otherwise(SILENT_RATE))
    )
    return {
        "up": _UP,
        "down": _DOWN,
        "resp_ip": pl.col("resp_ip_bytes").fill_null(0),
        "questions": pl.when(_UDP).then(_SENT).otherwise(1),
        "answers": pl.when(_UDP).then(_HEARD).otherwise(1),
        "login_code": _LOGIN_CODE,
        "one_way_packets": pl.when(silent).then(_SENT).otherwise(0),
    }


def of_flows(flows: pl.DataFrame) -> CounterFacts:
    """Facts of a Flow frame with the columns of `features.add` and local flags, in known order.

    Args:
        flows: (n) with `clock`, the sensor's clock at each flow (Datetime, µs).
    """
    flows = flows.with_columns(up=_payload("orig"), down=_payload("resp"), login_code=_login_code())
    flows = flows.with_columns(login=_sure(_login()))
    masks = {**_scan_masks(), **_flood_masks(), **_exfiltration_masks(), "login": pl.col("login")}
    masks["replaces"] = pl.col("replaces")
    masks["growing"] = (pl.col("open") | pl.col("replaces")) & pl.col("uid").is_not_null()
    table = flows.select(
        **{f"is_{name}": _sure(mask) for name, mask in masks.items()},
        **{name: value.cast(pl.Int64) for name, value in _values().items()},
    )
    clock = flows["clock"].dt.timestamp("us").to_numpy().astype(np.int64)
    return CounterFacts(
        clock,
        _flow_keys(flows, clock),
        {name: table[f"is_{name}"].to_numpy() for name in masks},
        {name: table[name].to_numpy() for name in _values()},
    )


def _flow_keys(flows: pl.DataFrame, clock: Ints) -> dict[str, Keys]:
    orig, resp, proto = (_hashed(flows[name]) for name in ("orig_h", "resp_h", "proto"))
    port = flows["resp_p"].fill_null(0).cast(pl.UInt64).to_numpy() + np.uint64(1)
    return {
        "orig": orig,
        "resp": resp,
        "pair": mix(np.minimum(orig, resp), np.maximum(orig, resp)),
        "port": mix(port, proto),
        "service": flows["login_code"].cast(pl.UInt64).to_numpy() + np.uint64(1),
        "minute": (clock // 60_000_000).astype(np.uint64),
        "hour": (clock // 3_600_000_000).astype(np.uint64),
        "connection": _hashed(flows["uid"]),
    }


def _hashed(column: pl.Series) -> Keys:
    """(n) 64-bit hashes; in the product, the hashes that its windows make once for all."""
    return column.hash(1).to_numpy()
