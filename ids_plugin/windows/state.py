"""The state of one sensor's windows, and the windows of one batch."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ids_plugin import windows
from ids_plugin.errors import CheckpointError
from ids_plugin.schema import flow
from ids_plugin.schema.window import STEPS, EarlierFlow, Floats, Ints, Spec, Steps
from ids_plugin.windows import Rolling, Sequences
from ids_plugin.windows.history import History
from ids_plugin.windows.identity import GENERATION, Identity
from ids_plugin.windows.rolling import Column, EventLog, Order, Side, expire
from ids_plugin.windows.slots import Keys, SlotTable, mix

CHUNK = GENERATION // 2
"""Records between two clean-ups of the state. They happen at multiples of this count, wherever
batches end, so that what a window can reach does not depend on the batches; and it bounds what one
step holds in memory."""

_COUNTERS = ("duplicates", "replaced", "left_early", "clock", "delayed")
Derived = dict[str, npt.NDArray[Any]]
"""what `_derived` asks for: name → (n) values"""
_HASHED = {"orig": "orig_h", "resp": "resp_h", "uid": "uid", "state": "conn_state"}
_CONTENT = (
    "ts",
    "duration",
    "orig_bytes",
    "resp_bytes",
    "orig_pkts",
    "resp_pkts",
    "orig_ip_bytes",
    "resp_ip_bytes",
)


@dataclass(frozen=True)
class Limits:
    """What a sensor's state may grow to; reaching a limit is counted (`Windower.left_early`), never
    an error."""

    visible: int = 262_144
    """flows that rolling sums look back at most, beside the hour: 73 flows/s for an hour, 75 B
    each"""
    history: int = 65_536
    """flows kept for pair windows after a clean-up, ten a pair: at least 6,553 pairs, 170 B each"""


class Windower:
    """Turns the flows of one sensor, in known order, into windows; keeps state between batches."""

    def __init__(self, limits: Limits | None = None, *, rolling: bool = True) -> None:
        """`rolling`: keep the rolling sums of hosts and pairs; without them `BatchWindows.context`
        is empty, and only the earlier flows of pairs and hosts are kept."""
        self.spec = windows.spec()
        plugins = windows.rollings() if rolling else ()
        self.limits = limits or Limits()
        self.duplicates = self.replaced = self.left_early = 0
        self.clock = np.iinfo(np.int64).min
        self.delayed = 0
        self._identity = Identity()
        self._hosts, self._pairs, self._services = SlotTable(), SlotTable(), SlotTable()
        self._log = EventLog(("uid", "contact", "failed_contact", "failed_service"))
        self._last = {
            name: np.zeros(0, np.int64) for name in ("contact", "failed_contact", "failed_service")
        }
        self._last_node: Ints = np.zeros(0, np.int64)
        self._last_of_host: Ints = np.zeros(0, np.int64)
        self._history = History(len(self.spec.flow))
        self._sides = {
            plugin: Side(len(plugin.horizons), len(plugin.measures)) for plugin in plugins
        }
        self._read = _readings()
        self._derived = _derived(plugins)
        self._low = dict.fromkeys({h for plugin in plugins for h in plugin.horizons}, 0)

    @property
    def pairs(self) -> int:
        """Pairs of hosts that are remembered."""
        return self._pairs.count

    def step(self, flows: pl.DataFrame) -> Iterator[BatchWindows]:
        """Windows of a batch: a Flow frame with the columns `features.add` gives and local flags
        filled.

        Duplicates are left out and counted. The windows given share this state: use each before
        asking for the next.
        """
        while len(flows):
            room = CHUNK - self._identity.seen % CHUNK
            yield self._chunk(flows[:room])
            flows = flows[room:]
            if self._identity.seen % CHUNK == 0:
                self._clean_up()

    def _chunk(self, flows: pl.DataFrame) -> BatchWindows:
        derived: Derived = {
            column.name: column.to_numpy() for column in flows.select(self._derived)
        }
        uid = _uids(derived)
        repeated = self._identity.duplicates(uid, _content(derived)) & derived["named"]
        if repeated.any():
            self.duplicates += int(repeated.sum())
            flows, uid = flows.filter(~repeated), uid[~repeated]
            derived = {name: values[~repeated] for name, values in derived.items()}
        start = self._log.end
        replaces = self._identity.replaced(uid, derived["opened"], start)
        self.replaced += int((replaces >= 0).sum())
        known = derived["known"]
        self.delayed += int((known < np.maximum.accumulate(np.r_[self.clock, known])[:-1]).sum())
        clock = np.maximum.accumulate(np.maximum(known, self.clock))
        flows = flows.with_columns(
            known=_instants(known),
            clock=_instants(clock),
            replaces=pl.Series(replaces >= 0, dtype=pl.Boolean),
        )
        if not len(flows):
            return BatchWindows(
                self.spec,
                flows,
                np.zeros((0, len(self.spec.context)), np.float32),
                self._history,
                0,
            )
        self.clock = int(clock[-1])
        groups = self._groups(derived)
        context = self._rolling(derived, clock, groups, replaces)
        first = self._remember(flows, derived, clock, groups, replaces, start)
        return BatchWindows(self.spec, flows, context, self._history, first)

    def _rolling(
        self, derived: Derived, clock: Ints, groups: dict[str, Ints], replaces: Ints
    ) -> Floats:
        """(n, context): the sums that features read."""
        rows = len(clock)
        if not self._sides:
            unlinked = np.full(rows, -1, np.int64)
            self._log.append(clock, dict.fromkeys(self._last, unlinked) | {"uid": replaces})
            return np.zeros((rows, 0), np.float32)
        predecessors = {"uid": replaces} | self._predecessors(derived, groups)
        self._log.append(clock, predecessors)
        expiries = {
            horizon: expire(
                self._log, rows, low, horizon * windows.SECOND, self.limits.visible, predecessors
            )
            for horizon, low in self._low.items()
        }
        hosts, host_rank = Order.of(
            np.stack([groups["orig"], groups["resp"]], axis=1).ravel(),
            np.arange(2 * rows),
            2 * rows,
        )
        pairs, pair_rank = Order.of(groups["pair"], np.arange(rows), rows)
        ranks = {"orig": host_rank[0::2], "resp": host_rank[1::2], "pair": pair_rank}
        context = np.empty((len(self.spec.context), rows), np.float32)
        for plugin, side in self._sides.items():
            own = {"originator": "orig", "responder": "resp", "pair": "pair"}[plugin.side]
            order, stride = (pairs, 1) if own == "pair" else (hosts, 2)
            columns = _columns(derived, plugin)
            side.reserve(self._pairs.count if own == "pair" else self._hosts.count)
            side.append(groups[own], columns)
            for index, horizon in enumerate(plugin.horizons):
                sums = side.step(
                    self._log, index, expiries[horizon], order, ranks[own], columns, stride
                )
                for measure, total in zip(plugin.measures, sums, strict=True):
                    for whose, column in self._read[plugin][measure.name, horizon]:
                        context[column] = np.log(total[ranks[whose]].astype(np.float32) + 1)
        self._low = {horizon: expiry.high for horizon, expiry in expiries.items()}
        return context.T

    def _groups(self, derived: Derived) -> dict[str, Ints]:
        orig, resp = derived["orig"], derived["resp"]
        hosts = self._hosts.slots(np.concatenate([orig, resp]))
        pair = self._pairs.slots(mix(np.minimum(orig, resp), np.maximum(orig, resp)))
        return {"orig": hosts[: len(orig)], "resp": hosts[len(orig) :], "pair": pair}

    def _predecessors(self, derived: Derived, groups: dict[str, Ints]) -> dict[str, Ints]:
        """Per kind of distinct thing: sequence number of its previous occurrence, -1 for none."""
        orig, resp, failed = (derived[name] for name in ("orig", "resp", "failed"))
        contact = 2 * groups["pair"] + (orig > resp)
        service = np.zeros(len(failed), np.int64)
        port = derived["port"] + np.uint64(1)
        service[failed] = self._services.slots(mix(mix(orig[failed], resp[failed]), port[failed]))
        everything = np.ones(len(failed), np.bool_)
        return {
            "contact": self._previous("contact", contact, everything, 2 * self._pairs.count),
            "failed_contact": self._previous(
                "failed_contact", contact, failed, 2 * self._pairs.count
            ),
            "failed_service": self._previous(
                "failed_service", service, failed, self._services.count
            ),
        }

    def _previous(self, kind: str, thing: Ints, where: npt.NDArray[np.bool_], things: int) -> Ints:
        self._last[kind] = last = _room(self._last[kind], things)
        rows = np.flatnonzero(where)
        before = np.full(len(thing), -1, np.int64)
        before[rows] = _link(thing[rows], rows + self._log.end, last)
        return before

    def _remember(
        self,
        flows: pl.DataFrame,
        derived: Derived,
        clock: Ints,
        groups: dict[str, Ints],
        replaces: Ints,
        start: int,
    ) -> int:
        """Adds the batch to the history; returns the index of its first flow there."""
        first, history = self._history.count, self._history
        self._last_node = _room(self._last_node, self._pairs.count)
        self._last_of_host = _room(self._last_of_host, self._hosts.count)
        node = np.arange(first, first + len(flows))
        columns = {
            "seq": np.arange(start, start + len(flows)),
            "clock": clock,
            "ts": derived["ts"],
            "pair": groups["pair"],
            "origin": groups["orig"],
            "before": _link(groups["pair"], node, self._last_node),
            "host_before": _link(groups["orig"], node, self._last_of_host),
        }
        names = [feature.name for feature in self.spec.flow]
        history.append(flows, flows[names].to_numpy().astype(np.float16), columns)
        rows = np.flatnonzero(replaces >= 0)
        old = np.searchsorted(history["seq"], replaces[rows])
        for row, replaced in zip((first + rows).tolist(), old.tolist(), strict=True):
            if replaced < history.count and history["seq"][replaced] == replaces[row - first]:
                history["replaced_at"][replaced] = history["seq"][row]
                if history["before"][row] == replaced:
                    history["before"][row] = history["before"][replaced]
        return first

    def _clean_up(self) -> None:
        """Forgets what no window can reach any more and numbers hosts and pairs anew."""
        self.left_early += self._history.prune(self.limits.history, self.clock)
        self._identity.forget_growing(self._log.end - self.limits.visible)
        self._compact()

    def state(self) -> dict[str, Any]:
        """A tree of arrays and numbers: the same after the same flows, wherever batches ended."""
        self._compact()
        return {
            "made_by": _maker(self.spec),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "low": {str(horizon): low for horizon, low in sorted(self._low.items())},
            "identity": self._identity.state(),
            "tables": {name: table.keys() for name, table in self._tables().items()},
            "last": dict(self._last),
            "log": self._log.state(),
            "history": self._history.state(),
            "sides": {plugin.role: side.state() for plugin, side in self._sides.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a `state`, in place of its own.

        Raises:
            CheckpointError: it was made for other windows, or with other hashes.
        """
        if state["made_by"] != _maker(self.spec):
            raise CheckpointError("windows were kept by another version, which this one can't read")
        for name in _COUNTERS:
            setattr(self, name, state["counters"][name])
        self._low = {int(horizon): low for horizon, low in state["low"].items()}
        self._identity.restore(state["identity"])
        self._hosts, self._pairs, self._services = (
            SlotTable.of(state["tables"][name]) for name in self._tables()
        )
        self._last = dict(state["last"])
        self._log.restore(state["log"])
        self._history.restore(state["history"])
        for plugin, side in self._sides.items():
            side.restore(state["sides"][plugin.role], self._table(plugin).count)
        self._recount()
        self._index_history()

    def _recount(self) -> None:
        log, visible = self._log, self.limits.visible
        for horizon, low in self._low.items():
            counts = {
                name: ~log.replaced(name, low, log.end, horizon * windows.SECOND, visible)
                for name in log.successors
            }
            for plugin, side in self._sides.items():
                if horizon in plugin.horizons:
                    ends = [measure.distinct or "uid" for measure in plugin.measures]
                    side.recount(log, plugin.horizons.index(horizon), low, counts, ends)

    def _tables(self) -> dict[str, SlotTable]:
        return {"hosts": self._hosts, "pairs": self._pairs, "services": self._services}

    def _table(self, plugin: Rolling) -> SlotTable:
        return self._pairs if plugin.side == "pair" else self._hosts

    def _compact(self) -> None:
        """Forgets events, hosts and pairs that nothing refers to; the others are numbered anew, by
        their keys."""
        low = min(self._low.values(), default=self._log.end)
        before = max(low, self._log.end - self.limits.visible)
        dropped = before - self._log.first
        self._log.drop(before)
        groups = {plugin: side.group[dropped:] for plugin, side in self._sides.items()}
        used_hosts = [group for plugin, group in groups.items() if plugin.side != "pair"]
        used_pairs = [group for plugin, group in groups.items() if plugin.side == "pair"]
        hosts = _keep(self._hosts, _used(self._hosts.count, [*used_hosts, self._history["origin"]]))
        pairs = _keep(self._pairs, _used(self._pairs.count, [*used_pairs, self._history["pair"]]))
        for plugin, side in self._sides.items():
            side.drop(dropped, pairs if plugin.side == "pair" else hosts, self._table(plugin).count)
        self._rename(hosts, pairs, before)

    def _rename(self, hosts: Ints, pairs: Ints, before: int) -> None:
        services = _keep(self._services, np.flatnonzero(self._last["failed_service"] >= before))
        directed = np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()
        directed[np.repeat(pairs < 0, 2)] = -1
        for kind, renamed in (
            ("contact", directed),
            ("failed_contact", directed),
            ("failed_service", services),
        ):
            last = _moved(self._last[kind], renamed)
            self._last[kind] = np.where(last < before, -1, last)
        history = self._history
        history["pair"][:] = pairs[history["pair"]]
        history["origin"][:] = hosts[history["origin"]]
        self._index_history()

    def _index_history(self) -> None:
        history = self._history
        self._last_node = np.full(self._pairs.count, -1, np.int64)
        self._last_of_host = np.full(self._hosts.count, -1, np.int64)
        index = np.arange(history.count)
        self._last_node[history["pair"]] = index
        self._last_of_host[history["origin"]] = index


