"""The interface of the library: what the command line, the consumers and a notebook call.

Everything here is re-exported by `ids_plugin` and listed in its `__all__`; all other modules may
change between versions. Training, compression and everything that needs an extra are imported when
they are called.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import polars as pl

from ids_plugin import registry
from ids_plugin.alerts import AllowList, read_allow_list
from ids_plugin.bundle import Bundle, find, read
from ids_plugin.config import Elasticsearch
from ids_plugin.errors import (
    InputError,
    LedgerError,
    MissingExtraError,
    ServiceError,
    UsageError,
)
from ids_plugin.pipeline import BATCH, Pipeline, Scan
from ids_plugin.pipeline import scan as scan_reads
from ids_plugin.schema.alert import SEVERITIES, Document
from ids_plugin.schema.flow import SCHEMA
from ids_plugin.schema.ledger import Ledger
from ids_plugin.schema.reject import WHOLE, Reject
from ids_plugin.sinks import Delivered, RetryAfter
from ids_plugin.sources import DEFAULT_OPTIONS, Read, ReadOptions
from ids_plugin.sources.inputs import open_inputs, read_inputs
from ids_plugin.sources.local_networks import Locality, networks
from ids_plugin.sources.ordering import ordered
from ids_plugin.windows import spec

if TYPE_CHECKING:
    from ids_plugin.compression.run import Stage
    from ids_plugin.training.calibrate import Calibration

BATCH_ROWS = 65_536
"""Records read at a time: large enough that per-batch costs vanish, small enough that a batch is 30
MB"""
DOCUMENTS_PER_REQUEST = 500
"""about 2 MB"""
MAX_DELIVERY_WAIT_S = 5.0
"""that a scan or an export waits for a service to take one batch; run again, it goes on where it
was"""
Severity = Literal["low", "medium", "high", "critical"]
SEVERITY_LEVELS: tuple[Severity, ...] = ("low", "medium", "high", "critical")
Progress = Callable[[str, int], None]
"""called with a stage (`read` or `score`) and how many records more it has done"""
ALERT_COLUMNS: Mapping[str, pl.DataType] = {
    "time": pl.Datetime("us", "UTC"),
    "severity": pl.String(),
    "rule": pl.String(),
    "class": pl.String(),
    "host": pl.String(),
    "role": pl.String(),
    "source": pl.String(),
    "destination": pl.String(),
    "port": pl.Int64(),
    "flows": pl.Int64(),
    "first": pl.Datetime("us", "UTC"),
    "last": pl.Datetime("us", "UTC"),
    "score": pl.Float64(),
    "threshold": pl.Float64(),
    "why": pl.String(),
    "sensor": pl.String(),
    "group_id": pl.String(),
    "event_id": pl.String(),
}
"""Columns of `ScanResult.alerts`: one row an alert, times in UTC, scores 0–1, flows counted over
the whole group"""


def _no_progress(stage: str, records: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class InputOptions:
    """How inputs are read, and which of their flows count."""

    sensors: tuple[tuple[str, str], ...] = ()
    """(name, glob of file names): the first that matches names an input's sensor; all others are
    one sensor"""
    local_nets: tuple[str, ...] = ()
    """local networks, such as `192.168.0.0/16`; by default each flow answers by itself
    (docs/semantics.md)"""
    reading: ReadOptions = DEFAULT_OPTIONS
    """what measures captures, checksums, open connections, and the period of flows that count"""
    elasticsearch: Elasticsearch = field(default_factory=Elasticsearch)
    """settings of the servers of `elasticsearch:URL/INDEX` inputs, but for the URL"""
    stdin: BinaryIO | None = None
    """what `-` reads; nothing by default"""

    def locality(self) -> Locality:
        """What decides which flows are local.

        Raises:
            ConfigError: it names what is no network.
        """
        return Locality(networks([text for text in self.local_nets if text.strip()]))


DEFAULT_INPUT = InputOptions()


@dataclass(frozen=True)
class ScanBatch:
    """What one step of a scan gave."""

    documents: list[Document]
    """alert documents (ECS 8.11) that the step opened and closed"""
    flows: pl.DataFrame
    """the flows that were scored, in known order: a Flow frame; empty in steps that only read or
    end"""
    rejects: tuple[Reject, ...]
    """records that could not be read"""


@dataclass(frozen=True)
class ScanResult:
    """All that a scan gave, in memory; `iter_scan` gives the same in batches and bounded memory."""

    documents: list[Document]
    """alert documents (ECS 8.11): opening ones (`event.kind: alert`) and closing ones (`event.kind:
    event`)"""
    flows: pl.DataFrame
    """all flows, in known order: the Flow frame's columns (`ids_plugin.FLOW_SCHEMA`)"""
    rejects: pl.DataFrame
    """records that could not be read: `input, place, reason, detail, data`"""
    ledger: Ledger
    """what became of every record and document"""
    bundle: Bundle

    @property
    def alerts(self) -> pl.DataFrame:
        """One row an alert, worst first; the columns are those of `ALERT_COLUMNS`.

        Example:
            >>> import ids_plugin
            >>> result = ids_plugin.scan("tests/lab/sample/capture.pcap.gz")
            >>> result.alerts.height > 10
            True
        """
        return _alert_frame(self.documents)

    def to_report(self, path: str | Path) -> Path:
        """Writes the report, one HTML file that opens from disk; returns its path.

        Raises:
            UsageError: it can't be written.
        """
        from ids_plugin.sinks import report
        from ids_plugin.sinks.traffic_timeline import Traffic

        timeline = Traffic()
        timeline.see(self.flows)
        report.write(
            Path(path),
            self.documents,
            ledger=self.ledger.to_dict(),
            traffic=timeline.buckets(),
            bundle=describe_bundle(self.bundle),
        )
        return Path(path)

    def to_elasticsearch(self, settings: Elasticsearch) -> int:
        """Sends the documents, each once however often it is called; returns how many the server
        has now.

        Raises:
            MissingExtraError: the extra `[elastic]` isn't installed.
            ServiceError: the server can't be reached or takes no documents.
        """
        from ids_plugin.sinks.elasticsearch import Elasticsearch as ElasticsearchSink

        known = 0
        with contextlib.closing(ElasticsearchSink(settings)) as sink:
            for start in range(0, len(self.documents), DOCUMENTS_PER_REQUEST):
                batch = self.documents[start : start + DOCUMENTS_PER_REQUEST]
                known += deliver(partial(sink.write, batch, ingested=datetime.now(UTC))).documents
        return known


