"""Messages of source topics → flows per sensor and run, rejects, and what the ledger says of them.

One message is one record, in any of the envelopes that files have too. The messages of a poll are
joined by newlines and read by the readers of files. A message may also hold several lines.

Our own senders put the sensor's name and the record's number into headers (`ids-sensor`,
`ids-seq` = RUN:N) and end a run with an empty message (`ids-end`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from ids_plugin.schema.flow import DEFAULT_SENSOR
from ids_plugin.schema.ledger import Ledger, tally
from ids_plugin.schema.reject import MAX_REJECT_BYTES
from ids_plugin.sources import ecs, suricata, zeek
from ids_plugin.sources.flow_batches import NOTHING, WIRE, Batch, Range
from ids_plugin.sources.readers import ndjson
from ids_plugin.sources.readers.flow_builder import Fault, build_flows
from ids_plugin.sources.readers.lines import LONGEST_LINE, Chunk, count
from ids_plugin.sources.readers.ndjson import Bad, Layout, OutOfScope

Int64s = npt.NDArray[np.int64]
Header = tuple[str, bytes]
RUN_AND_NUMBER = r"^([0-9a-f]{16}):(\d{1,18})$"
COUNTERS = "zeek_ids_counts"
"""What the sensors say of themselves: how many records they wrote and dropped."""
UNKNOWN = "unknown"
"""`source` of records that are of no known kind."""
SHOWN_CHARS = 200
TSV_TABS = 8
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
    """the message, at most MAX_REJECT_BYTES of it"""

    @property
    def shown(self) -> str:
        """The beginning as text."""
        return self.data[: 4 * SHOWN_CHARS].decode("utf-8", "replace")[:SHOWN_CHARS]


@dataclass
class Messages:
    """What some messages gave."""

    batches: list[Batch] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    counters: list[dict[str, Any]] = field(default_factory=list)
    """the sensors' own counts, as they wrote them, with `sensor`"""


