"""Messages of source topics → flows per sensor and run, rejects, and what the ledger says of them.

One message is one record, in any of the envelopes that files have too; the readers of files read them, joined by
newlines. A message may also hold several lines. Our own senders put the sensor's name and the record's number into
headers (`ids-sensor`, `ids-seq` = RUN:N) and end a run with an empty message (`ids-end`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from ids_plugin.schema.flow import DEFAULT_SENSOR
from ids_plugin.schema.ledger import Ledger, tally
from ids_plugin.sources import ecs, suricata, zeek
from ids_plugin.sources.flow_batches import NOTHING, WIRE, Batch, Range
from ids_plugin.sources.readers import ndjson
from ids_plugin.sources.readers.flow_builder import Fault, build_flows
from ids_plugin.sources.readers.lines import LONGEST_LINE, Chunk, count
from ids_plugin.sources.readers.ndjson import Bad, Layout, OutOfScope

Int64s = npt.NDArray[np.int64]
Header = tuple[str, bytes]
NUMBER = r"^([0-9a-f]{16}):(\d{1,18})$"
COUNTERS = "zeek_ids_counts"
"""What the sensors say of themselves: how many records they wrote and dropped."""
UNKNOWN = "unknown"
"""`source` of records that are of no known kind."""
SHOWN = 200
KEPT = 1 << 16
"""Bytes of a rejected message that are kept."""
TABS = 8
"""Tabs from which on a line that is no JSON is taken for Zeek's TSV."""
KINDS = {"zeek": "zeek", "eve": "suricata", "ecs": "ecs"}
"""Beginnings of the reasons why a record is out of scope, and whose they are."""


class Fetched(NamedTuple):
    """Messages of one partition, in their order; one entry a message in each sequence."""

    topic: str
    partition: int
    offsets: Sequence[int]
    times: Sequence[int]
    """ms since the epoch, -1 for none"""
    values: Sequence[bytes | None]
    headers: Sequence[Sequence[Header]]


class Rejected(NamedTuple):
    """A record that can't be read."""

    topic: str
    partition: int
    offset: int
    sensor: str
    reason: str
    detail: str
    data: bytes
    """the message, at most KEPT bytes of it"""

    @property
    def shown(self) -> str:
        """The beginning as text."""
        return self.data[: 4 * SHOWN].decode("utf-8", "replace")[:SHOWN]


@dataclass
class Messages:
    """What some messages gave."""

    batches: list[Batch] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    counters: list[dict[str, Any]] = field(default_factory=list)
    """the sensors' own counts, as they wrote them, with `sensor`"""


