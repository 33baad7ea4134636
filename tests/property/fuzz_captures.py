"""Fuzzing the capture reader by hand: no crash, no hang, memory bounded, every record accounted
for.

`python -m tests.property.fuzz_captures --atheris --executions 1000000 [--corpus FOLDER]` lets
coverage guide the mutations (needs `atheris`); without `--atheris` they are drawn by `--seed`.
Seeds are small captures of every shape the reader knows; a mutation keeps the framing of most of
them, so that what is inside packets is reached as well. An input that breaks a promise is kept:
`crash-*`, `timeout-*` or `oom-*` of atheris, else `fuzz-failure.bin`.
"""

from __future__ import annotations

import argparse
import io
import random
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from ids_plugin.errors import InputError
from ids_plugin.flowmeter import uneventful_packets
from ids_plugin.flowmeter.packets import capture_files
from ids_plugin.sources import Input
from ids_plugin.sources.capture import Capture
from tests.support.captures import (
    ACK,
    EPOCH,
    FIN,
    PSH,
    RST,
    SYN,
    Record,
    block,
    enhanced,
    ethernet,
    icmp,
    interface,
    ip,
    pcap,
    section,
    tcp,
    udp,
)
from tests.support.logs import Got

CHUNKS = (*(1 << 16,) * 61, 64, 300, 1 << 12)
"""Bytes read at a time, for an input each in turn; small ones cut records in two, and are
several times slower.
"""
SLOWEST = 20
"""Seconds a reader may take for one input of a few kB on a busy machine."""
MOST_MEMORY = 1024
"""MiB of the whole process, corpus and libFuzzer's tables among them."""
SLICE = 20_000
"""Executions of one process: atheris doesn't give back the memory of what a mutator of ours
returns.
"""
LONGEST = 8192
AS_IF_LARGE = (
    (uneventful_packets, "MIN_CHUNK_PACKETS", 0),
    (capture_files, "WALK_STRIDE_BYTES", 200),
    (capture_files, "MIN_WALKS", 2),
)
"""With these small captures are read the way large ones are."""
CLIENT, SERVER = ("10.0.0.5", 40_000), ("93.184.216.34", 80)
SIX, SEVEN = ("2001:db8::5", 40_000), ("fe80::7", 443)
HELLO = b"\x16\x03\x01\x00\x30\x01" + bytes(42)
NUMBERS = (0, 1, 2, 4, 5, 6, 8, 14, 17, 20, 28, 40, 41, 44, 47, 50, 58, 60, 64, 127, 128, 132, 255)
JUMPS = (0, 1, -1, -3600, 5, 10, 60, 301, 3601, 1 << 31, -EPOCH)


def exchange(
    port: int = 80,
    request: bytes = b"GET / HTTP/1.1\r\n\r\n",
    answer: bytes = b"HTTP/1.1 200 OK\r\n",
) -> list[bytes]:
    """A TCP connection with a request and an answer."""
    server, sent, got = (SERVER[0], port), 1001 + len(request), 9001 + len(answer)
    return [
        tcp(CLIENT, server, SYN, 1000),
        tcp(server, CLIENT, SYN | ACK, 9000, 1001),
        tcp(CLIENT, server, PSH | ACK, 1001, 9001, request),
        tcp(server, CLIENT, PSH | ACK, 9001, sent, answer),
        tcp(CLIENT, server, FIN | ACK, sent, got),
        tcp(server, CLIENT, FIN | ACK, got, sent + 1, window=0),
        tcp(CLIENT, server, RST, sent + 1),
    ]


def broken_exchange() -> list[bytes]:
    """A TCP connection with a hole, a retransmission, an overlap, a wrap and a jump of sequence
    numbers.
    """
    top = 2**32 - 20
    parts = [tcp(CLIENT, SERVER, SYN, top), tcp(SERVER, CLIENT, SYN | ACK, 5, top + 1)]
    parts += [
        tcp(CLIENT, SERVER, ACK, top + 1 + at, 6, b"x" * 10)
        for at in (0, 20, 15, 10, 0, 40, 2**31, 3 * 10**9)
    ]
    return [
        *parts,
        tcp(SERVER, CLIENT, ACK, 6, top + 61),
        tcp(SERVER, CLIENT, SYN, 77),
        tcp(CLIENT, SERVER, FIN | RST),
    ]


