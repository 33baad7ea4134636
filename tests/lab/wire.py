"""Small clients of the protocols the lab's devices speak. They work in the calling thread's
namespace."""

from __future__ import annotations

import os
import random
import socket
import ssl
import struct
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection

TIMEOUT = 5.0


def trusting() -> ssl.SSLContext:
    """TLS without checking names: the lab's certificate is its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(
    address: str, port: int, *, source: str | None = None, timeout: float = TIMEOUT
) -> socket.socket:
    """A TCP connection; OSError when there is none in time."""
    return socket.create_connection((address, port), timeout, (source, 0) if source else None)


def http(
    address: str, port: int, paths: list[str], *, tls: bool = False, body: bytes | None = None
) -> int:
    """Requests paths over one connection (POST where there is a body); gives the bytes received.
    OSError on failure."""
    link = HTTPConnection(address, port, timeout=TIMEOUT)
    if tls:
        link = HTTPSConnection(address, port, timeout=TIMEOUT, context=trusting())
    total = 0
    try:
        for path in paths:
            link.request("POST" if body is not None else "GET", path, body=body)
            total += len(link.getresponse().read())
        if isinstance(link.sock, ssl.SSLSocket):
            link.sock.unwrap()
    except HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        link.close()
    return total


def dns_question(name: str, kind: int, number: int) -> bytes:
    """A DNS query (RFC 1035, 4.1)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0)
        + labels
        + b"\0"
        + struct.pack("!HH", kind, 1)
    )


def dns(server: str, name: str, rng: random.Random, kind: int = 1, tries: int = 2) -> bytes | None:
    """Asks over UDP; the answer, or None when there was none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(2.0)
        for _ in range(tries):
            link.sendto(dns_question(name, kind, rng.randrange(65536)), (server, 53))
            with suppress(OSError):
                return link.recvfrom(4096)[0]
    return None


def ntp(server: str) -> bool:
    """One client exchange (RFC 5905); whether it was answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(2.0)
        link.sendto(b"\x23" + bytes(47), (server, 123))
        with suppress(OSError):
            return len(link.recvfrom(512)[0]) >= 48
    return False


def dhcp_renew(server: str, own: str, rng: random.Random) -> bool:
    """Renews a lease (RFC 2131, unicast REQUEST with ciaddr); whether it was acknowledged."""
    mac = bytes([2, *socket.inet_aton(own), 0])
    packet = struct.pack(
        "!BBBBIHH4s12x", 1, 1, 6, 0, rng.randrange(2**32), 0, 0, socket.inet_aton(own)
    )
    packet += mac + bytes(10 + 64 + 128) + b"\x63\x82\x53\x63\x35\x01\x03\x37\x03\x01\x03\x06\xff"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind((own, 68))
        link.settimeout(2.0)
        link.sendto(packet.ljust(300, b"\0"), (server, 67))
        with suppress(OSError):
            return len(link.recvfrom(1500)[0]) > 200
    return False


def _mqtt_text(text: str) -> bytes:
    return struct.pack("!H", len(text)) + text.encode()


def _mqtt_packet(kind: int, body: bytes) -> bytes:
    length, sizes = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        sizes.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(sizes) + body


class Mqtt:
    """An MQTT 3.1.1 client that publishes; `refused` is the broker's return code (0: accepted)."""

    def __init__(
        self, address: str, port: int, name: str, user: str, password: str, tls: bool = False
    ) -> None:
        raw = connect(address, port)
        self.link: socket.socket = trusting().wrap_socket(raw) if tls else raw
        body = _mqtt_text("MQTT") + bytes([4, 0xC2]) + struct.pack("!H", 60)
        self.link.sendall(
            _mqtt_packet(0x10, body + _mqtt_text(name) + _mqtt_text(user) + _mqtt_text(password))
        )
        answer = self.link.recv(4)
        self.refused = answer[3] if len(answer) == 4 else 255

    def publish(self, topic: str, payload: bytes, number: int = 0) -> None:
        """Publishes, at QoS 1 when given a packet number (and waits for the acknowledgement)."""
        mark = struct.pack("!H", number) if number else b""
        self.link.sendall(
            _mqtt_packet(0x32 if number else 0x30, _mqtt_text(topic) + mark + payload)
        )
        if number:
            self.link.recv(4)

    def subscribe(self, topic: str) -> None:
        """Subscribes at QoS 0."""
        self.link.sendall(_mqtt_packet(0x82, b"\0\1" + _mqtt_text(topic) + b"\0"))

    def ping(self) -> None:
        """Keeps the connection alive."""
        self.link.sendall(b"\xc0\0")

    def close(self) -> None:
        """Says goodbye."""
        with suppress(OSError):
            self.link.sendall(b"\xe0\0")
            if isinstance(self.link, ssl.SSLSocket):
                self.link.unwrap()
        self.link.close()


def telnet_login(address: str, port: int, user: str, password: str, commands: list[str]) -> bool:
    """Logs in to a telnet-like server and types commands; whether the login was accepted. OSError
    on failure."""
    with connect(address, port, timeout=3.0) as link:
        for word in (user, password):
            link.recv(256)
            time.sleep(0.05)
            link.sendall(word.encode() + b"\r\n")
        accepted = b"$" in link.recv(256)
        for command in commands if accepted else ():
            link.sendall(command.encode() + b"\r\n")
            link.recv(512)
        return accepted


def ssh_knock(address: str, port: int, source: str | None = None) -> None:
    """An SSH client's banner and key exchange proposal, then goodbye: what a cheap brute forcer or
    stranger shows."""
    with connect(address, port, source=source, timeout=3.0) as link:
        link.sendall(b"SSH-2.0-libssh2_1.10.0\r\n")
        link.recv(1024)
        link.sendall(
            struct.pack("!IBB", 700, 4, 20)
            + os.urandom(16)
            + b"curve25519-sha256,aes128-ctr,hmac-sha2-256" * 16
        )
        link.recv(2048)


def filler(size: int) -> bytes:
    """Bytes that compress well: the sample ships in a repository."""
    return (b"lab payload " * (size // 12 + 1))[:size]