class BatchWindows:
    """The windows of one batch; see `schema.window.Windows`."""

    def __init__(
        self, spec: Spec, flows: pl.DataFrame, context: Floats, history: History, first: int
    ) -> None:
        self.spec = spec
        self.flows = flows
        self.context = context
        self._history = history
        self._first = first
        self._names = [feature.name for feature in spec.flow]

    def __len__(self) -> int:
        return len(self.flows)

    def steps(self, rows: Ints) -> Steps:
        """The sequences of the windows of `rows`."""
        index = self._index(rows)
        values = np.full((len(rows), STEPS, len(self.spec.sequence)), np.nan, np.float32)
        mask = index >= 0
        flows = len(self._names)
        values[:, :, :flows] = self._history.features[index]
        start = self._starts(index)
        values[:, :, flows] = np.log1p(np.abs(np.diff(start, axis=1, prepend=np.nan)))
        values[:, :, flows + 1] = np.log1p(np.maximum(start, 0))
        values[:, :, flows + 2] = (
            self._history["origin"][index] != self._history["origin"][index[:, -1:]]
        )
        values[~mask] = np.nan
        return Steps(values, mask)

    def summary(self, rows: Ints) -> Floats:
        """(m, summary): statistics over the windows of `rows`."""
        index = self._index(rows)[:, ::-1]
        gathered = self._history.features[index].astype(np.float32)
        gathered[index < 0] = np.nan
        sequences = Sequences(
            self._starts(index),
            {name: gathered[:, :, column_index] for column_index, name in enumerate(self._names)},
        )
        columns = [column for plugin in windows.summaries() for column in plugin.compute(sequences)]
        return np.array(columns, np.float32).T

    def table(self, rows: Ints) -> Floats:
        """(m, table): flow, context and summary features of `rows`."""
        flow_part = self.flows[self._names][rows].to_numpy()
        return np.concatenate([flow_part, self.context[rows], self.summary(rows)], axis=1)

    def earlier(self, row: int) -> list[EarlierFlow]:
        """The earlier flows of the pair in the window of `row`, oldest first."""
        index = self._index(np.array([row]))[0]
        return [self._flow(int(position), row) for position in index[:-1] if position >= 0]

    def host_flows(self, row: int, limit: int) -> list[EarlierFlow]:
        """Latest flows of the host that originates `row`, other than `row`, newest last."""
        return [
            self._flow(position, row)
            for position in reversed(self._history.of_host(self._first + row, limit))
        ]

    def flow(self, row: int) -> EarlierFlow:
        """The flow of `row` itself."""
        return self._flow(self._first + row, row)

    def _index(self, rows: Ints) -> Ints:
        """(m, STEPS) indices in the history, oldest first, -1 for padding; the flow itself last."""
        node = self._first + np.asarray(rows, np.int64)
        return np.concatenate([self._history.earlier(node)[:, ::-1], node[:, None]], axis=1)

    def _starts(self, index: Ints) -> npt.NDArray[np.float64]:
        """Seconds from each step's start to the flow's own, NaN for padding."""
        ts = self._history["ts"]
        own = ts[index.max(axis=1)][:, None]
        return np.where(index >= 0, (own - ts[index]) / windows.SECOND, np.nan)

    def _flow(self, index: int, row: int) -> EarlierFlow:
        shown = self._history.frame.row(index, named=True)
        ts = int(self._history["ts"][index])
        duration = (
            None
            if shown["duration"] is None
            else round(shown["duration"] / dt.timedelta(microseconds=1))
        )
        return EarlierFlow(
            uid=shown["uid"],
            ts=ts,
            known=ts + (duration or 0),
            duration=duration,
            reverse=shown["orig_h"] == self.flows["resp_h"][row]
            and shown["orig_h"] != self.flows["orig_h"][row],
            **{
                name: shown[name]
                for name in (
                    "orig_h",
                    "orig_p",
                    "resp_h",
                    "resp_p",
                    "proto",
                    "conn_state",
                    "orig_bytes",
                    "resp_bytes",
                )
            },
        )


