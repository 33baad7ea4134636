"""Hosts in network namespaces: a bridge for the local network, a router, and an internet behind it.

Nothing leads out: every link is made directly between two namespaces, the router drops what it has
no route for, and the machine's own namespace gets neither an interface nor a route. Namespaces are
called `lab<pid>-<host>`; `sweep` removes those whose process is gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

from tests.lab import wires

NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
OFFLOADS = (0x17, 0x1F, 0x2C, 0x24)
"""ETHTOOL_STXCSUM, STSO, SGRO, SGSO: switched off, so that the capture shows the wire's packets and
checksums."""
GATE = "100.64.0.1"
"""The router's address towards the outside."""

Result = TypeVar("Result")


class Reach(NamedTuple):
    """How far a host is from the bridge or router: seconds one way, share of frames lost."""

    delay: float
    jitter: float
    loss: float = 0.0
    spread: float = 0.0
    """seconds added at most by the address, for a host that plays many places"""


_libc = ctypes.CDLL(None, use_errno=True)


def ip(namespace: str, *lines: str) -> None:
    """Runs lines of `ip` inside a namespace; CalledProcessError when one fails."""
    subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"],
        input="\n".join(lines),
        text=True,
        check=True,
        capture_output=True,
    )


def enter(namespace: str) -> None:
    """Moves the calling thread (and what it starts) into a network namespace; OSError when that
    fails."""
    descriptor = os.open(NETNS / namespace, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"can't enter {namespace}")
    finally:
        os.close(descriptor)


def within(namespace: str, work: Callable[[], Result]) -> Result:
    """What `work` gives, done by a thread inside the namespace."""
    found: list[Result] = []

    def body() -> None:
        enter(namespace)
        found.append(work())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if not found:
        raise RuntimeError(f"work inside {namespace} failed")
    return found[0]


def _inside(namespace: str, settings: dict[str, str], interfaces: Iterable[str]) -> None:
    """Writes sysctls and switches offloads off, inside the namespace."""

    def work() -> None:
        for name, value in settings.items():
            with suppress(FileNotFoundError):
                Path("/proc/sys/net", name).write_text(value)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            for interface in interfaces:
                for command in OFFLOADS:
                    switch = ctypes.create_string_buffer(struct.pack("II", command, 0))
                    request = struct.pack("16sP", interface.encode(), ctypes.addressof(switch))
                    fcntl.ioctl(handle, SIOCETHTOOL, request)

    within(namespace, work)


@dataclass(frozen=True, eq=False)
class Host:
    """One namespace with one main address."""

    name: str
    role: str
    address: str
    namespace: str
    also: tuple[str, ...] = ()
    """further networks it answers for"""

    def enter(self) -> None:
        """Moves the calling thread to this host."""
        enter(self.namespace)