def names() -> list[bytes]:
    """DNS over UDP, a DHCP request, NTP and QUIC."""
    query = (
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"
    )
    resolver = ("10.0.0.1", 53)
    return [
        udp(("10.0.0.5", 5353), resolver, query),
        udp(resolver, ("10.0.0.5", 5353), query[:2] + b"\x81\x80" + query[4:]),
        udp(("10.0.0.250", 68), ("255.255.255.255", 67), b"\1\1\6\0" + bytes(240)),
        udp(("10.0.0.5", 123), ("10.0.0.9", 123), b"\x23" + bytes(47)),
        udp(CLIENT, (SERVER[0], 443), b"\xc0\0\0\0\1" + bytes(1200)),
    ]


def tunnels() -> list[bytes]:
    """Packets in packets, as deep as three."""
    inner = exchange()[0]
    flow_frame, session = ethernet(inner), struct.pack(">BBHI", 0x30, 0xFF, len(inner), 7)
    a, b = "192.0.2.1", "192.0.2.2"
    return [
        ip(a, b, 4, inner),
        ip(a, b, 41, tcp(SIX, SEVEN, SYN, 1)),
        ip(a, b, 4, ip(b, a, 4, inner)),
        ip(a, b, 47, b"\0\0\x08\0" + inner),
        ip(a, b, 47, b"\xb0\0\x08\0" + bytes(12) + inner),
        ip(a, b, 47, b"\x10\0\x65\x58\0\0\0\1" + flow_frame),
        ip(
            a,
            b,
            47,
            b"\x30\x01\x88\x0b"
            + struct.pack(">HHI", len(inner) + 4, 1, 1)
            + b"\xff\x03\0\x21"
            + inner,
        ),
        udp((a, 5555), (b, 4789), b"\x08\0\0\0\0\0\7\0" + flow_frame),
        udp((a, 5555), (b, 6081), b"\0\0\x65\x58\0\0\7\0" + flow_frame),
        udp((a, 5555), (b, 6081), b"\1\0\x08\0\0\0\7\0\0\1\0\0" + inner),
        udp((a, 2152), (b, 2152), session + inner),
        udp((a, 3544), (b, 4000), tcp(SIX, SEVEN, SYN, 1)),
        udp((a, 3544), (b, 4000), b"\0\1\0\0" + bytes(9) + tcp(SIX, SEVEN, SYN, 1)),
        udp((a, 5072), (b, 5072), b"\x44\x52\x11\x29" + bytes(40) + tcp(SIX, SEVEN, SYN, 1)),
    ]