class Reader:
    """Reads messages. Remembers nothing that changes what comes out."""

    def __init__(self, sensors: Mapping[str, str] | None = None) -> None:
        """`sensors`: topic → name of the sensor whose records say none."""
        self._sensors = dict(sensors or {})
        self._habits: dict[str, ndjson.SeenKeys] = {}
        self._marked: dict[int, tuple[Layout, Layout]] = {}
        link = suricata.Link(ethernet=True)
        self._eve = replace(suricata.FLOW, derive=link.derive)

    def read(self, fetched: Sequence[Fetched], now: int) -> Messages:
        """Flows and what else the messages hold.

        Args:
            fetched: what one poll gave.
            now: ms; no record is taken to be from the future.
        """
        found = Messages()
        filled = sorted((part for part in fetched if part.values), key=lambda part: part.topic)
        for topic, parts in groupby(filled, key=lambda part: part.topic):
            table = _Table.of(list(parts), self._sensors.get(topic, DEFAULT_SENSOR), now)
            self._topic(topic, table, found)
        return found

    def _topic(self, topic: str, table: _Table, found: Messages) -> None:
        lines = self._lines(table)
        habit = self._habits.setdefault(topic, ndjson.SeenKeys())
        piece = Chunk(b"\n".join([*lines.texts, b""]), 0, len(lines.texts))
        step = ndjson.parse(piece, self.classify, habit) if lines.texts else ndjson.ParsedChunk()
        parts: dict[str, list[pl.DataFrame]] = {}
        for frame in step.frames:
            if frame.height:
                parts.setdefault(frame["_source"][0], []).append(frame)
        flows: list[pl.DataFrame] = []
        lost = [(fault, UNKNOWN) for fault in step.faults]
        for source, frames in sorted(parts.items()):
            made, faults = _flows(ndjson.joined(frames), source, lines, table)
            flows.append(made)
            lost += [(fault, source) for fault in faults]
        _reject(topic, table, lines, lost, found)
        _set_aside(table, lines, step.out_of_scope, found)
        _count(flows, found.ledger)
        found.batches += _batches(
            topic, table, pl.concat(flows) if flows else NOTHING.with_columns(_run=0)
        )

    def classify(self, record: dict[str, Any]) -> Layout | OutOfScope | Bad:
        """The layout of a record of any kind, in any envelope."""
        if "event_type" in record and "timestamp" in record:
            return self._of("suricata", suricata.classify(record, self._eve))
        found = self._of("zeek", zeek.classify(record))
        if isinstance(found, Bad) and ("@timestamp" in record or "_source" in record):
            found = self._of("ecs", ecs.classify(record))
        return (
            Bad("unknown_kind", "neither Zeek's, nor Suricata's, nor ECS")
            if _foreign(found)
            else found
        )

    def _of(self, source: str, found: Layout | OutOfScope | Bad) -> Layout | OutOfScope | Bad:
        """The layout with a draft column that says whose it is."""
        if not isinstance(found, Layout) or found.inner is not None:
            return found
        if id(found) not in self._marked:
            marked = replace(found, tidy=(*found.tidy, pl.lit(source).alias("_source")))
            self._marked[id(found)] = (found, marked)
        return self._marked[id(found)][1]

    def _lines(self, table: _Table) -> _Lines:
        values = table.values
        if all(values) and all(map(bytes.strip, values)) and max(map(len, values)) <= LONGEST_LINE:
            joined = b"\n".join(values)
            if count(joined, b"\n") == len(values) - 1 and b'"message"' not in joined:
                return _Lines(values, np.arange(len(values)))
        texts: list[bytes] = []
        messages: list[int] = []
        lines = _Lines(texts, np.zeros(0, np.int64))
        for at, value in enumerate(values):
            if table.ends[at]:
                continue
            several = self._several(value, at, lines)
            if len(several) > 1:
                lines.several.append(at)
            texts += several
            messages += [at] * len(several)
        lines.message = np.array(messages, np.int64)
        return lines

    def _several(self, value: bytes, at: int, lines: _Lines) -> list[bytes]:
        """The lines of a message; none if there is something wrong with it as a whole."""
        text = value.strip()
        if not text:
            lines.faults.append((at, Bad("empty", "a message without a record")))
        elif len(text) > LONGEST_LINE:
            lines.faults.append((at, Bad("too_long", f"a message of {len(text):,} bytes")))
        elif b'"message"' in text:
            return [self._unwrapped(text, at, lines)]
        elif b"\n" in text:
            return self._split(text, at, lines)
        else:
            return [text]
        return []

    def _split(self, text: bytes, at: int, lines: _Lines) -> list[bytes]:
        """A record written over several lines, or several records."""
        if _is_json(text):
            return [text.replace(b"\n", b" ")]
        several = [line for line in text.split(b"\n") if line.strip()]
        if _is_json(several[0]):
            return several
        found = ndjson.read_line(text, True, self.classify)
        if isinstance(found, Bad):
            lines.faults.append((at, _bad(text, found)))
        return []

    def _unwrapped(self, text: bytes, at: int, lines: _Lines) -> bytes:
        """The record inside of Beats' envelope, and the name of the host that sent it."""
        flat = text.replace(b"\n", b" ")
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError:
            return flat
        if not isinstance(record, dict) or self.classify(record) is not ndjson.MESSAGE:
            return flat
        name = next(
            (name for name in map(_name_of, (record.get(key) for key in OBSERVERS)) if name), None
        )
        if name:
            lines.outer[at] = name
        return record["message"].strip().replace("\n", " ").encode("utf-8", "replace") or b"{}"


OBSERVERS = ("observer", "host", "agent")
"""Objects around a record whose `name` is the sensor's, the first that is there."""


def _name_of(observer: object) -> str | None:
    name = observer.get("name") if isinstance(observer, dict) else None
    return name if isinstance(name, str) else None


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _foreign(found: Layout | OutOfScope | Bad) -> bool:
    return isinstance(found, Bad) and found.reason in ("not_zeek", "not_ecs", "not_eve")