def _hashes(column: pl.Series) -> Keys:
    return column.hash(seed=1).to_numpy()


def _instants(microseconds: Ints) -> pl.Series:
    return pl.Series(microseconds, dtype=pl.Int64).cast(flow.SCHEMA["ts"])


def _derived(plugins: Sequence[Rolling]) -> list[pl.Expr]:
    """All that a batch's flows are asked for, at once: starting Polars' engine takes longer than
    most of it."""
    named = pl.col("uid").is_not_null()
    return [
        *(pl.col(column).hash(seed=1).alias(name) for name, column in _HASHED.items()),
        *(pl.col(name).to_physical().fill_null(-1).alias(f"content {name}") for name in _CONTENT),
        named.alias("named"),
        (pl.col("open").fill_null(value=False) & named).alias("opened"),
        flow.known().to_physical().alias("known"),
        pl.col("ts").to_physical(),
        (pl.col("failed") > 0).alias("failed"),
        pl.col("resp_p").fill_null(0).cast(pl.UInt64).alias("port"),
        *(
            measure.value.cast(pl.Int64).fill_null(0).alias(f"{plugin.role} {measure.name}")
            for plugin in plugins
            for measure in plugin.measures
        ),
    ]


def _uids(derived: Derived) -> Keys:
    return mix(derived["uid"], mix(derived["orig"], derived["resp"]))