def pieces() -> list[bytes]:
    """Fragments of IPv4 and IPv6, extension headers, options."""
    whole = udp(CLIENT, SERVER, bytes(range(64)))[20:]
    parts = [
        ip(CLIENT[0], SERVER[0], 17, whole[at : at + 24], fragment=(at < 48) << 13 | at // 8)
        for at in (0, 24, 48)
    ]
    segment = tcp(SIX, SEVEN, SYN, 1)[40:]
    chain = b"\x3c\0" + bytes(6) + b"\x2c\0" + bytes(6) + struct.pack(">BBHI", 6, 0, 0, 9)
    routed = b"\x06\x02\0\1" + bytes(20)
    return [
        *parts,
        parts[1],
        ip(CLIENT[0], SERVER[0], 17, whole[:32], fragment=1 << 13 | 2),
        ip(SIX[0], SEVEN[0], 0, chain + segment),
        ip(SIX[0], SEVEN[0], 43, routed + segment),
        ip(SIX[0], SEVEN[0], 44, struct.pack(">BBHI", 6, 0, 1, 9) + segment[:16]),
        ip(SIX[0], SEVEN[0], 44, struct.pack(">BBHI", 6, 0, 16, 9) + segment[16:]),
        ip(SIX[0], SEVEN[0], 51, b"\x06\x04" + bytes(22) + segment),
        ip(
            CLIENT[0],
            SERVER[0],
            6,
            tcp(CLIENT, SERVER, SYN)[20:],
            options=b"\x07\x27\x08" + bytes(37),
        ),
        ip(CLIENT[0], SERVER[0], 132, bytes(30)),
        ip(CLIENT[0], SERVER[0], 50, bytes(30)),
    ]


def messages() -> list[bytes]:
    """ICMP of both versions, with and without counterpart."""
    kinds = [icmp("10.0.0.5", "10.0.0.9", kind, 0, b"ping") for kind in (8, 0, 13, 17, 3, 11)]
    return kinds + [icmp("fe80::1", "ff02::2", kind) for kind in (128, 129, 133, 135, 143)]


def control() -> list[bytes]:
    """FTP that announces data connections, SMB with authentication, TLS, SSH, MQTT."""
    ftp = exchange(
        21, b"PORT 10,0,0,5,200,1\r\n", b"227 Entering Passive Mode (93,184,216,34,200,2)\r\n"
    )
    ftp += exchange(21, b"EPRT |2|2001:db8::5|5282|\r\n", b"229 ok (|||6446|)\r\n")
    smb = exchange(
        445, b"\0\0\0\x40\xfeSMB" + bytes(40) + b"NTLMSSP\0", b"\0\0\0\x40\xfeSMB" + bytes(60)
    )
    encrypted = exchange(443, HELLO, b"\x16\x03\x03\0\x30\2") + exchange(
        22, b"SSH-2.0-a\r\n", b"SSH-2.0-b\r\n"
    )
    return [*ftp, *smb, *encrypted, *exchange(1883, b"\x10\x10\0\4MQTT\4", b"\x20\2\0\0")]


def frames(packets: list[bytes]) -> list[bytes]:
    """Ethernet around packets, each with other tags."""
    tagged = [(), ((0x8100, 5),), ((0x88A8, 5), (0x8100, 6))]
    return [ethernet(packet, tagged[at % 3]) for at, packet in enumerate(packets)]


def links(packets: list[bytes]) -> dict[str, bytes]:
    """The same packets behind other link headers."""
    radiotap = b"\0\0\x08\0\0\0\0\0" + b"\x08\1\0\0" + bytes(20) + b"\xaa\xaa\3\0\0\0\x08\0"
    heads = {0: b"\2\0\0\0", 9: b"\xff\3\0\x21", 12: b"", 101: b"", 105: radiotap[8:], 108: b"\0\0\0\2",  # noqa: E501
             113: bytes(14) + b"\x08\0", 127: radiotap, 276: b"\x08\0" + bytes(18), 147: b""}  # fmt: skip  # noqa: E501
    found = {
        f"link {link}": pcap(
            (Record(at / 7, head + packet) for at, packet in enumerate(packets)), link=link
        )
        for link, head in heads.items()
    }
    wrapped = {
        "mpls": b"\x88\x47\0\1\1\x40",
        "pppoe": b"\x88\x64\x11\0\0\1\0\x40\0\x21",
        "arp": b"\x08\6",
        "llc": b"\0\5",
    }
    for name, middle in wrapped.items():
        found[name] = pcap(
            Record(at, b"\2" * 12 + middle + packet) for at, packet in enumerate(packets)
        )
    return found


def uid_seeds() -> dict[str, bytes]:
    """Small captures of every shape, by name."""
    groups = {"tcp": exchange(), "broken": broken_exchange(), "names": names(), "tunnels": tunnels(),  # noqa: E501
              "pieces": pieces(), "messages": messages(), "control": control()}  # fmt: skip
    found = links(exchange()[:4])
    for name, packets in groups.items():
        records = [Record(at * 1.7, flow_frame) for at, flow_frame in enumerate(frames(packets))]
        found[f"pcap {name}"] = pcap(records)
        found[f"pcapng {name}"] = section() + interface() + b"".join(map(enhanced, records))
    record = Record(3, ethernet(exchange()[0]))
    found["big"] = pcap([record, Record(4, record.data[:40], 60)], order=">", nanoseconds=True)
    simple = block(3, struct.pack(">I", len(record.data)) + record.data, ">")
    found["many interfaces"] = (
        section(">") + interface(1, 9, ">") + interface(101, 0x90, ">") + enhanced(record, 0, 10**9, ">") + simple  # noqa: E501
        + enhanced(Record(1, exchange()[0]), 1, order=">") + block(5, bytes(12), ">") + section() + interface(113)  # noqa: E501
    )  # fmt: skip
    return found


class Framed:
    """A capture cut into its records (pcap) or blocks (pcapng), as far as its lengths make
    sense.
    """

    def __init__(self, data: bytes) -> None:
        self.next_generation = data[:4] == b"\x0a\x0d\x0d\x0a"
        self.order = ">" if data[:4] in (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d") else "<"
        position = 0 if self.next_generation else 24
        self.head, self.parts = data[:position], []
        while position < len(data):
            end = position + self._length(data, position)
            self.parts.append(data[position:end])
            position = end

    def _length(self, data: bytes, position: int) -> int:
        """Bytes of the record or block at a position; the rest of the capture where that can't
        be.
        """
        rest = len(data) - position
        at = position + (4 if self.next_generation else 8)
        if at + 4 > len(data):
            return rest
        (said,) = struct.unpack_from(self.order + "I", data, at)
        whole = int(said) if self.next_generation else int(said) + 16
        return whole if 12 <= whole <= rest else rest

    def framed(self, part: bytes) -> bytes:
        """A part with lengths that fit it."""
        if len(part) < 16 or (self.next_generation and len(part) < 36):
            return part
        if not self.next_generation:
            return part[:8] + struct.pack(self.order + "I", len(part) - 16) + part[12:]
        part += b"\0" * (-len(part) % 4)
        length = struct.pack(self.order + "I", len(part))
        return part[:4] + length + part[8:-4] + length

    def joined(self) -> bytes:
        return self.head + b"".join(self.parts)


def mutated(data: bytes, chance: random.Random, most: int = LONGEST) -> bytes:
    """`data` with a few packets changed, cut, left out, repeated, moved in order or time, or
    with raw damage.
    """
    if chance.random() < 0.15:
        return _raw(data, chance)[:most]
    framed = Framed(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        if framed.parts:
            _change(framed, chance)
    return framed.joined()[:most]


def _change(framed: Framed, chance: random.Random) -> None:
    """One mutation that keeps the framing."""
    parts, at = framed.parts, chance.randrange(len(framed.parts))
    kind = chance.randrange(8)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts.insert(chance.randrange(len(parts) + 1), parts[at])
    elif kind == 2:
        other = chance.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    elif kind == 3:
        parts[at] = framed.framed(parts[at][: chance.randrange(len(parts[at]) + 1)])
    elif kind == 4:
        parts[at] = _later(framed, parts[at], chance)
    elif kind == 5:
        donor = Framed(chance.choice(_seeds()))
        if (
            donor.parts
            and donor.order == framed.order
            and donor.next_generation == framed.next_generation
        ):
            parts.insert(at, chance.choice(donor.parts))
    else:
        head = 28 if framed.next_generation else 16
        parts[at] = parts[at][:head] + _bytes(parts[at][head:], chance)
        parts[at] = framed.framed(parts[at]) if chance.random() < 0.8 else parts[at]


def _later(framed: Framed, part: bytes, chance: random.Random) -> bytes:
    """A pcap record or pcapng block at another time."""
    at = 16 if framed.next_generation else 0
    if len(part) < at + 4:
        return part
    (now,) = struct.unpack_from(framed.order + "I", part, at)
    jump = chance.choice(JUMPS) * (1_000_000 if framed.next_generation else 1)
    return part[:at] + struct.pack(framed.order + "I", (now + jump) & 0xFFFFFFFF) + part[at + 4 :]


def _bytes(data: bytes, chance: random.Random) -> bytes:
    """A few bytes set to numbers that mean something in a header, flipped or drawn; now and then
    a piece put in.
    """
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not out:
            break
        at = min(chance.randrange(len(out)), chance.choice((20, 60, 100, 10_000)) % len(out))
        at = at if chance.random() < 0.5 else chance.randrange(len(out))
        kind = chance.randrange(4)
        if kind == 0:
            out[at] = chance.choice(NUMBERS)
        elif kind == 1:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            out[at : at + 4] = chance.randbytes(len(out[at : at + 4]))
        else:
            out[at:at] = bytes(chance.choice(NUMBERS) for _ in range(chance.choice((1, 4, 8))))
    return bytes(out)


def _raw(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut out or repeated anywhere."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 2, 5))):
        at = chance.randrange(len(out) + 1)
        end = min(len(out), at + chance.choice((1, 4, 30, 500)))
        kind = chance.randrange(3)
        if kind == 0:
            out[at:end] = chance.randbytes(end - at)
        elif kind == 1:
            del out[at:end]
        else:
            out[at:at] = out[at:end]
    return bytes(out)


def check(data: bytes, chunk_bytes: int) -> Got | None:
    """Reads a capture in pieces; None where it was refused. `Got` checks that the counts
    balance.
    """
    source = Input("x", io.BytesIO(data), data[:65536], "default")
    try:
        got = Got(Capture(chunk_bytes).read(source, 8192))
    except InputError:
        return None
    assert (got.flows["duration"].drop_nulls().dt.total_microseconds() > 0).all()
    assert (got.flows["missed_bytes"] >= 0).all()
    assert all(reject.place.startswith("packet ") for reject in got.rejects)
    return got


def as_if_large() -> None:
    for module, name, value in AS_IF_LARGE:
        setattr(module, name, value)


_SEEDS: list[bytes] = []


def _seeds() -> list[bytes]:
    _SEEDS.extend(uid_seeds().values() if not _SEEDS else ())
    return _SEEDS


def at_random(executions: int, seed: int) -> Counter[str]:
    """Mutates seeds, each up to three times over."""
    chance, seen = random.Random(seed), Counter[str]()
    for at in range(executions):
        data = chance.choice(_seeds())
        for _ in range(chance.choice((1, 1, 2, 3))):
            data = mutated(data, chance)
        begun = time.perf_counter()
        try:
            got = check(data, CHUNKS[at % len(CHUNKS)])
            assert time.perf_counter() - begun < SLOWEST, "too slow"
        except BaseException:
            Path("fuzz-failure.bin").write_bytes(data)
            print(
                f"broken by fuzz-failure.bin in chunks of {CHUNKS[at % len(CHUNKS)]} bytes",
                file=sys.stderr,
            )
            raise
        seen["inputs"] += 1
        seen["refused"] += got is None
        seen["flows"] += got.flows.height if got else 0
        seen["rejects"] += len(got.rejects) if got else 0
    return seen


def guided(executions: int, corpus: Path, seed: int) -> None:
    """Lets atheris choose what to keep of the mutations; ends the process."""
    import atheris

    as_if_large()

    def one(data: bytes) -> None:
        check(data, CHUNKS[len(data) % len(CHUNKS)])

    def mutate(data: bytes, most: int, number: int) -> bytes:
        if number % 4 == 0:
            return bytes(atheris.Mutate(data, most))
        return mutated(data, random.Random(number), most)

    for name, module in list(sys.modules.items()):
        if name.startswith("ids_plugin.sources._") or name == "ids_plugin.sources.capture":
            for function in vars(module).values():
                if getattr(function, "__module__", "") == name and hasattr(function, "__code__"):
                    atheris.instrument_func(function)
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in uid_seeds().items():
        (corpus / name.replace(" ", "-")).write_bytes(data)
    flags = [f"-runs={executions}", f"-max_len={LONGEST}", f"-timeout={SLOWEST}", f"-rss_limit_mb={MOST_MEMORY}",  # noqa: E501
             f"-seed={seed}", "-print_final_stats=1"]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def in_slices(executions: int, corpus: Path, seed: int) -> int:
    """Runs slices one after another, each with the corpus the ones before left; exit code of the
    first that fails.
    """
    begun = time.perf_counter()
    for done in range(0, executions, SLICE):
        count = min(SLICE, executions - done)
        options = [
            "--atheris",
            "--executions",
            str(count),
            "--seed",
            str(seed + done),
            "--corpus",
            str(corpus),
        ]
        run = subprocess.run(
            [sys.executable, "-m", __spec__.name, *options], stderr=subprocess.PIPE, text=True
        )
        if run.returncode:
            print(run.stderr[-5000:], file=sys.stderr)
            return run.returncode
        last = [line for line in run.stderr.splitlines() if "DONE" in line][-1:]
        print(
            f"{done + count} of {executions}, {time.perf_counter() - begun:.0f} s: {''.join(last)}",
            flush=True,
        )
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--executions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"))
    arguments = parser.parse_args()
    if arguments.atheris and arguments.executions <= SLICE:
        guided(arguments.executions, arguments.corpus, arguments.seed)
    if arguments.atheris:
        sys.exit(in_slices(arguments.executions, arguments.corpus, arguments.seed))
    as_if_large()
    begun = time.perf_counter()
    seen = at_random(arguments.executions, arguments.seed)
    print({**seen, "seconds": round(time.perf_counter() - begun, 1)})


if __name__ == "__main__":
    main()
