"""What every plugin promises: every group of plugins crossed with checks. To exist is to be
tested."""

from __future__ import annotations

import importlib
import inspect
import io
from collections.abc import Callable
from functools import cache
from importlib.metadata import distribution, entry_points
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import polars as pl
import pytest

from ids_plugin import (
    bundle,
    checkpoint,
    compression,
    detectors,
    features,
    models,
    registry,
    scoring,
    sinks,
    sources,
    training,
    windows,
)
from ids_plugin.bundle import Bundle, DetectorEntry
from ids_plugin.commands import Command
from ids_plugin.config import Elasticsearch, Secret
from ids_plugin.detectors import DetectorKind, Findings
from ids_plugin.errors import BundleError, UsageError
from ids_plugin.schema import flow
from ids_plugin.schema.evidence import Evidence
from ids_plugin.schema.score import CLASSES
from ids_plugin.schema.window import STEPS, Feature
from ids_plugin.sinks import Delivered, RetryAfter, Sink, SinkEnvironment, open_sink
from ids_plugin.sources.ordering import as_scanned
from ids_plugin.windows import Rolling, Sequences, Summary
from ids_plugin.windows.state import Windower
from tests.support import shipped, toy
from tests.support.factories import alerts_of, frame
from tests.support.factories import flow as one_flow

PROTOCOLS: dict[str, type] = {
    "compression_steps": compression.Step,
    "detectors": detectors.DetectorKind,
    "models": models.ModelFamily,
    "members": scoring.Plugin,
    "sinks": sinks.Sink,
    "sources": sources.Source,
    "trainers": training.Trainer,
}
DATA: dict[str, tuple[type, ...]] = {
    "commands": (Command,),
    "features": (features.Group,),
    "windows": (Rolling, Summary),
}
MAKERS: dict[str, Callable[[Path], Sink]] = {
    "ndjson": lambda folder: registry.load("sinks", "ndjson")(folder / "out"),
    "report": lambda folder: registry.load("sinks", "report")(folder / "out"),
    "table": lambda folder: registry.load("sinks", "table")(io.StringIO(), 100),
}
HALF_HOUR_US = 30 * 60 * 1_000_000
GROUPS = sorted(
    {
        entry.group.removeprefix(registry.GROUP_PREFIX)
        for entry in distribution("ids-plugin").entry_points
        if entry.group.startswith(registry.GROUP_PREFIX)
    }
)
UNREACHABLE = Elasticsearch("http://127.0.0.1:1", api_key=Secret("secret"))
SERVICES: dict[str, Callable[[], Sink]] = {
    "elasticsearch": lambda: registry.load("sinks", "elasticsearch")(UNREACHABLE)
}
"""sinks that another process is behind, here one that isn't there; tests/integration has the real
ones"""
DETECTORS: dict[str, DetectorEntry] = {
    entry.document["name"]: entry for entry in shipped.detector_bundle().manifest.detectors
}
PLUGINS = [(room, name) for room in GROUPS for name in registry.names(room)]


@cache
def default() -> Bundle:
    return bundle.read(bundle.find("anomaly_net"))


def test_every_room_with_plugins_has_its_checks() -> None:
    assert {room for room, _ in PLUGINS} == PROTOCOLS.keys() | DATA.keys()


@pytest.mark.parametrize(("room", "name"), PLUGINS)
def test_a_plugin_is_documented(room: str, name: str) -> None:
    (entry,) = entry_points(group=registry.GROUP_PREFIX + room, name=name)
    module = importlib.import_module(entry.module)
    plugin = registry.load(room, name)
    assert (module.__doc__ or "").strip()
    assert (inspect.getdoc(plugin if inspect.isclass(plugin) else type(plugin)) or "").strip()


@pytest.mark.parametrize(("room", "name"), [one for one in PLUGINS if one[0] in PROTOCOLS])
def test_a_plugin_obeys_its_rooms_protocol(room: str, name: str) -> None:
    plugin, protocol = registry.load(room, name), PROTOCOLS[room]
    assert plugin.name == name
    assert all(hasattr(plugin, attribute) for attribute in get_type_hints(protocol))
    kind = plugin if inspect.isclass(plugin) else type(plugin)
    for method, promised in inspect.getmembers(protocol, inspect.isfunction):
        if not method.startswith("_"):
            wanted = list(inspect.signature(promised).parameters)
            given = inspect.signature(getattr(kind, method)).parameters
            assert list(given)[: len(wanted)] == wanted, method
            more = [given[extra] for extra in list(given)[len(wanted) :]]
            assert all(one.default is not one.empty for one in more), method
            assert get_type_hints(getattr(kind, method)).keys() >= {*wanted, "return"} - {"self"}, (
                method
            )


@pytest.mark.parametrize(("room", "name"), [one for one in PLUGINS if one[0] in DATA])
def test_a_plugin_that_is_data_is_of_its_rooms_kind(room: str, name: str) -> None:
    assert isinstance(registry.load(room, name), DATA[room])