def _content(derived: Derived) -> Keys:
    content = derived["state"]
    for name in _CONTENT:
        content = mix(content, derived[f"content {name}"].astype(np.uint64))
    return content


def _columns(derived: Derived, plugin: Rolling) -> list[Column]:
    values = (derived[f"{plugin.role} {measure.name}"] for measure in plugin.measures)
    return [
        Column(_small(numbers), measure.distinct or "uid")
        for numbers, measure in zip(values, plugin.measures, strict=True)
    ]


def _small(values: Ints) -> npt.NDArray[np.signedinteger]:
    """(rows) the values in the smallest integers that hold them: most are flags."""
    largest = int(values.max(initial=0))
    return values.astype(
        next(dtype for dtype in (np.int8, np.int32, np.int64) if largest <= np.iinfo(dtype).max)
    )


def _readings() -> dict[Rolling, dict[tuple[str, int], list[tuple[str, int]]]]:
    """Per plugin: (measure, horizon) → whose sum it is in which column of the context."""
    columns: dict[Rolling, dict[tuple[str, int], list[tuple[str, int]]]] = {}
    column = 0
    for plugin in windows.rollings():
        of_plugin = columns[plugin] = {
            (measure.name, horizon): []
            for measure in plugin.measures
            for horizon in plugin.horizons
        }
        for reading in plugin.readings:
            for name in reading.measures:
                for horizon in reading.horizons:
                    of_plugin[name, horizon].append((reading.whose, column))
                    column += 1
    return columns