@dataclass
class Network:
    """The namespaces of one run; a context manager that removes them whatever happens."""

    subnet: ipaddress.IPv4Network
    """the local network: the first address is the router's"""
    hosts: list[Host] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefix = f"lab{os.getpid()}"
        self.switch = f"{self.prefix}-switch"
        self.router = f"{self.prefix}-router"
        self._ports = 0
        self._links: list[wires.Link] = []
        self._carrier: subprocess.Popen[str] | None = None

    def __enter__(self) -> Network:
        try:
            self._core()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def gateway(self) -> str:
        """The router's local address."""
        return str(self.subnet.network_address + 1)

    def _namespace(self, name: str) -> str:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        ip(name, "link set lo up")
        return name

    def _core(self) -> None:
        self._namespace(self.switch)
        self._namespace(self.router)
        _inside(
            self.switch,
            {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"},
            (),
        )
        ip(self.switch, "link add br0 type bridge", "link set br0 up")
        settings = {
            "ipv4/ip_forward": "1",
            "ipv4/conf/all/rp_filter": "0",
            "ipv4/conf/default/rp_filter": "0",
        }
        _inside(self.router, settings, ())
        ip(self.router, "route add blackhole default")
        self._plug(self.router, self.gateway)

    def _plug(self, namespace: str, address: str, reach: Reach | None = None) -> None:
        self._ports += 1
        port = f"p{self._ports}"
        self._wire(namespace, self.switch, port, reach)
        ip(self.switch, f"link set {port} master br0 up")
        ip(
            namespace,
            f"addr add {address}/{self.subnet.prefixlen} brd + dev eth0",
            "link set eth0 up",
        )
        _inside(namespace, {"ipv4/conf/all/rp_filter": "0", "ipv4/conf/eth0/rp_filter": "0"}, ())

    def _wire(self, namespace: str, far: str, port: str, reach: Reach | None) -> None:
        """Joins `eth0` of a namespace with a port of another: directly, or by taps that frames are
        carried between."""
        if reach is None:
            ip(far, f"link add {port} type veth peer name eth0 netns {namespace}")
            _inside(far, {}, [port])
            _inside(namespace, {}, ["eth0"])
            return
        near_tap = within(namespace, lambda: wires.tap("eth0"))
        far_tap = within(far, lambda: wires.tap(port))
        ip(namespace, "link set eth0 txqueuelen 3000")
        ip(far, f"link set {port} txqueuelen 3000")
        self._links.append(wires.Link(near_tap, far_tap, *reach))

    def carry(self) -> None:
        """Starts carrying frames over the links that have a distance; call once all hosts are
        there."""
        taps = [tap for link in self._links for tap in (link.near, link.far)]
        if not taps:
            return
        self._carrier = subprocess.Popen(
            [sys.executable, str(Path(wires.__file__))],
            stdin=subprocess.PIPE,
            text=True,
            pass_fds=taps,
            start_new_session=True,
        )
        assert self._carrier.stdin is not None
        self._carrier.stdin.write(wires.encode(self._links) + "\n")
        self._carrier.stdin.flush()
        self._release()

    def _release(self) -> None:
        """Closes this process's copies of the taps: they live as long as the carrier."""
        for link in self._links:
            os.close(link.near)
            os.close(link.far)
        self._links.clear()

    def add(
        self,
        name: str,
        role: str,
        address: str,
        reach: Reach | None = None,
        *,
        answers: str = "",
        silent: str = "",
    ) -> Host:
        """A host on the local network.

        Args:
            reach: its distance from the bridge; None is a plain cable.
            answers: further network whose every address is this host (closed ports refuse).
            silent: network it answers ARP for and drops everything else, as firewalled hosts do.
        """
        namespace = self._namespace(f"{self.prefix}-{name}")
        self._plug(namespace, address, reach)
        ip(namespace, f"route add default via {self.gateway}")
        if answers:
            ip(namespace, f"route add local {answers} dev lo")
        if silent:
            ip(
                namespace,
                "link add void type veth peer name hole",
                "link set void arp off up",
                "link set hole up",
            )
            ip(namespace, f"route add {silent} dev void")
            _inside(namespace, {"ipv4/ip_forward": "1", "ipv4/conf/eth0/proxy_arp": "1"}, ())
        host = Host(name, role, address, namespace, tuple(net for net in (answers, silent) if net))
        self.hosts.append(host)
        return host

    def add_outside(self, name: str, role: str, address: str, reach: Reach | None = None) -> Host:
        """A host on the other side of the router; addresses nobody claimed stay silent."""
        namespace = self._namespace(f"{self.prefix}-{name}")
        self._ports += 1
        port = f"o{self._ports}"
        self._wire(namespace, self.router, port, reach)
        ip(
            self.router,
            f"addr add {GATE}/32 dev {port}",
            f"link set {port} up",
            f"route add {address}/32 dev {port}",
        )
        ip(
            namespace,
            f"addr add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {GATE} dev eth0",
        )
        ip(namespace, f"route add default via {GATE}")
        _inside(self.router, {f"ipv4/conf/{port}/rp_filter": "0"}, ())
        _inside(namespace, {"ipv4/conf/all/rp_filter": "0", "ipv4/conf/eth0/rp_filter": "0"}, ())
        host = Host(name, role, address, namespace)
        self.hosts.append(host)
        return host

    def route_outside(self, host: Host, network: str) -> None:
        """Sends a whole network to an outside host, which drops what it doesn't own."""
        ip(self.router, f"route add {network} via {host.address} dev {self._port_of(host)} onlink")

    def own(self, host: Host, address: str) -> None:
        """Lets an outside host own one more address or network."""
        ip(host.namespace, f"route add local {address} dev lo")

    def _port_of(self, host: Host) -> str:
        shown = subprocess.run(
            ["ip", "-n", self.router, "route", "get", host.address],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found = re.search(r"dev (\S+)", shown)
        assert found, shown
        return found[1]

    def close(self) -> None:
        """Ends what runs inside the namespaces and removes them."""
        self._release()
        if self._carrier is not None:
            self._carrier.kill()
            self._carrier.communicate()
        remove(name for name in _namespaces() if name.startswith(f"{self.prefix}-"))


def _namespaces() -> list[str]:
    return sorted(path.name for path in NETNS.iterdir()) if NETNS.is_dir() else []


def remove(names: Iterable[str]) -> None:
    """Ends the processes inside namespaces, then deletes these."""
    for name in names:
        found = subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
        ).stdout
        for pid in map(int, found.split()):
            if pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def sweep() -> list[str]:
    """Removes the namespaces that a killed run left; gives their names."""
    left = []
    for name in _namespaces():
        found = re.fullmatch(r"lab(\d+)-.+", name)
        if found and not Path("/proc", found[1]).exists():
            left.append(name)
    remove(left)
    return left