class RunningScan:
    """A scan under way: iterate over it once; `ledger` and `unread` are complete when it has
    ended."""

    def __init__(
        self,
        inputs: Sequence[str],
        pipeline: Pipeline,
        options: InputOptions,
        progress: Progress,
        ingested: datetime | None,
    ) -> None:
        self.pipeline = pipeline
        self.unread: list[Reject] = []
        """inputs of which nothing could be read, or that gave nothing"""
        self.warnings: list[Reject] = []
        """what else a person should know about the inputs"""
        self._inputs, self._options = inputs, options
        self._progress, self._ingested = progress, ingested
        self._rejects: list[Reject] = []
        self._flows: list[pl.DataFrame] = []

    @property
    def ledger(self) -> Ledger:
        """What became of every record so far."""
        return self.pipeline.ledger

    def __iter__(self) -> Iterator[ScanBatch]:
        """
        Raises:
            InputError: no input could be read at all.
            LedgerError: the ledger doesn't balance.
        """
        steps = read_steps(self._inputs, self._options)
        hooks = Scan(
            locality=self._options.locality(),
            rejected=self._rejects.extend,
            warned=self._warn,
            watch=self._flows.append,
            progress=self._progress,
        )
        made = 0
        for documents in scan_reads(steps, self.pipeline, hooks, self._ingested):
            made += len(documents)
            yield self._batch(documents)
        if self._rejects:
            yield self._batch([])
        settle(self.ledger, made)

    def _warn(self, warnings: tuple[Reject, ...]) -> None:
        self.unread += [warning for warning in warnings if warning.place == WHOLE]
        self.warnings += [warning for warning in warnings if warning.place != WHOLE]

    def _batch(self, documents: list[Document]) -> ScanBatch:
        rejects, self._rejects[:] = tuple(self._rejects), []
        self.unread += [reject for reject in rejects if reject.place == WHOLE]
        flows = self._flows.pop() if self._flows else pl.DataFrame(schema=SCHEMA)
        return ScanBatch(documents, flows, rejects)