def _link(group: Ints, number: Ints, last: Ints) -> Ints:
    """(n) number of the row before each one in its group, from `last` for the first; `last` is
    brought up to date."""
    order = np.argsort(group * len(group) + np.arange(len(group)))
    ordered = group[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]] if len(order) else np.zeros(0, np.bool_)
    before = np.empty(len(order), np.int64)
    before[order[1:]] = number[order[:-1]]
    before[order[first]] = last[ordered[first]]
    last[group] = number
    return before


def _room(values: Ints, size: int) -> Ints:
    if len(values) >= size:
        return values
    return np.concatenate([values, np.full(max(size - len(values), len(values)), -1, np.int64)])


def _keep(table: SlotTable, slots: Ints) -> Ints:
    """(old count) new numbers, in the order of the keys; -1 for all but `slots`."""
    return table.keep(slots[np.argsort(table.keys()[slots])])


def _maker(spec: Spec) -> dict[str, Any]:
    """What a state depends on beside the flows: the windows, and how strings are hashed."""
    return {"windows": spec.fingerprint, "hashes": _hashes(pl.Series(["10.0.0.1", None])).tolist()}


def _used(count: int, groups: Sequence[npt.NDArray[np.signedinteger]]) -> Ints:
    """The numbers below `count` that occur, in order."""
    occurs = np.zeros(count, np.bool_)
    for group in groups:
        occurs[group] = True
    return np.flatnonzero(occurs)


def _moved(values: Ints, renamed: Ints) -> Ints:
    remaining = np.flatnonzero(renamed >= 0)
    remaining = remaining[remaining < len(values)]
    moved = np.full(int(renamed.max(initial=-1)) + 1, -1, np.int64)
    moved[renamed[remaining]] = values[remaining]
    return moved
