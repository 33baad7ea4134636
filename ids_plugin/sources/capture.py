"""Captures (pcap, pcapng) → connections as Zeek would have logged them, without Zeek.

Options: `meter=zeek` or `meter=suricata` runs the real program instead and reads what it wrote;
`open_every` (seconds) adds records of TCP connections that have lasted that long and haven't ended,
as Zeek's open-connections packages write them; `community_id=yes` fills that column;
`checksums=verify` judges checksums as Zeek does without its option -C.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ids_plugin.errors import InputError
from ids_plugin.flowmeter import meter
from ids_plugin.flowmeter.flow_frame import flow_frame
from ids_plugin.flowmeter.packets.capture_clock import ClockStep, TimedChunk, timed_chunks
from ids_plugin.flowmeter.packets.capture_files import (
    BROKEN_LINK,
    CHUNK_BYTES,
    PCAP_MAGICS,
    PCAPNG_MAGIC,
    Bools,
    Chunk,
    Damage,
    chunks,
    part,
)
from ids_plugin.flowmeter.packets.decoder import Decoder
from ids_plugin.flowmeter.packets.packet_columns import Packets
from ids_plugin.schema import flow
from ids_plugin.schema.packet_kinds import kind_name
from ids_plugin.schema.reject import Reject
from ids_plugin.sources import Input, Read
from ids_plugin.sources.meter_programs import measure

JITTER = 1_000_000_000
"""ns that clocks may go back without being named for it: packets of several queues come in turn."""
ODDITIES = {
    "time_backwards": "earlier by more than a second than the packet before; "
    "measured by the latest time so far",
    "time_ahead": "its time is far ahead of those of the packets around it; measured by theirs",
    "zero_timestamp": "without a time; measured by the latest time so far",
}


class Capture:
    """Reads captures in pieces of `chunk_bytes`; the flows don't depend on it."""

    name = "capture"

    def __init__(self, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.chunk_bytes = chunk_bytes

    def sniff(self, head: bytes) -> float:
        return 1.0 if head[:4] in PCAP_MAGICS or head[:4] == PCAPNG_MAGIC else 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Reads to the end, giving connections out as they end; a step covers a chunk, whatever
        `batch_rows`.

        Raises:
            InputError: it isn't a capture.
            UsageError: the program that the option `meter` names isn't there.
        """
        program = source.options.meter
        if program != "builtin":
            yield from measure(program, source, batch_rows)
            return
        try:
            pieces = chunks(source.stream, self.chunk_bytes)
        except InputError as error:
            raise InputError(error.message, location=source.name, hint=error.hint) from None
        yield from _Reading(source).steps(pieces)


class _Reading:
    """One capture on its way to flows, with the options that it is read with."""

    def __init__(self, source: Input) -> None:
        self.source = source
        self.decoder = Decoder(verify=source.options.verify_checksums)
        self.meter = meter.Meter()
        self.every = round(source.options.open_every_s * 1_000_000)
        self.community = source.options.community_id
        self.last: int | None = None
        """time of the last packet, ns"""
        self.named: set[str] = set()
        """oddities of time that were located"""

    def steps(self, pieces: Iterator[Chunk]) -> Iterator[Read]:
        """A step a chunk, and one where open connections are looked at."""
        clock = Clock(self.every)
        for timed in timed_chunks(pieces):
            if timed.step:
                clock = Clock(self.every)
                yield from self._closed_at_step()
            oddities, notes = self._times(timed)
            warnings = self._warnings(timed)
            for chunk, look in clock.cut(timed.chunk) if self.every else [(timed.chunk, False)]:
                measured = self._measured(chunk, oddities, notes)
                yield replace(measured, warnings=(*warnings, *self._lost_lengths(measured.notes)))
                oddities, notes, warnings = [], {}, []
                if look:
                    yield self._step(self.meter.still_open(self.every), (), {}, still_open=True)
        for finished in self.meter.finish():
            yield self._step(finished, (), {})
        early = {
            "given_out_early": self.meter.given_out_early,
            "fragments_given_up": self.decoder.fragments.given_up,
        }
        if any(early.values()):
            yield Read(
                flow.empty(), 0, notes={name: count for name, count in early.items() if count}
            )

    def _closed_at_step(self) -> Iterator[Read]:
        """The connections that are open where the clock was set."""
        for finished in self.meter.begin_epoch():
            yield self._step(finished, (), {})

    def _measured(self, chunk: Chunk, oddities: list[Damage], odd: dict[str, int]) -> Read:
        """Connections that ended, rejects and counts; nothing of the packets is kept while frames
        are made."""
        packets = self.decoder.decode(chunk)
        rejects = _rejects(self.source, [*chunk.damage, *oddities], packets)
        notes = _notes(chunk, packets) | odd
        return self._step(self.meter.add(packets), rejects, notes)

    def _warnings(self, timed: TimedChunk) -> list[Reject]:
        """Steps of the clock, the first of each direction, and joined captures."""
        places = list(timed.chunk.remarks)
        if timed.step:
            name = "clock_set_back" if timed.step.shift_ns < 0 else "clock_jumps_ahead"
            if name not in self.named:
                self.named.add(name)
                places.append(Damage(timed.step.packet, name, _describe_step(timed.step), b""))
        return [
            Reject(self.source.name, f"packet {place.packet}", place.reason, place.detail, "")
            for place in places
        ]

    def _lost_lengths(self, notes: dict[str, int]) -> list[Reject]:
        """The warning that the file has lost how long its packets were, once."""
        reason = "original_length_lost"
        if reason not in notes or reason in self.named:
            return []
        self.named.add(reason)
        detail = "packets are as long as the snap length and say more: their headers' lengths count"
        return [Reject(self.source.name, "headers", reason, detail, "")]

    def _times(self, timed: TimedChunk) -> tuple[list[Damage], dict[str, int]]:
        """What is odd about the packets' times: the first of each kind located, all counted; and
        what was cut short."""
        chunk = timed.chunk
        is_whole = chunk.link != BROKEN_LINK
        if not is_whole.any():
            return [], {}
        time = timed.written
        is_ahead = np.zeros(len(time), dtype=bool)
        is_ahead[timed.outliers] = True
        is_ahead &= time > chunk.time
        time = np.where(is_ahead, chunk.time, time) if is_ahead.any() else time
        if not is_whole.all():
            time = time[np.maximum.accumulate(np.where(is_whole, np.arange(len(is_whole)), 0))]
        back = np.empty_like(time)
        back[1:] = time[1:] - time[:-1]
        back[0] = 0 if self.last is None or timed.step else time[0] - self.last
        back[~is_whole] = 0
        self.last = int(time[-1])
        masks = {
            "time_backwards": back < 0,
            "time_ahead": is_ahead,
            "zero_timestamp": (timed.written == 0) & is_whole,
        }
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        counts["cut_short"] = int((chunk.captured < chunk.length).sum())
        counts["clock_steps"] = int(timed.step is not None)
        worth_naming = masks | {"time_backwards": back < -JITTER}
        return self._located(chunk, worth_naming), {
            name: count for name, count in counts.items() if count
        }

    def _located(self, chunk: Chunk, masks: dict[str, Bools]) -> list[Damage]:
        """The capture's first packet of each mask."""
        oddities = []
        for name in [name for name, mask in masks.items() if name not in self.named and mask.any()]:
            self.named.add(name)
            row = int(np.argmax(masks[name]))
            start = int(chunk.offset[row])
            data = chunk.data[start : start + min(64, int(chunk.captured[row]))].tobytes()
            oddities.append(Damage(chunk.first + row, name, ODDITIES[name], data))
        return oddities

    def _step(
        self,
        finished: meter.EndedConnections,
        rejects: tuple[Reject, ...],
        notes: dict[str, int],
        *,
        still_open: bool = False,
    ) -> Read:
        name, sensor = self.source.name, self.source.sensor
        flows = flow_frame(finished, name, sensor, still_open=still_open, community=self.community)
        return Read(flows=flows, read=len(flows) + len(rejects), rejects=rejects, notes=notes)


class Clock:
    """Cuts chunks where the capture's clock passes a multiple of `every` µs since its first
    packet."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.begin: int | None = None
        self.now = 0

    def cut(self, chunk: Chunk) -> Iterator[tuple[Chunk, bool]]:
        """The chunk in pieces, and whether a multiple lies behind each."""
        if not len(chunk.time):
            yield chunk, False
            return
        time = np.maximum.accumulate(
            np.maximum(chunk.time // 1000, self.now if self.begin is not None else 0)
        )
        self.begin = int(time[0]) if self.begin is None else self.begin
        turn = (time - self.begin) // self.every
        before = np.append(max(self.now - self.begin, 0) // self.every, turn[:-1])
        self.now = int(time[-1])
        cuts = np.flatnonzero(turn != before).tolist()
        ends = [*cuts, len(turn)]
        for start, end in zip([0, *cuts], ends, strict=True):
            yield part(chunk, start, end), end < len(turn)


def _describe_step(step: ClockStep) -> str:
    """What is said of a step of the clock."""
    seconds = abs(step.shift_ns) / 1e9
    behind = "connections under way were closed there"
    if step.shift_ns < 0:
        return f"the clock was set back by {seconds:,.1f} s; {behind}"
    return f"the clock jumps ahead by {seconds:,.1f} s, or nothing was captured; {behind}"


def _rejects(source: Input, damage: list[Damage], packets: Packets) -> tuple[Reject, ...]:
    """Damage of the file and packets that contradict themselves, in the order of the capture."""
    bad = [
        Damage(bad.number, bad.reason, _detail(bad.reason), bad.data) for bad in packets.bad_headers
    ]
    return tuple(
        Reject(
            source.name,
            f"packet {damaged.packet}",
            damaged.reason,
            damaged.detail,
            damaged.data.hex()[:200],
        )
        for damaged in sorted([*damage, *bad], key=lambda damaged: damaged.packet)
    )


def _detail(reason: str) -> str:
    if reason.startswith("link_type_"):
        return f"{kind_name(reason)} isn't measured"
    return "its headers say otherwise"


def _notes(chunk: Chunk, packets: Packets) -> dict[str, int]:
    notes = Counter({"packets": len(chunk.offset)})
    notes.update({f"unhandled_{kind}": count for kind, count in packets.unhandled.items()})
    notes.update(packets.remarks)
    notes.update({f"skipped_{kind}": count for kind, count in chunk.skipped.items()})
    return dict(notes)


PLUGIN = Capture()