class MessageReader:
    """Reads messages. Remembers nothing that changes what comes out."""

    def __init__(self, sensors: Mapping[str, str] | None = None) -> None:
        """`sensors`: topic → name of the sensor for records that name none themselves."""
        self._sensors = dict(sensors or {})
        self._seen_keys: dict[str, ndjson.SeenKeys] = {}
        self._marked: dict[int, tuple[Layout, Layout]] = {}
        link = suricata.Link(ethernet=True)
        self._eve_layout = replace(suricata.FLOW, derive=link.derive)

    def read(self, fetched: Sequence[Fetched], now: int) -> Messages:
        """Flows and what else the messages hold.

        Args:
            fetched: what one poll gave.
            now: ms since the epoch; no record is taken to be from the future.
        """
        messages = Messages()
        filled = sorted((part for part in fetched if part.values), key=lambda part: part.topic)
        for topic, parts in groupby(filled, key=lambda part: part.topic):
            table = _MessageTable.of(list(parts), self._sensors.get(topic, DEFAULT_SENSOR), now)
            self._read_topic(topic, table, messages)
        return messages

    def _read_topic(self, topic: str, table: _MessageTable, messages: Messages) -> None:
        lines = self._lines(table)
        parsed = ndjson.ParsedChunk()
        if lines.texts:
            chunk = Chunk(b"\n".join([*lines.texts, b""]), 0, len(lines.texts))
            seen_keys = self._seen_keys.setdefault(topic, ndjson.SeenKeys())
            parsed = ndjson.parse(chunk, self.classify, seen_keys)
        drafts: dict[str, list[pl.DataFrame]] = {}
        for frame in parsed.frames:
            if frame.height:
                drafts.setdefault(frame["_source"][0], []).append(frame)
        flows: list[pl.DataFrame] = []
        faults = [(fault, UNKNOWN) for fault in parsed.faults]
        for source, frames in sorted(drafts.items()):
            rows, faults_of_source = _flows(ndjson.joined(frames), source, lines, table)
            flows.append(rows)
            faults += [(fault, source) for fault in faults_of_source]
        _add_rejects(topic, table, lines, faults, messages)
        _add_out_of_scope(table, lines, parsed.out_of_scope, messages)
        _count(flows, messages.ledger)
        all_flows = pl.concat(flows) if flows else NOTHING.with_columns(_run=0)
        messages.batches += _batches(topic, table, all_flows)

    def classify(self, record: dict[str, Any]) -> Layout | OutOfScope | Bad:
        """The layout of a record of any kind, in any envelope."""
        if "event_type" in record and "timestamp" in record:
            return self._marked_with("suricata", suricata.classify(record, self._eve_layout))
        layout = self._marked_with("zeek", zeek.classify(record))
        if isinstance(layout, Bad) and ("@timestamp" in record or "_source" in record):
            layout = self._marked_with("ecs", ecs.classify(record))
        if _is_of_unknown_kind(layout):
            return Bad("unknown_kind", "neither Zeek's, nor Suricata's, nor ECS")
        return layout

    def _marked_with(
        self, source: str, layout: Layout | OutOfScope | Bad
    ) -> Layout | OutOfScope | Bad:
        """The layout with one more draft column, `_source`: the kind of source it is of."""
        if not isinstance(layout, Layout) or layout.inner is not None or layout.rewrite is not None:
            return layout
        if id(layout) not in self._marked:
            marked = replace(layout, tidy=(*layout.tidy, pl.lit(source).alias("_source")))
            self._marked[id(layout)] = (layout, marked)
        return self._marked[id(layout)][1]

    def _lines(self, table: _MessageTable) -> _MessageLines:
        """The lines of all messages; most often each message is one line as it stands."""
        values = table.values
        if all(values) and all(map(bytes.strip, values)) and max(map(len, values)) <= LONGEST_LINE:
            joined = b"\n".join(values)
            if count(joined, b"\n") == len(values) - 1 and b'"message"' not in joined:
                return _MessageLines(values, np.arange(len(values)))
        lines = _MessageLines([], np.zeros(0, np.int64))
        of_message: list[int] = []
        for index, value in enumerate(values):
            if table.is_end[index]:
                continue
            texts = self._lines_of(value, index, lines)
            if len(texts) > 1:
                lines.multi_record_messages.append(index)
            lines.texts += texts
            of_message += [index] * len(texts)
        lines.message = np.array(of_message, np.int64)
        return lines

    def _lines_of(self, value: bytes, index: int, lines: _MessageLines) -> list[bytes]:
        """The lines of message `index`; none if there is something wrong with it as a whole."""
        text = value.strip()
        if not text:
            lines.faults.append((index, Bad("empty", "a message without a record")))
            return []
        if len(text) > LONGEST_LINE:
            lines.faults.append((index, Bad("too_long", f"a message of {len(text):,} bytes")))
            return []
        if b'"message"' in text:
            return [self._unwrapped(text, index, lines)]
        if b"\n" in text:
            return self._split(text, index, lines)
        return [text]

    def _split(self, text: bytes, index: int, lines: _MessageLines) -> list[bytes]:
        """A record written over several lines, or several records."""
        if _is_json(text):
            return [text.replace(b"\n", b" ")]
        records = [line for line in text.split(b"\n") if line.strip()]
        if _is_json(records[0]):
            return records
        outcome = ndjson.read_line(text, True, self.classify)
        if isinstance(outcome, Bad):
            lines.faults.append((index, _explained(text, outcome)))
        return []

    def _unwrapped(self, text: bytes, index: int, lines: _MessageLines) -> bytes:
        """The record inside of Beats' envelope; enters the name of the host that sent it."""
        flat = text.replace(b"\n", b" ")
        try:
            record = orjson.loads(text)
        except orjson.JSONDecodeError:
            return flat
        if not isinstance(record, dict) or self.classify(record) is not ndjson.MESSAGE:
            return flat
        names = (_name_of(record.get(key)) for key in OBSERVERS)
        name = next((name for name in names if name), None)
        if name:
            lines.envelope_sensors[index] = name
        inner = ndjson.inner_text(record) or ""
        return inner.replace("\n", " ").encode("utf-8", "replace") or b"{}"


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


def _is_of_unknown_kind(layout: Layout | OutOfScope | Bad) -> bool:
    return isinstance(layout, Bad) and layout.reason in ("not_zeek", "not_ecs", "not_eve")


@dataclass
class _MessageLines:
    """The lines that are read together, and which message each is from."""

    texts: list[bytes]
    message: Int64s
    """(lines) index of the message that each line is from"""
    faults: list[tuple[int, Bad]] = field(default_factory=list)
    """messages that have no lines, and why"""
    multi_record_messages: list[int] = field(default_factory=list)
    """messages that hold several records: these aren't numbered"""
    envelope_sensors: dict[int, str] = field(default_factory=dict)
    """message → sensor, as the envelope around the record names it"""


