"""Small servers of the lab: each function serves in the calling thread's namespace until the run is
over."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.lab.stage import Stage
from tests.lab.wire import filler

Handler = Callable[[socket.socket], None]
THOUGHT = (0.001, 0.06)
"""Seconds a server takes to think."""


def tcp(
    stage: Stage, port: int, handle: Handler, certificate: Path | None = None, address: str = ""
) -> None:
    """Accepts connections, each in a thread, over TLS when given a certificate."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    def serve(link: socket.socket) -> None:
        with suppress(OSError):
            link.settimeout(120)
            with context.wrap_socket(link, server_side=True) if context else link as wrapped:
                handle(wrapped)
                if isinstance(wrapped, ssl.SSLSocket):
                    wrapped.unwrap()

    with socket.create_server((address, port), backlog=256) as listener:
        listener.settimeout(0.5)
        while not stage.over.is_set():
            with suppress(TimeoutError):
                link, _ = listener.accept()
                threading.Thread(target=serve, args=(link,), daemon=True).start()


def http(link: socket.socket) -> None:
    """HTTP/1.1: `GET /N…` gives N bytes, a POST's body is swallowed."""
    stream = link.makefile("rb")
    while request := stream.readline():
        words = request.split()
        length = 0
        while (header := stream.readline()) not in {b"\r\n", b""}:
            if header.lower().startswith(b"content-length:"):
                length = int(header.split(b":")[1])
        while length > 0:
            got = stream.read(min(length, 65536))
            length = length - len(got) if got else 0
        digits = words[1].strip(b"/").split(b"/")[0] if len(words) > 1 else b""
        size = min(int(digits), 20_000_000) if digits.isdigit() else 40
        time.sleep(random.uniform(*THOUGHT))
        link.sendall(b"HTTP/1.1 200 OK\r\nServer: lab\r\nContent-Length: %d\r\n\r\n" % size)
        link.sendall(filler(size))


def talk(link: socket.socket) -> None:
    """Answers whatever it hears with a few bytes; the first answer is MQTT's CONNACK."""
    answer = b"\x20\x02\0\0"
    while heard := link.recv(65536):
        time.sleep(random.uniform(*THOUGHT))
        link.sendall(answer)
        answer = bytes([0xD0, len(heard) % 24]) + bytes(len(heard) % 24)


def swallow(link: socket.socket) -> None:
    """Reads to the end, then says so."""
    while link.recv(65536):
        pass


def telnet(stage: Stage, password: str) -> Handler:
    """A weak device's telnet: three tries, then a prompt that swallows commands."""

    def handle(link: socket.socket) -> None:
        for _ in range(3):
            link.sendall(b"\xff\xfd\x18\r\ncamera login: ")
            link.recv(256)
            link.sendall(b"Password: ")
            if link.recv(256).strip() == password.encode():
                stage.note("telnet: a login was accepted")
                link.sendall(b"\r\n$ ")
                while link.recv(512):
                    link.sendall(b"done\r\n$ ")
                return
            time.sleep(0.2)
            link.sendall(b"\r\nLogin incorrect\r\n")

    return handle


def dns(stage: Stage, address: str) -> None:
    """Answers A with the known address or a site drawn by the name, TXT with text, and `nx…` with
    NXDOMAIN."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((address, 53))
        link.settimeout(0.5)
        while not stage.over.is_set():
            with suppress(TimeoutError, IndexError, struct.error):
                query, peer = link.recvfrom(4096)
                link.sendto(_dns_answer(stage, query), peer)


def _dns_answer(stage: Stage, query: bytes) -> bytes:
    place, labels = 12, []
    while size := query[place]:
        labels.append(query[place + 1 : place + 1 + size].decode(errors="replace"))
        place += size + 1
    (kind,) = struct.unpack("!H", query[place + 1 : place + 3])
    question = query[12 : place + 5]
    name = ".".join(labels)
    if name.startswith("nx"):
        return query[:2] + struct.pack("!HHHHH", 0x8183, 1, 0, 0, 0) + question
    digest = hashlib.sha256(name.encode()).digest()
    if kind == 1:
        data = socket.inet_aton(stage.names.get(name) or stage.sites[digest[0] % len(stage.sites)])
    elif kind == 16:
        text = digest.hex().encode() * 3
        data = bytes([len(text)]) + text
    else:
        return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 0, 0, 0) + question
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + question + record


def ntp(stage: Stage, address: str) -> None:
    """Answers NTP clients."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind((address, 123))
        link.settimeout(0.5)
        while not stage.over.is_set():
            with suppress(TimeoutError):
                heard, peer = link.recvfrom(512)
                now = struct.pack("!II", int(time.time()) + 2208988800, 0)
                link.sendto(b"\x24\x02\x06\xec" + bytes(12) + now + heard[40:48] + now + now, peer)


def udp_sink(stage: Stage, address: str, port: int, reply_every: int = 0) -> None:
    """Takes datagrams; answers every n-th, as RTCP would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind((address, port))
        link.settimeout(0.5)
        count = 0
        while not stage.over.is_set():
            with suppress(TimeoutError):
                _, peer = link.recvfrom(65536)
                count += 1
                if reply_every and count % reply_every == 0:
                    link.sendto(filler(52), peer)