def load_bundle(name_or_path: str | Path = "default", *, public_key: bytes | None = None) -> Bundle:
    """A model bundle, checked: hash, schema fingerprint, and its signature where a key is given.

    Args:
        name_or_path: name of a shipped bundle, a directory, or a file ending in `.idsb`.
        public_key: PEM (Ed25519) that must have signed it.

    Raises:
        BundleError: there is none, it is damaged, it isn't signed by the key, or it was made for
            other windows.

    Example:
        >>> import ids_plugin
        >>> ids_plugin.load_bundle("default").family
        'detectors'
    """
    return read(find(str(name_or_path)), spec=spec(), public_key=public_key)


def load_allow_list(path: str | Path) -> AllowList:
    """The allow-list of a TOML file.

    Raises:
        ConfigError: it can't be read, or used as it is; the message has the entry.
    """
    return read_allow_list(path) or AllowList()


def scan(
    inputs: str | Path | Sequence[str | Path],
    *,
    bundle: Bundle | str | Path = "default",
    allow: AllowList | str | Path | None = None,
    options: InputOptions = DEFAULT_INPUT,
    cascade: bool = True,
    progress: Progress = _no_progress,
) -> ScanResult:
    """Inputs → alerts with their reasons, all in memory.

    Args:
        inputs: captures, Zeek or Suricata logs, directories of these, globs,
            `elasticsearch:URL/INDEX`.
        bundle: a loaded bundle, a shipped one's name, or where one lies.
        allow: what isn't to alert: an allow-list or its TOML file.
        options: how inputs are read.
        cascade: let the bundle's prefilter spare ordinary flows the other members.
        progress: called with `read` or `score`, and how many records more.

    Raises:
        InputError: no input could be read at all.
        BundleError, ConfigError: the bundle or the allow-list can't be used.
        LedgerError: the ledger doesn't balance.

    Example:
        >>> import ids_plugin
        >>> result = ids_plugin.scan("tests/lab/sample/capture.pcap.gz")
        >>> result.ledger.total.opened == result.alerts.height
        True
    """
    run = iter_scan(
        inputs, bundle=bundle, allow=allow, options=options, cascade=cascade, progress=progress
    )
    documents: list[Document] = []
    flows: list[pl.DataFrame] = []
    rejects: list[Reject] = []
    for batch in run:
        documents += batch.documents
        flows.append(batch.flows)
        rejects += batch.rejects
    frame = pl.concat(flows) if flows else pl.DataFrame(schema=SCHEMA)
    return ScanResult(documents, frame, _reject_frame(rejects), run.ledger, run.pipeline.bundle)


