"""Captures (pcap, pcapng) → connections as Zeek would have logged them, without Zeek.

`meter=zeek` or `meter=suricata` among the options runs the real program instead and reads what it wrote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ids_plugin.errors import InputError
from ids_plugin.schema import flow
from ids_plugin.sources import Input, Read, Reject
from ids_plugin.sources import _meter as meter
from ids_plugin.sources._frame import frame
from ids_plugin.sources._packets import Packets, decode
from ids_plugin.sources._pcap import CHUNK, PCAP_MAGICS, PCAPNG_MAGIC, Chunk, Damage, chunks
from ids_plugin.sources._programs import measure


class Capture:
    """Reads captures in pieces of `chunk_bytes`; the flows don't depend on it."""

    name = "capture"

    def __init__(self, chunk_bytes: int = CHUNK) -> None:
        self.chunk_bytes = chunk_bytes

    def sniff(self, head: bytes) -> float:
        return 1.0 if head[:4] in PCAP_MAGICS or head[:4] == PCAPNG_MAGIC else 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Reads to the end, giving connections out as they end; a step covers a chunk, whatever `batch_rows`.

        Raises:
            InputError: it isn't a capture.
            UsageError: the program that the option `meter` names isn't there.
        """
        program = source.options.get("meter", "builtin")
        if program != "builtin":
            yield from measure(program, source, batch_rows)
            return
        measured = meter.Meter()
        try:
            pieces = chunks(source.stream, self.chunk_bytes)
        except InputError as error:
            raise InputError(error.message, location=source.name, hint=error.hint) from None
        for chunk in pieces:
            packets = decode(chunk)
            finished = measured.add(packets)
            yield _step(source, finished, _rejects(source, chunk, packets), _notes(chunk, packets))
        for finished in measured.finish():
            yield _step(source, finished, (), {})
        if measured.given_out_early:
            yield Read(flow.empty(), 0, notes={"given_out_early": measured.given_out_early})


def _step(source: Input, finished: meter.Finished, rejects: tuple[Reject, ...], notes: dict[str, int]) -> Read:
    flows = frame(finished, source.name, source.sensor)
    return Read(flows=flows, read=len(flows) + len(rejects), rejects=rejects, notes=notes)


def _rejects(source: Input, chunk: Chunk, packets: Packets) -> tuple[Reject, ...]:
    """Damage of the file and packets that contradict themselves, in the order of the capture."""
    bad = [Damage(bad.number, bad.reason, "its headers say otherwise", bad.data) for bad in packets.bad]
    found = sorted([*chunk.damage, *bad], key=lambda damage: damage.packet)
    return tuple(
        Reject(source.name, f"packet {damage.packet}", damage.reason, damage.detail, damage.data.hex()[:200])
        for damage in found
    )


def _notes(chunk: Chunk, packets: Packets) -> dict[str, int]:
    notes = Counter({"packets": len(chunk.offset)})
    notes.update({f"unhandled_{kind}": count for kind, count in packets.unhandled.items()})
    notes.update({f"skipped_{kind}": count for kind, count in chunk.skipped.items()})
    return dict(notes)


PLUGIN = Capture()