@dataclass
class _Lines:
    """The lines that are read together, and which message each is from."""

    texts: list[bytes]
    message: Int64s
    faults: list[tuple[int, Bad]] = field(default_factory=list)
    """messages that have no lines, and why"""
    several: list[int] = field(default_factory=list)
    """messages that hold several records: these aren't numbered"""
    outer: dict[int, str] = field(default_factory=dict)
    """message → sensor, from around the record"""


@dataclass
class _Table:
    """Messages of a topic by columns."""

    values: list[bytes]
    partition: npt.NDArray[np.int32]
    offset: Int64s
    at: Int64s
    """ms"""
    sensors: list[str | None]
    """what the header says"""
    default: str
    run: Int64s
    """index in `runs`, 0 for none"""
    runs: list[str]
    seq: Int64s
    ends: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, parts: Sequence[Fetched], default: str, now: int) -> _Table:
        """Messages of all partitions, one after the other."""
        headers = [one for part in parts for one in part.headers]
        at = np.array([time for part in parts for time in part.times], np.int64)
        table = cls(
            values=[value or b"" for part in parts for value in part.values],
            partition=np.repeat(
                [part.partition for part in parts], [len(part.offsets) for part in parts]
            ),
            offset=np.array([offset for part in parts for offset in part.offsets], np.int64),
            at=np.where(at < 0, now, np.minimum(at, now)),
            sensors=[None] * len(headers),
            default=default,
            run=np.zeros(len(headers), np.int64),
            runs=[""],
            seq=np.full(len(headers), -1, np.int64),
            ends=np.zeros(len(headers), np.bool_),
        )
        if any(headers):
            table._read_headers(headers)
        return table

    def _read_headers(self, headers: Sequence[Sequence[Header]]) -> None:
        numbers: list[str | None] = [None] * len(headers)
        names: dict[bytes, str | None] = {}
        for at, several in enumerate(headers):
            for name, value in several:
                if name == "ids-sensor" and value:
                    if value not in names:
                        names[value] = value.decode("utf-8", "replace")
                    self.sensors[at] = names[value]
                elif name == "ids-seq":
                    numbers[at] = value.decode("ascii", "replace")
                elif name == "ids-end":
                    self.ends[at] = not self.values[at]
        texts = pl.Series(numbers, dtype=pl.String)
        groups = pl.select(pl.lit(texts).str.extract_groups(NUMBER)).unnest(texts.name)
        named = pl.Series([name is not None for name in self.sensors], dtype=pl.Boolean)
        runs = groups["1"].set(~named, None)
        self.runs += runs.drop_nulls().unique().sort().to_list()
        index = {run: at for at, run in enumerate(self.runs)}
        self.run = (
            runs.replace_strict(index, default=0, return_dtype=pl.Int64).fill_null(0).to_numpy()
        )
        self.seq = groups["2"].cast(pl.Int64).fill_null(-1).to_numpy()

    def sensor(self, message: int, lines: _Lines) -> str:
        """The name of the sensor as far as one can tell without reading the record."""
        return self.sensors[message] or lines.outer.get(message) or self.default


def _flows(
    draft: pl.DataFrame, source: str, lines: _Lines, table: _Table
) -> tuple[pl.DataFrame, tuple[Fault, ...]]:
    """Rows of WIRE and `_run` for a draft of one kind of source, and what is wrong with its other lines."""
    draft = _with_sensors(draft, lines, table)
    made = build_flows(draft, source=source, name="", sensor=DEFAULT_SENSOR)
    line = draft["line"].to_numpy()
    if made.faults:
        line = line[~np.isin(line, [fault.line for fault in made.faults])]
    message = lines.message[line]
    run = table.run[message]
    if lines.several:
        run = np.where(np.isin(message, lines.several), 0, run)
    rows = made.flows.with_columns(
        pl.Series("seq", table.seq[message]),
        pl.Series("at", table.at[message]),
        pl.Series("partition", table.partition[message], dtype=pl.Int32),
        pl.Series("offset", table.offset[message]),
        pl.Series("_run", run),
    )
    return rows.with_columns(seq=pl.when(pl.col("_run") > 0).then("seq")), made.faults