def iter_scan(
    inputs: str | Path | Sequence[str | Path],
    *,
    bundle: Bundle | str | Path = "default",
    allow: AllowList | str | Path | None = None,
    options: InputOptions = DEFAULT_INPUT,
    cascade: bool = True,
    progress: Progress = _no_progress,
    ingested: datetime | None = None,
) -> RunningScan:
    """As `scan`, batch by batch in bounded memory: iterate over what is returned.

    Args:
        ingested: wall-clock time that documents carry as `event.ingested`; left out when None.

    Raises:
        BundleError, ConfigError: the bundle or the allow-list can't be used.

    Example:
        >>> import ids_plugin
        >>> run = ids_plugin.iter_scan("tests/lab/sample/capture.pcap.gz")
        >>> documents = [document for batch in run for document in batch.documents]
        >>> alerts = sum(document["event"]["kind"] == "alert" for document in documents)
        >>> alerts == run.ledger.total.opened
        True
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    allowed = load_allow_list(allow) if isinstance(allow, str | Path) else allow
    pipeline = Pipeline(loaded, allow=allowed, cascade=cascade)
    return RunningScan(_names(inputs), pipeline, options, progress, ingested)


def read_flows(
    inputs: str | Path | Sequence[str | Path], *, options: InputOptions = DEFAULT_INPUT
) -> pl.DataFrame:
    """The flows of the inputs in known order, local flags filled: a Flow frame (`FLOW_SCHEMA`).

    Raises:
        InputError: no input could be read at all.

    Example:
        >>> import ids_plugin
        >>> flows = ids_plugin.read_flows("tests/lab/sample/capture.pcap.gz")
        >>> flows.select("id_orig_h" if "id_orig_h" in flows.columns else "orig_h").height > 7000
        True
    """
    batches = list(iter_flows(read_steps(_names(inputs), options), options, BATCH))
    return pl.concat(batches) if batches else pl.DataFrame(schema=SCHEMA)


def iter_flows(
    steps: Iterator[Read], options: InputOptions, batch_rows: int = BATCH_ROWS
) -> Iterator[pl.DataFrame]:
    """The flows of steps of reading in known order, local flags filled, in frames of
    `batch_rows`."""
    return ordered(steps, batch_rows=batch_rows, locality=options.locality())


def read_steps(inputs: Sequence[str], options: InputOptions) -> Iterator[Read]:
    """All records of the inputs, step by step: flows of the period that counts, rejects, counts.

    Raises:
        InputError: none of them could be read.
        UsageError, MissingExtraError, ServiceError: an input can't be read as things are.
    """
    steps = read_inputs(
        inputs,
        batch_rows=BATCH_ROWS,
        stdin=options.stdin or io.BytesIO(),
        sensors=options.sensors,
        options=options.reading,
        elasticsearch=lambda: options.elasticsearch,
    )
    for step in steps:
        yield within_period(step, options.reading)


def watched(steps: Iterator[Read], watch: Callable[[Read], None]) -> Iterator[Read]:
    """The same steps, each shown to `watch` first."""
    for step in steps:
        watch(step)
        yield step


def within_period(step: Read, reading: ReadOptions) -> Read:
    """The step without the flows outside the period; these are out of scope."""
    flows = step.flows
    if reading.since is not None:
        flows = flows.filter(pl.col("ts") >= reading.since)
    if reading.until is not None:
        flows = flows.filter(pl.col("ts") < reading.until)
    left_out = len(step.flows) - len(flows)
    if not left_out:
        return step
    return replace(step, flows=flows, out_of_scope=step.out_of_scope | {"outside_period": left_out})


def train(
    data: Sequence[str],
    *,
    family: str = "anomaly_net",
    members: Sequence[str] = ("lightgbm", "behaviour"),
    validation: Sequence[str] = (),
    labels: Path | None = None,
    seed: int = 1,
    epochs: int | None = None,
    false_alerts_per_day: float = 1.0,
    balance: Literal["resample", "weight", "none"] = "resample",
    focal_gamma: float = 0.0,
    progress: Callable[[str], None] = lambda message: None,
) -> Bundle:
    """Labelled flows → a bundle; the same bytes for the same arguments, data and machine. Needs the
    extra `[train]`.

    Args:
        data: `KIND:PATH` of labelled flows (docs/datasets.md), such as `lab:tests/lab/flows/runs`.
        family: model family by its name; `ids-plugin train --help` lists them.
        members: that vote beside the family.
        validation: networks held out to stop early and to calibrate; by default a third of `data`.
        labels: CSV of labels of `zeek:` logs.
        seed: of everything random.
        epochs: of the network, at most; by default the recipe's.
        false_alerts_per_day: that the thresholds may cause on the calibration networks.
        balance: how rare classes count.
        focal_gamma: γ of the focal loss (Lin et al. 2017); 0 is none.
        progress: called with a message for a person.

    Raises:
        MissingExtraError: torch isn't installed.
        UsageError, InputError: the family or the data can't be used.
    """
    with needs_extra("training", "train"):
        from ids_plugin.training import run, tiny
        from ids_plugin.training.balance import Balance
        from ids_plugin.training.options import Fit
        from ids_plugin.training.options import Options as TrainingOptions

        kind = registry.load("models", family).kind
    if kind == "contacts":
        return _train_contacts(data, seed, epochs, false_alerts_per_day, progress)
    if kind == "uniflow":
        options = tiny.Options(tuple(data), tuple(validation), seed=seed)
        return tiny.train(replace(options, epochs=epochs) if epochs else options, progress)
    recipe = Fit(balance=Balance(balance, focal_gamma))
    return run.train(
        TrainingOptions(
            data=tuple(data),
            val=tuple(validation),
            labels=labels,
            family=family,
            beside=tuple(members),
            seed=seed,
            false_per_day=false_alerts_per_day,
            fit=replace(recipe, epochs=epochs) if epochs else recipe,
        ),
        progress,
    )


def _train_contacts(
    data: Sequence[str],
    seed: int,
    epochs: int | None,
    alerts_per_day: float,
    progress: Callable[[str], None],
) -> Bundle:
    """The detectors' bundle, its network in int8."""
    from ids_plugin.compression.contact_network import with_small_networks
    from ids_plugin.training.contacts import bundle as contact_bundle

    options = contact_bundle.ContactOptions(tuple(data), seed, alerts_per_day=alerts_per_day)
    if epochs is not None:
        network = replace(options.fit.network, epochs=epochs)
        options = replace(options, fit=replace(options.fit, network=network))
    trained = contact_bundle.train(options, progress)
    return with_small_networks(trained.bundle, trained.shown)


