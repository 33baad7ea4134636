"""What every source promises, crossed with every plugin that reads records."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ids_plugin import registry
from ids_plugin.sources import Source
from tests.support.logs import conn, document, eve, jsonl, read, tsv

SAMPLES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "zeek json": ("zeek", lambda n: jsonl(conn(i) for i in range(n))),
    "zeek tsv": ("zeek", lambda n: tsv(conn(i) for i in range(n))),
    "zeek tagged": ("zeek", lambda n: jsonl({"conn": conn(i)} for i in range(n))),
    "zeek in beats": (
        "zeek",
        lambda n: b"".join(jsonl([{"message": jsonl([conn(i)]).decode()}]) for i in range(n)),
    ),
    "suricata": ("suricata", lambda n: jsonl(eve(i) for i in range(n))),
    "ecs": ("ecs", lambda n: jsonl(document(i) for i in range(n))),
}
KINDS = sorted({kind for kind, _ in SAMPLES.values()})
SOURCES: tuple[Source, ...] = registry.load_all("sources")
GARBAGE = (
    bytes((i * 73 + i // 7) % 256 for i in range(5000))
    + b'\n{"a":\n[]\n{}\n\n"x"\n'
    + b"\xff" * 300
)


@pytest.mark.parametrize("sample", SAMPLES)
def test_its_own_kind_is_surest(sample: str) -> None:
    kind, make = SAMPLES[sample]
    sure = {source.name: source.sniff(make(5)) for source in SOURCES}
    assert max(sure, key=lambda name: sure[name]) == kind
    assert all(0 <= value <= 1 for value in sure.values())


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_nobody_claims_what_is_nothing(source: Source) -> None:
    for head in (b"", b"\n\n", b"Dear diary\n", bytes(range(256)), b"{}\n[]\n", GARBAGE):
        assert source.sniff(head) == 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_plugin_is_named_like_its_module_and_documented(source: Source) -> None:
    assert source.name in registry.names("sources")
    assert type(source).__doc__
    assert type(source).read.__doc__


@pytest.mark.parametrize("sample", SAMPLES)
def test_everything_is_read_once_whatever_the_step(sample: str) -> None:
    kind, make = SAMPLES[sample]
    for rows in (1, 100, 8192):
        got = read(make(300), kind, rows=rows)
        assert (got.flows.height, got.rejects, got.out_of_scope.total()) == (300, [], 0)
        assert got.flows["source"].unique().to_list() == [kind]
        assert got.flows["origin"].n_unique() == 300


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_nothing_out(kind: str) -> None:
    got = read(b"", kind)
    assert (got.flows.height, got.rejects) == (0, [])


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("part", [0.3, 0.77, 0.999])
def test_a_cut_input_loses_at_most_its_last_record(sample: str, part: float) -> None:
    kind, make = SAMPLES[sample]
    whole = make(50)
    cut = whole[: int(len(whole) * part)]
    got = read(cut, kind)
    lines = sum(1 for line in cut.split(b"\n") if line and not line.startswith(b"#"))
    assert got.flows.height >= lines - 1
    assert got.flows.height + len(got.rejects) == lines
    assert set(got.reasons) <= {"cut_off"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_garbage_is_rejected_and_counted_and_the_good_beside_it_read(sample: str) -> None:
    kind, make = SAMPLES[sample]
    got = read(make(20) + GARBAGE + b"\n" + make(20), kind)
    assert got.flows.height == 40
    bad = sum(1 for line in GARBAGE.split(b"\n") if line.strip(b" \t\r"))
    assert bad - len(got.rejects) in range(
        3
    )  # a line that begins with # is a directive of a TSV log
    assert all(
        reject.place.startswith("line ") and len(reject.data) <= 200 for reject in got.rejects
    )


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_named_sensor_is_on_every_flow(sample: str) -> None:
    kind, make = SAMPLES[sample]
    assert read(make(3), kind, sensor="east").flows["sensor"].unique().to_list() == ["east"]
    assert read(make(3), kind).flows["sensor"].unique().to_list() == ["default"]