def _with_sensors(draft: pl.DataFrame, lines: _Lines, table: _Table) -> pl.DataFrame:
    """The draft with its sensors: from the header, the record, around the record, or the topic."""
    said = [pl.col("sensor")] if "sensor" in draft.columns else []
    first = table.sensors[0]
    if not lines.outer and all(name == first for name in table.sensors):
        return draft.with_columns(
            sensor=pl.coalesce(pl.lit(first, dtype=pl.String), *said, pl.lit(table.default))
        )
    message = lines.message[draft["line"].to_numpy()].tolist()
    header = pl.Series([table.sensors[at] for at in message], dtype=pl.String)
    outer = pl.Series([lines.outer.get(at) for at in message], dtype=pl.String)
    return draft.with_columns(sensor=pl.coalesce(header, *said, outer, pl.lit(table.default)))


def _bad(data: bytes, found: Bad) -> Bad:
    """A better reason for lines of Zeek's TSV."""
    if found.reason == "bad_json" and (data.startswith(b"#") or data.count(b"\t") >= TABS):
        return Bad(
            "tsv",
            "a line of Zeek's TSV without the header that names its fields: have the sensor write JSON",
        )
    return found


def _reject(
    topic: str, table: _Table, lines: _Lines, lost: list[tuple[Fault, str]], found: Messages
) -> None:
    """Enters records that can't be read in the rejects and the ledger, in the order of the messages."""
    told = [(at, bad, UNKNOWN) for at, bad in lines.faults]
    for fault, source in lost:
        bad = _bad(lines.texts[fault.line], Bad(fault.reason, fault.detail))
        told.append((int(lines.message[fault.line]), bad, source))
    for at, bad, source in sorted(told, key=lambda one: one[0]):
        sensor = table.sensor(at, lines)
        place = (topic, int(table.partition[at]), int(table.offset[at]))
        found.rejects.append(
            Rejected(*place, sensor, bad.reason, bad.detail, table.values[at][:KEPT])
        )
        counts = found.ledger.of(source, sensor)
        counts.read += 1
        tally(counts.rejected, bad.reason)


def _set_aside(table: _Table, lines: _Lines, beside: ndjson.LinesByReason, found: Messages) -> None:
    """Enters records that are no flows in the ledger; keeps the sensors' own counts."""
    for reason, numbers in sorted(beside.items()):
        for line in numbers:
            sensor = table.sensor(int(lines.message[line]), lines)
            counts = found.ledger.of(KINDS.get(reason.split("_")[0], UNKNOWN), sensor)
            counts.read += 1
            counts.parsed += 1
            tally(counts.out_of_scope, reason)
            if reason == COUNTERS:
                record = orjson.loads(lines.texts[line])
                record = record.get("ids_counts", record)
                named = (
                    table.sensors[int(lines.message[line])] or record.get("_system_name") or sensor
                )
                found.counters.append({**record, "sensor": named})


def _count(flows: list[pl.DataFrame], ledger: Ledger) -> None:
    for rows in flows:
        for sensor, number in rows["sensor"].value_counts(sort=True).iter_rows():
            counts = ledger.of(rows["source"][0], sensor)
            counts.read += number
            counts.parsed += number


def _batches(topic: str, table: _Table, rows: pl.DataFrame) -> Iterator[Batch]:
    """Flows by sensor and run. A run also tells of the numbers that gave no flow."""
    origin = pl.concat_str(pl.lit(topic), "partition", "offset", separator="/")
    rows = rows.with_columns(origin=origin)
    keys = ("sensor", "_run")
    parts = {
        (str(sensor), int(run)): part
        for (sensor, run), part in rows.partition_by(keys, as_dict=True).items()
    }
    told = {
        (str(table.sensors[at]), int(table.run[at])) for at in np.flatnonzero(table.run).tolist()
    }
    for sensor, run in sorted(told | parts.keys()):
        part = parts.get((sensor, run), NOTHING)[list(WIRE)]
        mine = table.run == run
        if not run:
            yield Batch(
                sensor,
                topic,
                "",
                part.sort("at", "partition", "offset"),
                int(part["at"].min() or 0),  # type: ignore[arg-type]
            )
            continue
        mine &= np.array([name == sensor for name in table.sensors])
        end = table.seq[mine & table.ends]
        holes = np.setdiff1d(table.seq[mine & ~table.ends], part["seq"].to_numpy())
        since = int(table.at[mine].min())
        last = int(end.max()) if len(end) else None
        yield Batch(sensor, topic, table.runs[run], part.sort("seq"), since, _ranges(holes), last)


def _ranges(numbers: Int64s) -> list[Range]:
    """Ascending numbers as ranges without gaps."""
    if not len(numbers):
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[np.r_[0, cuts + 1]], numbers[np.r_[cuts, len(numbers) - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