def compress(
    bundle: Bundle,
    data: Sequence[str],
    *,
    steps: Sequence[str] = ("int8",),
    training: Sequence[str] = (),
    labels: Path | None = None,
    seed: int = 1,
    epochs: int | None = None,
    progress: Callable[[str], None] = lambda message: None,
    observer: Callable[[Stage], None] = lambda stage: None,
) -> Bundle:
    """A smaller bundle; its manifest says what each step cost. Needs the extra `[train]`.

    Args:
        bundle: with a network; with its weights too where steps change them.
        data: labelled flows that fix scales and show the cost.
        steps: `NAME` or `NAME=VALUE`; `ids-plugin compress --help` lists them.
        training: labelled flows from which steps learn again that do.
        observer: called with the bundle as it is and after every step, and what it costs.

    Raises:
        MissingExtraError: onnx or torch isn't installed.
        UsageError, InputError: the bundle, the steps or the data can't be used.
    """
    with needs_extra("compression", "train"):
        from ids_plugin.compression.run import Options, run, with_fit
    if not data:
        raise UsageError("no data: labelled flows that fix the scales and show the cost")
    options = Options(tuple(data), tuple(steps), tuple(training), seed=seed, labels=labels)
    last = bundle
    for stage in run(bundle, with_fit(options, epochs), progress):
        observer(stage)
        last = stage.bundle
    return last