@dataclass
class _MessageTable:
    """Messages of a topic by columns."""

    values: list[bytes]
    partition: npt.NDArray[np.int32]
    offset: Int64s
    time: Int64s
    """ms since the epoch"""
    header_sensors: list[str | None]
    """the sensor that the header names"""
    default_sensor: str
    run: Int64s
    """index in `runs`, 0 for none"""
    runs: list[str]
    seq: Int64s
    """number in the run, -1 for none"""
    is_end: npt.NDArray[np.bool_]
    """the message ends its run"""

    @classmethod
    def of(cls, parts: Sequence[Fetched], default_sensor: str, now: int) -> _MessageTable:
        """Messages of all partitions, one after the other."""
        headers = list(chain.from_iterable(part.headers for part in parts))
        time = np.array(list(chain.from_iterable(part.times for part in parts)), np.int64)
        offset = np.array(list(chain.from_iterable(part.offsets for part in parts)), np.int64)
        sizes = [len(part.offsets) for part in parts]
        table = cls(
            values=[value or b"" for part in parts for value in part.values],
            partition=np.repeat([part.partition for part in parts], sizes),
            offset=offset,
            time=np.where(time < 0, now, np.minimum(time, now)),
            header_sensors=[None] * len(headers),
            default_sensor=default_sensor,
            run=np.zeros(len(headers), np.int64),
            runs=[""],
            seq=np.full(len(headers), -1, np.int64),
            is_end=np.zeros(len(headers), np.bool_),
        )
        if any(headers):
            table._read_headers(headers)
        return table

    def _read_headers(self, headers: Sequence[Sequence[Header]]) -> None:
        numbers: list[str | None] = [None] * len(headers)
        decoded: dict[bytes, str] = {}
        for index, pairs in enumerate(headers):
            for name, value in pairs:
                if name == "ids-sensor" and value:
                    if value not in decoded:
                        decoded[value] = value.decode("utf-8", "replace")
                    self.header_sensors[index] = decoded[value]
                elif name == "ids-seq":
                    numbers[index] = value.decode("ascii", "replace")
                elif name == "ids-end":
                    self.is_end[index] = not self.values[index]
        texts = pl.Series(numbers, dtype=pl.String)
        groups = pl.select(pl.lit(texts).str.extract_groups(RUN_AND_NUMBER)).unnest(texts.name)
        is_named = pl.Series([name is not None for name in self.header_sensors], dtype=pl.Boolean)
        runs = groups["1"].set(~is_named, None)
        self.runs += runs.drop_nulls().unique().sort().to_list()
        index_of = {run: index for index, run in enumerate(self.runs)}
        numbered = runs.replace_strict(index_of, default=0, return_dtype=pl.Int64)
        self.run = numbered.fill_null(0).to_numpy()
        self.seq = groups["2"].cast(pl.Int64).fill_null(-1).to_numpy()

    def sensor(self, message: int, lines: _MessageLines) -> str:
        """The name of the sensor as far as one can tell without reading the record."""
        named = self.header_sensors[message] or lines.envelope_sensors.get(message)
        return named or self.default_sensor


def _flows(
    draft: pl.DataFrame, source: str, lines: _MessageLines, table: _MessageTable
) -> tuple[pl.DataFrame, tuple[Fault, ...]]:
    """Rows of WIRE and `_run` for a draft of one kind of source, and what is wrong with its other
    lines."""
    draft = _with_sensors(draft, lines, table)
    built = build_flows(draft, source=source, name="", sensor=DEFAULT_SENSOR)
    line = draft["line"].to_numpy()
    if built.faults:
        line = line[~np.isin(line, [fault.line for fault in built.faults])]
    message = lines.message[line]
    run = table.run[message]
    if lines.multi_record_messages:
        run = np.where(np.isin(message, lines.multi_record_messages), 0, run)
    rows = built.flows.with_columns(
        pl.Series("seq", table.seq[message]),
        pl.Series("at", table.time[message]),
        pl.Series("partition", table.partition[message], dtype=pl.Int32),
        pl.Series("offset", table.offset[message]),
        pl.Series("_run", run),
    )
    return rows.with_columns(seq=pl.when(pl.col("_run") > 0).then("seq")), built.faults


def _with_sensors(draft: pl.DataFrame, lines: _MessageLines, table: _MessageTable) -> pl.DataFrame:
    """The draft with its sensors: from the header, the record, its envelope, or the topic."""
    of_record = [pl.col("sensor")] if "sensor" in draft.columns else []
    default = pl.lit(table.default_sensor)
    first = table.header_sensors[0]
    if not lines.envelope_sensors and all(name == first for name in table.header_sensors):
        header = pl.lit(first, dtype=pl.String)
        return draft.with_columns(sensor=pl.coalesce(header, *of_record, default))
    message = lines.message[draft["line"].to_numpy()].tolist()
    headers = pl.Series([table.header_sensors[index] for index in message], dtype=pl.String)
    envelopes = pl.Series(map(lines.envelope_sensors.get, message), dtype=pl.String)
    return draft.with_columns(sensor=pl.coalesce(headers, *of_record, envelopes, default))


