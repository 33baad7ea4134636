"""Which services a connection has, by the signatures of both sides' first payloads.

Zeek's rule (https://docs.zeek.org/en/v8.0.8/frameworks/dpd.html): a protocol counts once its parser
has confirmed it. Here a payload that matches a signature stands for a successful parse: from both
sides, or from one side on a registered port where Zeek's parser confirms a single message.
"""

from __future__ import annotations

import numpy as np

from ids_plugin.flowmeter.connection_table import mix
from ids_plugin.flowmeter.packets.headers import Int64s
from ids_plugin.flowmeter.packets.packet_columns import TCP, UDP
from ids_plugin.flowmeter.payload_signatures import (
    IS_HTTP_PORT,
    POSTGRESQL,
    SIGNATURE_BIT,
    SIGNATURE_NAMES,
)

ONE_SIDED_PROTOCOLS = {
    TCP: (
        "sip_tcp", "krb_tcp", "dns_tcp", "dnp3_tcp", "modbus", "xmpp", "finger",
        "websocket", "ftp-data",
    ),
    UDP: (
        "dns", "dhcp", "ntp", "snmp", "krb", "sip", "radius", "quic", "syslog", "dnp3_udp",
        "gtpv1", "vxlan", "geneve", "ayiya",
    ),
}  # fmt: skip
"""Protocols that one message confirms."""

TWO_SIDED_PROTOCOLS = {
    "http": ("http?", "http!"),
    "ssl": ("tls?", "tls!"),
    "ssh": ("ssh", "ssh"),
    "smtp": ("smtp?", "220"),
    "pop3": ("pop3?", "pop3!"),
    "irc": ("nick", "irc!"),
    "mqtt": ("mqtt?", "mqtt!"),
    "mysql": ("mysql?", "mysql!"),
    "socks": ("socks?", "socks!"),
    "smb": ("smb", "smb"),
    "dce_rpc": ("rpc?", "rpc!"),
    "rfb": ("rfb", "rfb"),
    "redis": ("redis?", "redis!"),
    "postgresql": ("postgresql?", "postgresql!"),
    "ldap_tcp": ("ldap_tcp?", "ldap_tcp!"),
    "ldap_udp": ("ldap_udp?", "ldap_udp!"),
    "rdpeudp": ("rdpeudp?", "rdpeudp!"),
    "dtls": ("dtls", "dtls"),
    "teredo": ("teredo", "teredo"),
}
"""Protocols that a message of each side confirms: the originator's sign, the responder's."""


def service_names(
    originator: Int64s, responder: Int64s, port: Int64s, protocol: Int64s
) -> tuple[list[str | None], Int64s]:
    """Names that occur among n connections, from the bits both sides have shown, and which of them
    each has.

    Names are comma-separated as in a conn.log; None where nothing was recognised.
    """
    port_and_protocol = (
        IS_HTTP_PORT[port].astype(np.int64) | (port == POSTGRESQL) << 1 | (protocol == UDP) << 2
    )
    key = mix(
        mix(originator.astype(np.uint64)) ^ responder.astype(np.uint64)
    ) ^ port_and_protocol.astype(np.uint64)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    combinations = zip(
        originator[first].tolist(),
        responder[first].tolist(),
        port_and_protocol[first].tolist(),
        strict=True,
    )
    return [_services_of(*each) for each in combinations], inverse.astype(np.int64)


def _services_of(originator: int, responder: int, port_and_protocol: int) -> str | None:
    """Services of a connection; `port_and_protocol` says whether its port is HTTP's (1),
    PostgreSQL's (2), and UDP (4).
    """
    if not (originator or responder):
        return None
    of_either, protocol = originator | responder, UDP if port_and_protocol & 4 else TCP
    names = [name for name in ONE_SIDED_PROTOCOLS[protocol] if of_either & SIGNATURE_BIT[name]]
    for name, (originator_signature, responder_signature) in TWO_SIDED_PROTOCOLS.items():
        if (
            originator_signature in SIGNATURE_NAMES[protocol]
            and originator & SIGNATURE_BIT[originator_signature]
            and responder & SIGNATURE_BIT[responder_signature]
        ):
            names.append(name)
    if protocol == TCP:
        _adjust_tcp_services(names, originator, responder, port_and_protocol)
    named = {"sip_tcp": "sip", "dns_tcp": "dns"}
    return ",".join(named.get(name, name) for name in names) or None


def _adjust_tcp_services(
    names: list[str], originator: int, responder: int, port_and_protocol: int
) -> None:
    """Adds services that take more than a sign of each side; takes off those that others
    explain.
    """
    of_either = originator | responder
    if port_and_protocol & 1 and originator & SIGNATURE_BIT["http"] and "http" not in names:
        names.append("http")
    if (
        originator & SIGNATURE_BIT["nick"]
        and responder & SIGNATURE_BIT["irc"]
        and "irc" not in names
    ):
        names.append("irc")
    if (
        responder & SIGNATURE_BIT["220"]
        and originator & SIGNATURE_BIT["user"]
        and responder & SIGNATURE_BIT["331"]
        and "smtp" not in names
    ):
        names.append("ftp")
    if (
        originator & SIGNATURE_BIT["rdp?"]
        and responder & SIGNATURE_BIT["rdp!"]
        and originator & SIGNATURE_BIT["mcs"]
        and "ssl" not in names
    ):
        names.append("rdp")
    if responder & SIGNATURE_BIT["imap!"]:
        names.append("imap")
    asked = (
        originator & SIGNATURE_BIT["postgresql_tls?"]
        and responder & SIGNATURE_BIT["postgresql_tls!"]
    )
    if (
        asked or (port_and_protocol & 2 and originator & SIGNATURE_BIT["postgresql?"])
    ) and "postgresql" not in names:
        names.append("postgresql")
    if "smb" in names or "dce_rpc" in names:
        names += [name for name in ("gssapi", "ntlm") if of_either & SIGNATURE_BIT[name]]
        names += ["dce_rpc"] if "smb" in names and of_either & SIGNATURE_BIT["dce_rpc"] else []
    for name, instead in (("irc", "ftp"), ("redis", "pop3"), ("websocket", None)):
        if name in names and (instead in names if instead else "http" not in names):
            names.remove(name)