def test_features_have_one_name_a_unit_and_words_each() -> None:
    spec = windows.spec()
    named: list[Feature] = [*spec.sequence, *spec.context, *spec.summary]
    assert len({feature.name for feature in named}) == len(named)
    for feature in named:
        assert feature.name.isidentifier()
        assert feature.unit.strip()
        assert feature.text.strip()
    texts = [feature.text for feature in spec.table]
    assert len(set(texts)) == len(texts), "two features that a sentence would call the same"


@pytest.mark.parametrize("name", registry.names("features"))
def test_a_group_gives_a_number_or_null_per_flow(name: str) -> None:
    group = registry.load("features", name)
    assert len(group.features) == len(group.expressions) > 0
    nothing = dict.fromkeys(flow.SCHEMA.keys() - {"ts", "sensor", "source"})
    for rows in ([one_flow(0), one_flow(1) | nothing], []):
        added = features.add(frame(rows)).select(feature.name for feature in group.features)
        assert set(added.dtypes) == {pl.Float32}
        assert all(added[column].drop_nulls().is_finite().all() for column in added.columns)


@pytest.mark.parametrize("name", registry.names("windows"))
def test_a_plugin_of_windows_reads_what_it_measures(name: str) -> None:
    plugin = registry.load("windows", name)
    if isinstance(plugin, Rolling):
        measured = {measure.name for measure in plugin.measures}
        assert {read for reading in plugin.readings for read in reading.measures} == measured
        assert max(plugin.horizons) <= 3600
        return
    names = [feature.name for feature in windows.spec().flow]
    for start in (np.full((3, STEPS), np.nan), np.tile(np.arange(STEPS) * 7.5, (3, 1))):
        start[:, 0] = 0
        there = np.where(np.isnan(start), np.nan, 1.0).astype(np.float32)
        columns = plugin.compute(Sequences(start, dict.fromkeys(names, there)))
        assert [(one.shape, one.dtype) for one in columns] == [((3,), np.float32)] * len(
            plugin.features
        )
        assert not np.isinf(columns).any()


@pytest.mark.parametrize("name", registry.names("models"))
def test_a_family_builds_what_its_kind_says(name: str) -> None:
    family, spec = registry.load("models", name), windows.spec()
    made = family.build(spec, 4)
    assert family.paper
    if family.kind not in ("torch", "normal"):
        assert made
        return
    torch = pytest.importorskip("torch")
    mask = torch.tensor([[False] * 8 + [True] * 3, [False] * 10 + [True]])
    steps, table = (
        torch.full((2, STEPS, len(spec.sequence)), torch.nan),
        torch.zeros(2, len(spec.table)),
    )
    steps[mask] = 1.0
    if family.kind == "normal":
        assert all(
            error.shape == (2,) and torch.isfinite(error).all()
            for error in made.eval()(steps, mask, table)
        )
        return
    logits, attention, error = made.eval()(steps, mask, table)
    assert (logits.shape, error.shape) == ((2, 4), (2,))
    assert torch.isfinite(logits).all()
    if attention is not None:
        assert attention.shape == (2, STEPS)
        assert torch.allclose(attention.sum(1), torch.ones(2), atol=1e-5)
        assert not attention[~mask].any()


@pytest.mark.parametrize("name", registry.names("members"))
def test_a_member_gives_probabilities_of_every_class(name: str) -> None:
    entries = [entry for entry in default().manifest.members if entry.kind == name]
    assert entries, "the shipped bundle has none of this kind"
    spec = windows.spec()
    for entry in entries:
        member = registry.load("members", name).open(default(), entry)
        for rows in (0, 1, 5):
            mask = np.zeros((rows, STEPS), np.bool_)
            mask[:, -3:] = True
            steps = np.where(mask[:, :, None], np.float32(1), np.float32(np.nan)).repeat(
                len(spec.sequence), axis=2
            )
            table = np.full((rows, len(spec.table)), np.nan, np.float32)
            found = member.probabilities(steps, mask, table)
            assert (found.shape, found.dtype) == ((rows, len(CLASSES)), np.float64)
            assert ((found >= 0) & (found <= 1)).all()
            assert np.allclose(found.sum(axis=1), 1, atol=1e-5)


@cache
def judged_by(name: str) -> tuple[Findings, list[Evidence], dict[str, Any]]:
    """What a shipped detector finds in a toy network, why, and its state then."""
    entry = DETECTORS[name]
    flows = toy.network(5)
    ordered = as_scanned(flows)
    kind: DetectorKind = registry.load("detectors", entry.kind)
    memory = kind.open(shipped.detector_bundle(), entry.document).sensor()
    (batch,) = Windower(rolling=False).step(features.add(ordered))
    findings = memory.step(batch)
    return findings, [findings.explain(row) for row in range(len(findings.rows))], memory.state()


