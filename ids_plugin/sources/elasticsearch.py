"""`elasticsearch:URL/INDEX` as an input: documents of connections, in the dialect each of them
shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.paging import TIME, Hit, Pages, connect, or_without, settings_for, target
from ids_plugin.schema.flow import empty
from ids_plugin.schema.reject import Reject
from ids_plugin.sources import Input, Read, ReadOptions
from ids_plugin.sources.ecs import MARKS, refuse_fractions
from ids_plugin.sources.messages import KINDS, SHOWN_CHARS, UNKNOWN, MessageReader
from ids_plugin.sources.readers import ndjson
from ids_plugin.sources.readers.documents import line
from ids_plugin.sources.readers.flow_builder import Fault, build_flows, refuse_wrong_units
from ids_plugin.sources.readers.lines import LONGEST_LINE, Chunk

MILLISECOND = timedelta(milliseconds=1)
ROUNDED = 1_000
"""ms by which a stack may have rounded a time"""
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
START = "event.start"
"""What Suricata's flows as Elastic maps them have beside TIME, which is when they were told of."""


class Index:
    """Reads what connections an index has: ECS documents, Zeek's and Suricata's own records in any
    envelope."""

    name = "elasticsearch"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def sniff(self, head: bytes) -> float:
        """It is asked for by its name; no bytes begin like it."""
        return 0.0

    def read(self, source: Input, batch_rows: int) -> Iterator[Read]:
        """Steps of a page each, whatever `batch_rows`; options `since` and `until` leave out
        documents that can't be of that period.

        Raises:
            InputError: there is no such index; its documents can't be in the units they claim.
            ServiceError: Elasticsearch can't be reached, refuses, or can't answer for all of it.
        """
        wanted = target(source.name)
        settings = settings_for(self._settings, wanted)
        pages = Pages(connect(settings), settings, wanted, period(source.options))
        reader, habit = MessageReader(), ndjson.SeenKeys()
        probed: set[str] = set()
        for hits in pages:
            page = _Page(hits, reader, source)
            pages.resize(len(hits), sum(map(len, page.texts)))
            yield from page.reads(habit, probed)
        if pages.reopened:
            yield Read(empty(), 0, notes={"points_in_time_lost": pages.reopened})


def period(options: ReadOptions) -> list[dict[str, Any]]:
    """Filters for `since` and `until`; they keep every document whose flow may start in between.

    No document's time is before its flow's start: those before `since` can be left out. It is the
    start itself where a stack maps connections to fields; only such documents can be left out from
    `until` on.
    """
    filters: list[dict[str, Any]] = []
    if options.since:
        since = (options.since - EPOCH) // MILLISECOND - ROUNDED
        filters.append(or_without(TIME, {"gte": max(0, since)}))
    if options.until:
        until = ROUNDED - (EPOCH - options.until) // MILLISECOND
        mapped = [{"exists": {"field": mark}} for marks in MARKS.values() for mark in marks]
        after = {"gte": max(0, until), "format": "epoch_millis"}
        late = {
            "bool": {
                "filter": [{"range": {TIME: after}}],
                "should": mapped,
                "minimum_should_match": 1,
            }
        }
        filters.append({"bool": {"must_not": [late, {"range": {START: after}}]}})
    return filters


class _Page:
    """Documents that are read together."""

    def __init__(self, hits: Sequence[Hit], reader: MessageReader, source: Input) -> None:
        lines = [line(hit.document, reader.classify) for hit in hits]
        self._hits, self._reader, self._source = hits, reader, source
        self._sensors = [record.sensor for record in lines]
        self.texts = [record.text for record in lines]

    def reads(self, habit: ndjson.SeenKeys, probed: set[str]) -> Iterator[Read]:
        """One step for each kind of record there is, and one for what is none.

        Raises:
            DialectError: values can't be in the units they claim; looked at for the first page of
                each kind.
        """
        too_long = [index for index, text in enumerate(self.texts) if len(text) > LONGEST_LINE]
        texts = [b"{}" if len(text) > LONGEST_LINE else text for text in self.texts]
        step = ndjson.parse(
            Chunk(b"\n".join([*texts, b""]), 0, len(texts)), self._reader.classify, habit
        )
        kinds: dict[str, list[pl.DataFrame]] = {}
        for frame in step.frames:
            if frame.height:
                kinds.setdefault(frame["_source"][0], []).append(frame)
        for kind, frames in sorted(kinds.items()):
            yield self._flows(kind, ndjson.joined(frames), kind not in probed)
            probed.add(kind)
        faults = [fault for fault in step.faults if fault.line not in too_long]
        faults += [
            Fault(index, "too_long", f"a document of {len(self.texts[index]):,} bytes")
            for index in too_long
        ]
        if faults:
            yield Read(empty(), len(faults), self._rejects(faults), source=UNKNOWN)
        out_of_scope: dict[str, Counter[str]] = {}
        for reason, lines in step.out_of_scope.items():
            out_of_scope.setdefault(KINDS.get(reason.split("_")[0], UNKNOWN), Counter())[
                reason
            ] += len(lines)
        for kind, reasons in sorted(out_of_scope.items()):
            yield Read(empty(), reasons.total(), out_of_scope=dict(reasons), source=kind)

    def _flows(self, kind: str, draft: pl.DataFrame, is_first: bool) -> Read:
        of_record = [pl.col("sensor")] if "sensor" in draft.columns else []
        sensors = pl.Series(self._sensors, dtype=pl.String).gather(draft["line"])
        draft = draft.with_columns(sensor=pl.coalesce(*of_record, pl.lit(sensors)))
        made = build_flows(draft, source=kind, name="", sensor=self._source.sensor)
        if is_first:
            refuse_fractions(draft, self._source.name)
            refuse_wrong_units(made, self._source.name)
        wrong = {fault.line for fault in made.faults}
        places = [self._hits[index].place for index in draft["line"] if index not in wrong]
        flows = made.flows.with_columns(pl.Series("origin", places, dtype=pl.String))
        return Read(flows, draft.height, self._rejects(made.faults), source=kind)

    def _rejects(self, faults: Sequence[Fault]) -> tuple[Reject, ...]:
        name = self._source.name
        return tuple(
            Reject(
                name,
                self._hits[fault.line].place,
                fault.reason,
                fault.detail,
                _shown(self.texts[fault.line]),
            )
            for fault in sorted(faults)
        )


def _shown(text: bytes) -> str:
    return text[: 4 * SHOWN_CHARS].decode("utf-8", "replace")[:SHOWN_CHARS]
