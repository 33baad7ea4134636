"""Connections as columns: what the meter keeps of each, and Zeek's names and times for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

SECOND = 1_000_000
FIN, SYN, RST, ACK = 1, 2, 4, 16
INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = range(7)

ATTEMPT = 5 * SECOND
"""Zeek's tcp_attempt_delay: an unanswered SYN is given up."""
CLOSE = 5 * SECOND
"""tcp_close_delay: how long a closed connection still takes packets."""
TCP_IDLE = 300 * SECOND
LOGIN_IDLE = 3600 * SECOND
OTHER_IDLE = 60 * SECOND
LOGIN_PORTS = (21, 22, 23, 513)
"""ports of base/protocols/conn/inactivity.zeek"""
DNS_PORTS = (53, 137, 5353, 5355)
DNS_POLL = 10 * SECOND
"""dns_session_timeout: how often a DNS exchange over UDP is looked at, and ended if it has been still for"""
DNS_STILL = 9 * SECOND
NEVER = np.int64(1 << 62)

TCP_SERVERS = (
    21, 22, 25, 53, 80, 81, 88, 110, 135, 139, 143, 389, 443, 445, 502, 514, 563, 585, 587, 614, 631, 636, 989, 990, 992,
    993, 995, 1080, 1434, 1883, 2811, 3128, 3268, 3306, 3389, 5060, 5222, 5223, 5269, 5432, 6379, 6666, 6667, 6668, 6669,
    8000, 8080, 8888, 20000,
)  # fmt: skip
UDP_SERVERS = (
    53, 67, 69, 88, 123, 137, 161, 162, 389, 443, 514, 1812, 2123, 2152, 3544, 4789, 5060, 5072, 5353, 5355, 6081, 20000,
)  # fmt: skip
"""Zeek's likely_server_ports, as its default scripts fill it."""

ADDRESSES = ("low_high", "low_low", "high_high", "high_low")
WHOLE = ("low_port", "high_port", "protocol", "originator", "first_time", "last_time", "first_packet", "attempt_until")
WHOLE += ("close_at", "poll_at", "idle", "missed")
SIDES = ("packets", "ip_bytes", "payload", "state", "before", "start", "closing", "closed", "fins", "top", "acked")
SIDES += ("delivered", "data_end", "trimmed", "fin_end", "seen", "last_syn", "last_fin", "last_rst", "resent")
SIDES += ("zero_windows", "gaps", "given_up", "signs", "looked")


class Table:
    """n connections; columns of `SIDES` have shape (n, 2), side 0 being the lower endpoint, times are µs."""

    def __init__(self, count: int) -> None:
        self.hash = np.zeros(count, dtype=np.uint64)
        self.address = {name: np.zeros(count, dtype=np.uint64) for name in ADDRESSES}
        self.columns = {name: np.zeros(count, dtype=np.int64) for name in WHOLE}
        self.columns |= {name: np.zeros((count, 2), dtype=np.int64) for name in SIDES}

    def __len__(self) -> int:
        return len(self.hash)

    def __getitem__(self, name: str) -> Int64s:
        return self.columns[name]

    def take(self, which: Int64s | Bools) -> Table:
        """The rows `which` names."""
        taken = Table(0)
        taken.hash = self.hash[which]
        taken.address = {name: column[which] for name, column in self.address.items()}
        taken.columns = {name: column[which] for name, column in self.columns.items()}
        return taken

    def grown(self, count: int) -> Table:
        """These rows and `count` empty ones."""
        more = Table(count)
        more.hash = np.concatenate([self.hash, more.hash])
        more.address = {name: np.concatenate([self.address[name], column]) for name, column in more.address.items()}
        more.columns = {name: np.concatenate([self.columns[name], column]) for name, column in more.columns.items()}
        return more


def mix(value: UInt64s) -> UInt64s:
    """Finaliser of splitmix64 (Steele et al. 2014): every input bit changes every output bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