def test_every_kind_of_detector_is_in_the_shipped_bundle() -> None:
    assert {entry.kind for entry in DETECTORS.values()} == set(registry.names("detectors"))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_finds_what_its_protocol_says(name: str) -> None:
    findings, evidence, _ = judged_by(name)
    rows = len(findings.rows)
    assert rows, "a toy network has something for every shipped detector"
    assert (np.diff(findings.rows) > 0).all(), "ascending, each once"
    kinds = {"rows": "i8", "label": "i8", "score": "f8", "threshold": "f8"}
    for column, dtype in (kinds | {"is_target": "?", "quiet_us": "i8"}).items():
        values = getattr(findings, column)
        assert (values.shape, values.dtype) == ((rows,), np.dtype(dtype)), column
    assert ((findings.label > 0) & (findings.label < len(CLASSES))).all()
    assert ((findings.score >= 0) & (findings.score <= 1)).all()
    assert (findings.quiet_us >= HALF_HOUR_US).all()
    for shown in evidence:
        assert shown.summary.endswith(".")
        assert sum(step.weight for step in shown.flows) == pytest.approx(1)
        assert shown.flows[-1].lag == 0
        assert 0 <= shown.faithfulness <= 1


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detectors_memory_is_restored_and_goes_on_under_another_bundle(name: str) -> None:
    """Counts of drift begin anew: another bundle has other ranges."""
    state = checkpoint.dump(judged_by(name)[2])
    entry = DETECTORS[name]
    opened = registry.load("detectors", entry.kind).open(shipped.detector_bundle(), entry.document)
    memory = opened.sensor()
    memory.restore(checkpoint.load(state))
    assert checkpoint.dump(memory.state()) == state
    under_another = {"drift": {}} | opened.sensor(memory).state()
    before = {"drift": {}} | checkpoint.load(state)
    assert checkpoint.dump(under_another | {"drift": {}}) == checkpoint.dump(before | {"drift": {}})


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_without_its_files_is_refused(name: str) -> None:
    entry = DETECTORS[name]
    kind: DetectorKind = registry.load("detectors", entry.kind)
    with pytest.raises(BundleError):
        kind.open(shipped.window_bundle(), entry.document)
    with pytest.raises(BundleError):
        kind.open(shipped.detector_bundle(), {"name": "bare"})


def test_every_sink_has_its_checks() -> None:
    assert {*MAKERS, *SERVICES} == set(registry.names("sinks"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_sink_whose_service_is_away_says_so_and_when_to_ask_again(name: str) -> None:
    sink = SERVICES[name]()
    assert sink.write([]) == Delivered(0)
    answer = sink.write(alerts_of("scan"))
    assert isinstance(answer, RetryAfter)
    assert answer.seconds > 0
    assert "127.0.0.1:1" in answer.reason
    assert "secret" not in answer.reason
    sink.abort()


@pytest.mark.parametrize("name", registry.names("sinks"))
def test_a_sink_is_opened_by_its_target(name: str, tmp_path: Path) -> None:
    promised = inspect.signature(Sink.open)
    plugin = registry.load("sinks", name)
    assert list(inspect.signature(plugin.open).parameters) == list(promised.parameters)
    target = "http://127.0.0.1:1" if name in SERVICES else str(tmp_path / "out")
    sink = open_sink(f"{name}={target}", SinkEnvironment())
    assert sink.name == name
    assert sink.write([]) == Delivered(0)
    sink.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MAKERS)
def test_a_sink_of_a_file_writes_it_or_standard_output(name: str, tmp_path: Path) -> None:
    documents = alerts_of("scan")
    output = io.BytesIO()
    stdout = io.TextIOWrapper(output, "utf-8")
    for target in (str(tmp_path / "out"), "-"):
        if (name, target) == ("report", "-"):
            continue
        sink = open_sink(f"{name}={target}", SinkEnvironment(stdout))
        sink.write(documents)
        sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out").stat().st_size > 0
    stdout.flush()
    if name != "report":
        assert output.getvalue()


@pytest.mark.parametrize(
    "specification",
    [
        "ndjson",
        "ndjson=",
        "=out",
        "nowhere=out",
        "report=-",
        "elasticsearch=localhost",
        "elasticsearch=https://user:secret@host",
    ],
)
def test_a_sink_that_can_not_be_opened_is_refused(specification: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_sink(specification, SinkEnvironment())
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", MAKERS)
def test_a_sink_takes_everything_or_leaves_nothing(name: str, tmp_path: Path) -> None:
    documents = alerts_of("scan")
    sink = MAKERS[name](tmp_path)
    assert sink.write(documents) == Delivered(len(documents))
    assert sink.write([]) == Delivered(0)
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    sink = MAKERS[name](tmp_path)
    sink.write(documents[:1])
    sink.write(documents[1:])
    sink.close()
    made: list[Any] = [path.name for path in tmp_path.iterdir()]
    assert made == ([] if name == "table" else ["out"])
