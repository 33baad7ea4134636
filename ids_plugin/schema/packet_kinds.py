"""What a capture holds beside the packets that are measured: names for people.

Link types: https://www.tcpdump.org/linktypes.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LINK_TYPE_NAMES = {
    2: "experimental Ethernet",
    3: "AX.25",
    6: "token ring",
    7: "ARCNET",
    8: "SLIP",
    51: "PPPoE",
    99: "Symantec firewall",
    100: "ATM",
    106: "ATM on Linux",
    114: "LocalTalk",
    122: "IP over Fibre Channel",
    123: "ATM (SunATM)",
    138: "IP over FireWire",
    140: "MTP2 (SS7)",
    141: "MTP3 (SS7)",
    142: "SCCP (SS7)",
    143: "DOCSIS",
    144: "IrDA",
    147: "a private link type",
    162: "a private link type",
    177: "LAPD",
    187: "Bluetooth HCI",
    189: "USB of Linux",
    190: "CAN",
    195: "IEEE 802.15.4",
    197: "ERF",
    201: "Bluetooth HCI",
    203: "LAPD",
    209: "I2C",
    215: "IEEE 802.15.4",
    219: "ISDN (A-bis)",
    220: "USB of Linux",
    224: "Fibre Channel FC-2",
    227: "SocketCAN",
    230: "IEEE 802.15.4",
    231: "D-Bus",
    240: "netANALYZER",
    241: "netANALYZER",
    242: "IP over InfiniBand",
    243: "MPEG-2 transport stream",
    245: "NFC",
    247: "InfiniBand",
    248: "SCTP",
    249: "USB of Windows (USBPcap)",
    251: "Bluetooth Low Energy",
    252: "Wireshark upper PDU",
    253: "netlink",
    254: "Bluetooth Linux monitor",
    256: "Bluetooth Low Energy with radio header",
    258: "PKTAP",
    266: "USB of macOS",
    268: "ISO 14443",
    272: "nRF sniffer",
    283: "IEEE 802.15.4 with TAP header",
    288: "USB 2.0",
    292: "Z-Wave",
}
KIND_NAMES = {
    "arp": "ARP",
    "rarp": "RARP",
    "lldp": "LLDP",
    "eapol": "EAPOL",
    "macsec": "MACsec (encrypted)",
    "llc": "LLC",
    "ipx": "IPX",
    "ppp_control": "PPP control",
    "pppoe_discovery": "PPPoE discovery",
    "mpls_pseudowire": "pseudowire in MPLS",
    "80211_no_data": "802.11 without data",
    "80211_encrypted": "802.11 (encrypted)",
    "esp": "IPsec ESP (encrypted)",
    "gre": "GRE of no known kind",
    "fragments": "fragments of incomplete datagrams",
}
LINK_TYPE = re.compile(r"link_type_(\d+)")
UNHANDLED = "unhandled_"
"""Prefix of the ledger's notes about packets that aren't measured."""
SHOWN_KINDS = 6


def kind_name(kind: str) -> str:
    """What a kind of packet is called: `USB of Linux (link type 189)`."""
    if match := LINK_TYPE.fullmatch(kind):
        number = int(match[1])
        name = LINK_TYPE_NAMES.get(number)
        return f"{name} (link type {number})" if name else f"link type {number}"
    return KIND_NAMES.get(kind, kind.replace("_", " "))


def unmeasured_kinds(notes: Mapping[str, object]) -> dict[str, int]:
    """Packets that were not measured, by kind, out of the notes of a ledger or of steps."""
    return {
        name.removeprefix(UNHANDLED): count
        for name, count in notes.items()
        if name.startswith(UNHANDLED) and isinstance(count, int) and count
    }


def describe_kinds(kinds: Mapping[str, int]) -> str:
    """`12 USB of Linux (link type 189), 3 ARP`, most first; what is over SHOWN_KINDS together."""
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    texts = [f"{count:,} {kind_name(kind)}" for kind, count in ordered[:SHOWN_KINDS]]
    rest = sum(count for _, count in ordered[SHOWN_KINDS:])
    return ", ".join([*texts, *([f"{rest:,} others"] if rest else [])])
