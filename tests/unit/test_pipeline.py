"""The whole sentence: flows in, alerts out, sensors apart, everything counted, explanations only
for what alerts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import polars as pl
import pytest

from ids_plugin import bundle, checkpoint
from ids_plugin.bundle import Bundle
from ids_plugin.errors import BundleError, LedgerError
from ids_plugin.explain import Explainer
from ids_plugin.pipeline import Pipeline, Scan, scan
from ids_plugin.schema import flow
from ids_plugin.schema.alert import Document
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.ledger import Counts, Ledger
from ids_plugin.schema.reject import Reject
from ids_plugin.schema.window import Windows
from ids_plugin.sources import Read
from ids_plugin.sources.ordering import as_scanned
from ids_plugin.windows.state import Limits
from tests.support import toy


@cache
def shipped() -> Bundle:
    return bundle.read(bundle.find("anomaly_net"))


@cache
def network(seed: int = 5, sensor: str = "one") -> pl.DataFrame:
    """Flows in known order, local flags filled: 15 minutes with a scan, guessed passwords and a
    beacon."""
    flows = toy.network(seed, minutes=15).with_columns(sensor=pl.lit(sensor))
    return as_scanned(flows)


def run(*batches: pl.DataFrame, **options: Any) -> tuple[list[Document], Pipeline]:
    """Documents of the batches, to the end of the input."""
    pipeline = Pipeline(shipped(), **options)
    documents = [document for flows in batches for document in pipeline.step(flows)]
    return documents + pipeline.finish(), pipeline


@cache
def alone(seed: int = 5, sensor: str = "one") -> list[Document]:
    return run(network(seed, sensor))[0]


def total(pipeline: Pipeline) -> Counts:
    """The counters of a pipeline that read no sources, once everything was delivered; they
    balance."""
    for source, sensor in [key for key, _ in pipeline.ledger.items()]:
        counts = pipeline.ledger.of(source, sensor)
        counts.read = counts.parsed = counts.scored + counts.duplicate + counts.replaced
        counts.delivered = counts.documents
    pipeline.ledger.check()
    return pipeline.ledger.total


def by_id(documents: list[Document]) -> list[Document]:
    return sorted(documents, key=lambda one: str(one["event"]["id"]))


def subjects(documents: list[Document]) -> set[tuple[str, str]]:
    return {(one["ids_plugin"]["fold"]["subject"], one["ids_plugin"]["label"]) for one in documents}


def test_attacks_become_alerts_that_open_and_close() -> None:
    documents = alone()
    assert ("192.168.1.66", "scan") in subjects(documents)
    opened, closed = (
        {
            one["ids_plugin"]["fold"]["id"]
            for one in documents
            if one["ids_plugin"]["fold"]["state"] == state
        }
        for state in ("open", "closed")
    )
    assert opened == closed
    assert len(documents) == 2 * len(opened)
    assert all("ingested" not in one["event"] for one in documents)


@pytest.mark.parametrize("size", [501, 64])
def test_batches_change_nothing(size: int) -> None:
    flows = network()
    edges = [*range(0, len(flows), size), len(flows)]
    documents, pipeline = run(*(flows[low:high] for low, high in pairwise(edges)))
    assert documents == alone()
    assert total(pipeline).scored == len(flows)


def test_sensors_never_share_state() -> None:
    first, second = network(5, "one"), network(6, "two")
    mixed = pl.concat([first, second]).sort(flow.known(), "uid")
    documents, pipeline = run(mixed[:3000], mixed[3000:])
    assert by_id(documents) == by_id(alone(5, "one") + alone(6, "two"))
    entries = {sensor: counts.scored for (_, sensor), counts in pipeline.ledger.items()}
    assert entries == {"one": len(first), "two": len(second)}


def test_the_same_network_seen_by_two_sensors_is_two_networks() -> None:
    documents, pipeline = run(pl.concat([network(), network(sensor="two")]))
    assert {one["observer"]["name"] for one in documents} == {"one", "two"}
    assert len({one["event"]["id"] for one in documents}) == 2 * len(alone())
    assert total(pipeline).duplicate == 0


def test_a_duplicate_is_counted_and_scored_once() -> None:
    flows = network()
    twice = pl.concat([flows, flows[::3]]).sort(flow.known(), "uid", maintain_order=True)
    documents, pipeline = run(twice)
    assert documents == alone()
    counts = total(pipeline)
    assert (counts.scored, counts.duplicate) == (len(flows), len(twice) - len(flows))


def test_duplicates_of_an_earlier_batch_are_known() -> None:
    documents, pipeline = run(network(), network())
    assert documents == alone()
    assert total(pipeline).duplicate == len(network())


def scans(documents: list[Document]) -> list[tuple[str, str, int]]:
    """Subject, state and count of the folds of scans."""
    folds = [one["ids_plugin"]["fold"] for one in documents if one["ids_plugin"]["label"] == "scan"]
    return [(fold["subject"], fold["state"], fold["count"]) for fold in folds]


def test_records_of_a_growing_connection_are_one_flow() -> None:
    knock = pl.col("label") == "scan"
    whole = network().with_columns(
        duration=pl.when(knock).then(timedelta(milliseconds=10)).otherwise("duration")
    )
    begun = whole.filter(knock).with_columns(
        open=pl.lit(value=True),
        duration=pl.lit(None, pl.Duration("us")),
        conn_state=pl.lit("S0"),
        resp_pkts=0,
    )
    flows = pl.concat(
        [whole, begun.select(pl.col(name).cast(whole.schema[name]) for name in whole.columns)]
    )
    documents, pipeline = run(flows.sort(flow.known(), "uid"))
    counts = total(pipeline)
    assert (counts.replaced, counts.scored, counts.duplicate) == (len(begun), len(whole), 0)
    assert scans(documents) == scans(run(whole)[0])
    assert 100 < max(count for _, _, count in scans(documents)) <= len(begun)


def test_late_records_are_scored_and_counted() -> None:
    flows = network()
    late = flows[1000:1100]
    _, pipeline = run(pl.concat([flows[:1000], flows[1100:2000], late, flows[2000:]]))
    counts = total(pipeline)
    assert counts.scored == len(flows)
    assert counts.delayed == len(late)
    assert total(run(flows)[1]).delayed == 0


def test_limits_count_what_leaves_early(monkeypatch: pytest.MonkeyPatch) -> None:
    from ids_plugin.windows import identity, state

    monkeypatch.setattr(identity, "GENERATION", 1024)
    monkeypatch.setattr(state, "CHUNK", 512)
    _, pipeline = run(network(), limits=Limits(visible=4096, history=256))
    assert pipeline.left_early["one"] > 0
    assert total(pipeline).scored == len(network())
    assert run(network())[1].left_early == {"one": 0}


def test_only_what_alerts_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    explained: list[tuple[float, Evidence]] = []
    explain = Explainer.explain

    def watched(self: Explainer, windows: Windows, row: int, label: int) -> Evidence:
        evidence = explain(self, windows, row, label)
        explained.append((windows.flows["uid"][row], evidence))
        return evidence

    monkeypatch.setattr(Explainer, "explain", watched)
    documents, pipeline = run(network())
    assert documents == alone()
    counts = total(pipeline)
    assert len(documents) / 2 == counts.opened
    assert (
        counts.opened <= len(explained) <= 2 * counts.opened
    )  # what opened a fold, and its strongest flow
    assert len(explained) < 0.1 * counts.over_threshold
    told = {evidence.summary for _, evidence in explained}
    assert {one["ids_plugin"]["evidence"]["summary"] for one in documents} <= told
    explained.clear()
    harmless = network().filter(pl.col("label") == "benign").filter(pl.col("resp_p") == 53)
    assert run(harmless)[0] == []
    assert explained == []


@pytest.mark.parametrize("cuts", [(1,), (700, 2800), (64, 65, 1500, 1501, 4000)])
def test_another_process_goes_on_where_one_stopped(cuts: tuple[int, ...]) -> None:
    flows = pl.concat([network(5, "one"), network(6, "two")]).sort(flow.known(), "uid")
    whole, ledger = run(flows)
    documents: list[Document] = []
    pipeline, counted = Pipeline(shipped()), Ledger()
    for low, high in pairwise([0, *cuts, len(flows)]):
        kept = checkpoint.dump(pipeline.state(["one", "two", "never seen"]))
        counted += pipeline.ledger
        pipeline = Pipeline(shipped())
        pipeline.restore(checkpoint.load(kept))
        documents += pipeline.step(flows[low:high])
    documents += pipeline.finish()
    assert by_id(documents) == by_id(whole)
    assert counted + pipeline.ledger == ledger.ledger


def test_state_is_the_same_wherever_batches_ended() -> None:
    flows = network()[:3000]
    states = []
    for size in (3000, 257):
        pipeline = Pipeline(shipped())
        for low in range(0, len(flows), size):
            pipeline.step(flows[low : low + size])
        states.append(checkpoint.dump(pipeline.state(["one"])))
    assert states[0] == states[1]


def test_after_its_end_a_sensor_is_new() -> None:
    pipeline = Pipeline(shipped())
    mixed = pl.concat([network(5, "one"), network(6, "two")]).sort(flow.known(), "uid")
    documents = pipeline.step(mixed) + pipeline.end("one")
    assert pipeline.end("one") == pipeline.end("unheard of") == []
    again = pipeline.step(network(5, "one")) + pipeline.end("one")
    assert again == alone(5, "one")
    assert by_id(documents + pipeline.finish()) == by_id(alone(5, "one") + alone(6, "two"))


def test_windows_of_another_version_begin_anew_and_folds_go_on() -> None:
    pipeline, newer = Pipeline(shipped()), Pipeline(shipped())
    opened = pipeline.step(network())
    state = pipeline.state(["one"])
    state["one"]["windows"]["made_by"]["windows"] = "0" * 64
    assert newer.restore(state) == ["one"]
    assert newer.pairs == 0
    assert newer.restore(pipeline.state(["one"])) == []
    assert newer.pairs == pipeline.pairs > 0
    assert opened + newer.finish() == alone()


def test_a_bundle_is_swapped_between_two_batches() -> None:
    """A document names the bundle that judged the flow it shows: what opened the fold, or its
    strongest flow."""
    other = bundle.seal(shipped().manifest.replaced(version="other"), shipped().files)
    shown = [one["zeek"]["session_id"] for one in alone()]
    opened, strongest = sorted(network()["uid"].to_list().index(uid) for uid in shown)
    pipeline = Pipeline(shipped())
    documents = pipeline.step(network()[: opened + 1])
    pipeline.swap(other)
    documents += pipeline.step(network()[opened + 1 :]) + pipeline.finish()
    assert opened < strongest
    assert scans(documents) == scans(alone())
    assert [one["ids_plugin"]["bundle"]["id"] for one in documents] == [shipped().id, other.id]
    assert [one["rule"]["version"] for one in documents] == [shipped().version, "other"]


def test_a_bundle_that_does_not_fit_leaves_the_one_before() -> None:
    pipeline = Pipeline(shipped())
    documents = pipeline.step(network()[:2000])
    broken = bundle.seal(shipped().manifest, dict.fromkeys(shipped().files, b"nothing"))
    with pytest.raises(BundleError):
        pipeline.swap(broken)
    assert documents + pipeline.step(network()[2000:]) + pipeline.finish() == alone()


def test_the_wall_clock_is_what_it_is_told() -> None:
    now = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
    pipeline = Pipeline(shipped())
    documents = pipeline.step(network(), now) + pipeline.finish(now)
    assert {one["event"]["ingested"] for one in documents} == {"2031-01-02T03:04:05.000000Z"}
    for one in documents:
        del one["event"]["ingested"]
    assert documents == alone()


def test_a_bundle_for_other_windows_is_refused() -> None:
    schema = shipped().manifest.schema
    foreign = bundle.seal(
        shipped().manifest.replaced(
            schema=schema.replaced(fingerprint="0" * 64, summary=schema.summary[1:])
        ),
        shipped().files,
    )
    with pytest.raises(BundleError, match="window_flows is missing"):
        Pipeline(foreign)


def reads(flows: pl.DataFrame) -> list[Read]:
    """Two steps of a source, in no order, with a reject and something that is no flow."""
    unset = [pl.lit(None, pl.Boolean()).alias(name) for name in ("local_orig", "local_resp")]
    shuffled = flows.with_columns(unset).sample(fraction=1, shuffle=True, seed=1)
    half = len(flows) // 2
    bad = Reject("conn.log", "line 7", "bad_json", "no JSON", "{")
    return [
        Read(shuffled[:half], half + 1, (bad,), source="zeek", sensor="one"),
        Read(
            shuffled[half:],
            len(flows) - half + 2,
            (),
            {"dns": 2},
            {"packets": 9},
            source="zeek",
            sensor="one",
        ),
    ]


def test_a_scan_orders_what_it_reads_and_its_ledger_balances() -> None:
    rejected: list[Reject] = []
    seen: list[pl.DataFrame] = []
    progress: list[tuple[str, int]] = []
    how = Scan(
        rejected=rejected.extend, watch=seen.append, progress=lambda *told: progress.append(told)
    )
    pipeline = Pipeline(shipped())
    documents = [one for made in scan(reads(network()), pipeline, how) for one in made]
    assert documents == alone()
    assert [one.place for one in rejected] == ["line 7"]
    assert pl.concat(seen)["uid"].to_list() == network()["uid"].to_list()
    for stage, records in (("read", len(network()) + 3), ("score", len(network()))):
        assert sum(count for name, count in progress if name == stage) == records
    with pytest.raises(LedgerError, match="documents"):
        pipeline.ledger.check()
    counts = pipeline.ledger.of("zeek", "one")
    counts.delivered = counts.documents
    pipeline.ledger.check()
    assert (counts.read, counts.rejected, counts.out_of_scope) == (
        len(network()) + 3,
        {"bad_json": 1},
        {"dns": 2},
    )
    assert pipeline.ledger.notes["packets"] == 9
    assert pipeline.ledger.notes["left_early"] == {"one": 0}
    assert "local_networks" in pipeline.ledger.notes


def test_a_scan_of_nothing() -> None:
    pipeline = Pipeline(shipped())
    assert [one for made in scan([Read(flow.empty(), 0)], pipeline, Scan()) for one in made] == []
    pipeline.ledger.check()


def test_a_flow_a_day_later_finds_no_open_fold() -> None:
    later = network().with_columns(
        ts=pl.col("ts") + timedelta(days=1), uid=pl.lit("D") + pl.col("uid")
    )
    documents, _ = run(network(), later)
    folds = [
        one["ids_plugin"]["fold"]["id"]
        for one in documents
        if one["ids_plugin"]["fold"]["state"] == "open"
    ]
    assert len(folds) == len(set(folds))
    assert len(folds) >= len(alone())