def _explained(data: bytes, bad: Bad) -> Bad:
    """A better reason for lines of Zeek's TSV."""
    if bad.reason == "bad_json" and (data.startswith(b"#") or data.count(b"\t") >= TSV_TABS):
        return Bad(
            "tsv",
            "a line of Zeek's TSV without the header that names its fields: "
            "have the sensor write JSON",
        )
    return bad


def _add_rejects(
    topic: str,
    table: _MessageTable,
    lines: _MessageLines,
    faults: list[tuple[Fault, str]],
    messages: Messages,
) -> None:
    """Enters records that can't be read in the rejects and the ledger, in the messages' order."""
    refused = [(index, bad, UNKNOWN) for index, bad in lines.faults]
    for fault, source in faults:
        bad = _explained(lines.texts[fault.line], Bad(fault.reason, fault.detail))
        refused.append((int(lines.message[fault.line]), bad, source))
    for index, bad, source in sorted(refused, key=lambda refusal: refusal[0]):
        sensor = table.sensor(index, lines)
        partition, offset = int(table.partition[index]), int(table.offset[index])
        data = table.values[index][:MAX_REJECT_BYTES]
        reject = Rejected(topic, partition, offset, sensor, bad.reason, bad.detail, data)
        messages.rejects.append(reject)
        counts = messages.ledger.of(source, sensor)
        counts.read += 1
        tally(counts.rejected, bad.reason)


def _add_out_of_scope(
    table: _MessageTable,
    lines: _MessageLines,
    out_of_scope: ndjson.LinesByReason,
    messages: Messages,
) -> None:
    """Enters records that are no flows in the ledger; keeps the sensors' own counts."""
    for reason, numbers in sorted(out_of_scope.items()):
        source = KINDS.get(reason.split("_")[0], UNKNOWN)
        for line in numbers:
            message = int(lines.message[line])
            sensor = table.sensor(message, lines)
            counts = messages.ledger.of(source, sensor)
            counts.read += 1
            counts.parsed += 1
            tally(counts.out_of_scope, reason)
            if reason == COUNTERS:
                record = orjson.loads(lines.texts[line])
                record = record.get("ids_counts", record)
                name = table.header_sensors[message] or record.get("_system_name") or sensor
                messages.counters.append({**record, "sensor": name})


def _count(flows: list[pl.DataFrame], ledger: Ledger) -> None:
    for rows in flows:
        for sensor, number in rows["sensor"].value_counts(sort=True).iter_rows():
            counts = ledger.of(rows["source"][0], sensor)
            counts.read += number
            counts.parsed += number


def _batches(topic: str, table: _MessageTable, rows: pl.DataFrame) -> Iterator[Batch]:
    """Flows by sensor and run. A run's batch also says which numbers gave no flow."""
    origin = pl.concat_str(pl.lit(topic), "partition", "offset", separator="/")
    parts = {
        (str(sensor), int(run)): part
        for (sensor, run), part in rows.with_columns(origin=origin)
        .partition_by(("sensor", "_run"), as_dict=True)
        .items()
    }
    numbered = np.flatnonzero(table.run).tolist()
    runs_read = {(str(table.header_sensors[row]), int(table.run[row])) for row in numbered}
    for sensor, run in sorted(runs_read | parts.keys()):
        part = parts.get((sensor, run), NOTHING)[list(WIRE)]
        if run:
            yield _run_batch(topic, table, sensor, run, part)
        else:
            since = int(part["at"].min() or 0)  # type: ignore[arg-type]
            yield Batch(sensor, topic, "", part.sort("at", "partition", "offset"), since)


def _run_batch(
    topic: str, table: _MessageTable, sensor: str, run: int, part: pl.DataFrame
) -> Batch:
    """The batch of a sensor's run, of which `part` are the flows."""
    is_of_sensor = np.array([name == sensor for name in table.header_sensors])
    is_of_run = (table.run == run) & is_of_sensor
    ends = table.seq[is_of_run & table.is_end]
    without_flow = np.setdiff1d(table.seq[is_of_run & ~table.is_end], part["seq"].to_numpy())
    return Batch(
        sensor,
        topic,
        table.runs[run],
        part.sort("seq"),
        since=int(table.time[is_of_run].min()),
        holes=_ranges(without_flow),
        end=int(ends.max()) if len(ends) else None,
    )


def _ranges(numbers: Int64s) -> list[Range]:
    """Ascending numbers as ranges without gaps."""
    if not len(numbers):
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1)
    firsts, lasts = numbers[np.r_[0, cuts + 1]], numbers[np.r_[cuts, len(numbers) - 1]]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