def evaluate(
    bundle: Bundle | str | Path,
    data: Sequence[str],
    *,
    protocol: Literal["leave-one-out", "time", "random"] = "leave-one-out",
    labels: Path | None = None,
    cascade: bool = True,
    explained: int = 300,
    seed: int = 1,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """What a bundle finds and misses on labelled flows, beside rules that know nothing; JSON-able.

    Args:
        data: `KIND:PATH` of labelled flows (docs/datasets.md).
        protocol: what the lookup table may learn from: other networks, the first 70 % in time, a
            random 70 %.
        explained: explanations tested by deletion, a network.

    Raises:
        BundleError, InputError: the bundle or the data can't be used.
    """
    from ids_plugin.datasets.labelled_flows import load
    from ids_plugin.training.evaluate import Options
    from ids_plugin.training.evaluate import evaluate as evaluate_networks

    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    labelled = [network for text in data for network in load(text, labels)]
    return evaluate_networks(
        loaded, labelled, Options(protocol, cascade, explained, seed), progress
    )


def calibrate(
    bundle: Bundle | str | Path,
    inputs: str | Path | Sequence[str | Path],
    *,
    alerts_per_day: float,
    allow: AllowList | str | Path | None = None,
    only_raise: bool = False,
    others_traffic: bool = False,
    options: InputOptions = DEFAULT_INPUT,
    watch: Callable[[Read], None] = lambda step: None,
) -> Calibration:
    """The bundle with thresholds fitted to one's own normal traffic; needs no torch.

    Args:
        inputs: normal traffic: at least a day of it, better a week.
        alerts_per_day: false alerts that are bearable.
        allow: the allow-list that will be in use: what it hides counts as ordinary.
        only_raise: let no threshold fall below the bundle's own.
        others_traffic: the traffic isn't of the network that the bundle is for: a fifth of the
            budget is fitted to.
        watch: called with every step of reading.

    Returns:
        `.bundle`, unsigned, and `.report`: thresholds before and after, and what held-back traffic
        gives.

    Raises:
        UsageError: too little traffic for the budget; the message says how much is needed.
        InputError: no input could be read at all.
    """
    from ids_plugin.training.calibrate import Options
    from ids_plugin.training.calibrate import calibrate as calibrate_flows

    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    allowed = load_allow_list(allow) if isinstance(allow, str | Path) else allow
    names = _names(inputs)
    flows = iter_flows(watched(read_steps(names, options), watch), options, BATCH)
    asked = Options(alerts_per_day, allowed or AllowList(), only_raise, others_traffic)
    return calibrate_flows(flows, loaded, asked, list(input_digests(names)))


@contextlib.contextmanager
def needs_extra(task: str, extra: str) -> Iterator[None]:
    """Around the imports of an optional part: says which extra has what is missing.

    Raises:
        MissingExtraError: an import failed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"{task} needs {error.name}", hint=f"pip install 'ids-plugin[{extra}]'"
        ) from error


def settle(ledger: Ledger, documents: int) -> None:
    """Enters as delivered what a scan handed on.

    Raises:
        LedgerError: the ledger doesn't balance.
    """
    if ledger.total.documents != documents:
        raise LedgerError(f"{ledger.total.documents} documents were made and {documents} handed on")
    for _, counts in tuple(ledger.items()):
        counts.delivered = counts.documents
    ledger.check()


def deliver(
    write: Callable[[], Delivered | RetryAfter], sleep: Callable[[float], None] = time.sleep
) -> Delivered:
    """Calls `write`, a sink's with one batch, until the batch is written.

    Raises:
        ServiceError: the sink did not take it within MAX_DELIVERY_WAIT_S.
    """
    waited_s = 0.0
    while not isinstance(answer := write(), Delivered):
        waited_s += answer.seconds
        if waited_s >= MAX_DELIVERY_WAIT_S:
            raise ServiceError(answer.reason)
        sleep(answer.seconds)
    return answer


def severity_level(document: Document) -> int:
    """Index in `SEVERITY_LEVELS` of a document's severity."""
    by_number = {SEVERITIES[level]: number for number, level in enumerate(SEVERITY_LEVELS)}
    return by_number[document["event"]["severity"]]


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Id, family and training files of a bundle, as a report shows them."""
    training = bundle.manifest.training.data.get("train", ())
    return {
        "id": bundle.id,
        "family": bundle.family,
        "trained_on": [data.file for data in training],
    }


def input_digests(inputs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Names of the inputs, without their folders, and the SHA-256 of their bytes; None for a stream
    or an index."""
    for name in inputs:
        if name == "-" or name.startswith("elasticsearch:"):
            yield {"file": name.rpartition("/")[2], "sha256": None}
            continue
        for opened in open_inputs([name], stdin=io.BytesIO()):
            opened.input.stream.close()
            if opened.source is not None:
                with Path(opened.input.name).open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                yield {"file": Path(opened.input.name).name, "sha256": digest}


def _names(inputs: str | Path | Sequence[str | Path]) -> list[str]:
    if isinstance(inputs, str | Path):
        return [str(inputs)]
    if not inputs:
        raise InputError("no input is named")
    return [str(name) for name in inputs]


def _reject_frame(rejects: Sequence[Reject]) -> pl.DataFrame:
    columns = {name: pl.String() for name in Reject._fields}
    return pl.DataFrame([reject._asdict() for reject in rejects], schema=columns)


def _alert_frame(documents: Sequence[Document]) -> pl.DataFrame:
    closing = {
        document["ids_plugin"]["fold"]["id"]: document["ids_plugin"]["fold"]
        for document in documents
        if document["event"]["kind"] != "alert"
    }
    rows = [
        _alert_row(document, closing)
        for document in documents
        if document["event"]["kind"] == "alert"
    ]
    rows.sort(key=lambda row: (-SEVERITIES[row["severity"]], -row["score"], row["time"]))
    frame = pl.DataFrame(
        rows,
        schema={
            name: pl.String() if isinstance(dtype, pl.Datetime) else dtype
            for name, dtype in ALERT_COLUMNS.items()
        },
    )
    return frame.with_columns(
        pl.col("time", "first", "last").str.to_datetime("%+", time_zone="UTC")
    )


def _alert_row(document: Document, closing: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    detail = document["ids_plugin"]
    group = closing.get(detail["fold"]["id"], detail["fold"])
    return {
        "time": document["@timestamp"],
        "severity": detail["severity"],
        "rule": document["rule"]["name"],
        "class": detail["label"],
        "host": group["subject"],
        "role": group["role"],
        "source": document["source"]["ip"],
        "destination": document["destination"]["ip"],
        "port": document["destination"].get("port"),
        "flows": group["count"],
        "first": group["first"],
        "last": group["last"],
        "score": detail["score"],
        "threshold": detail["threshold"],
        "why": detail["evidence"]["summary"],
        "sensor": document["observer"]["name"],
        "group_id": group["id"],
        "event_id": document["event"]["id"],
    }
