"""Facts of other logs join their flows, whatever the logs' form and the order they come in."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ids_plugin.schema.flow import FACT_SCHEMA, empty
from ids_plugin.sources import Read
from ids_plugin.sources.facts import FactStore
from ids_plugin.sources.inputs import read_inputs
from ids_plugin.sources.ordering import ordered
from tests.support.logs import START, conn, eve, jsonl, read, read_files, tsv

HOST, SERVER = "192.168.1.1", "198.51.100.7"
IDS = {name: conn()[name] for name in ("uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p")}
HTTP = IDS | {
    "ts": START + 0.1,
    "trans_depth": 1,
    "method": "GET",
    "host": "shop.example",
    "uri": "/a",
    "referrer": None,
    "user_agent": "curl/8.5",
    "status_code": 200,
}
SSL = IDS | {
    "ts": START + 0.1,
    "version": "TLSv12",
    "cipher": "TLS_RSA",
    "server_name": "shop.example",
    "established": True,
    "cert_chain_fps": ["aa", "bb"],
    "sni_matches_cert": False,
}
X509 = {
    "ts": START + 0.2,
    "fingerprint": "aa",
    "certificate.serial": "01",
    "certificate.subject": "CN=shop.example",
    "certificate.issuer": "CN=shop.example",
    "certificate.not_valid_before": START - 86_400,
    "certificate.not_valid_after": START + 9 * 86_400,
    "san.dns": ["shop.example"],
}
DNS = IDS | {
    "ts": START - 2,
    "uid": "CDNS",
    "id.resp_h": "192.168.1.254",
    "query": "shop.example",
    "qtype_name": "A",
    "rtt": 0.5,
    "answers": ["cdn.example", SERVER],
    "TTLs": [60.0, 300.0],
}
LOGS: dict[str, dict[str, Any]] = {"http": HTTP, "ssl": SSL, "x509": X509, "dns": DNS}
EXPECTED = {
    "http_method": "GET",
    "http_host": "shop.example",
    "http_host_is_address": False,
    "http_user_agent": "curl/8.5",
    "http_is_tool_agent": True,
    "http_has_referrer": False,
    "http_status": 200,
    "http_uri_bytes": 2,
    "http_requests": 1,
    "tls_established": True,
    "tls_server_name": "shop.example",
    "tls_has_certificate": True,
    "tls_is_self_signed": True,
    "tls_validity_days": 10.0,
    "tls_is_name_mismatch": True,
    "tls_has_alternative_name": True,
    "resp_name": "shop.example",
    "resp_name_ttl": 300.0,
}


def flows_of(*specs: Path, store: FactStore | None = None) -> pl.DataFrame:
    """Flows of some files in known order, with their facts."""
    steps = list(read_files(*specs).steps)
    return pl.concat([empty(), *ordered(iter(steps), batch_rows=100, facts=store)])


def facts_of(records: dict[str, list[dict[str, Any]]], folder: Path) -> dict[str, Any]:
    """Facts of the flow `conn()` beside records of other logs, as JSON files."""
    for name, members in (records | {"conn": [conn()]}).items():
        (folder / f"{name}.log").write_bytes(jsonl(members))
    (row,) = flows_of(folder).select(list(FACT_SCHEMA)).rows(named=True)
    return row


def as_tsv(name: str, record: dict[str, Any]) -> bytes:
    flat = {
        key: ",".join(map(str, value)) if isinstance(value, list) else value
        for key, value in record.items()
    }
    return tsv([flat], tuple(record), path=name)


def as_json(name: str, record: dict[str, Any]) -> bytes:
    return jsonl([{key: value for key, value in record.items() if value is not None}])


def as_json_with_path(name: str, record: dict[str, Any]) -> bytes:
    return as_json(name, record | {"_path": name})


def as_tagged_json(name: str, record: dict[str, Any]) -> bytes:
    return jsonl([{name: {key: value for key, value in record.items() if value is not None}}])


def as_nested_json(name: str, record: dict[str, Any]) -> bytes:
    nested: dict[str, Any] = {}
    for key, value in record.items():
        outer, _, inner = key.partition(".")
        if inner:
            nested.setdefault(outer, {})[inner] = value
        elif value is not None:
            nested[key] = value
    return jsonl([nested | {"_path": name}])


def as_underscored_json(name: str, record: dict[str, Any]) -> bytes:
    return as_json(name, {key.replace(".", "_"): value for key, value in record.items()})


FORMS = (as_tsv, as_json, as_json_with_path, as_tagged_json, as_nested_json, as_underscored_json)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("log", LOGS)
def test_records_of_logs_with_facts_are_counted_apart(form: Any, log: str) -> None:
    got = read(form(log, LOGS[log]), name="any.log")
    assert (got.flows.height, got.out_of_scope, got.rejects) == (0, {f"facts_{log}": 1}, [])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_facts(form: Any, tmp_path: Path) -> None:
    for name, record in LOGS.items():
        (tmp_path / f"{name}.log").write_bytes(form(name, record))
    (tmp_path / "conn.log").write_bytes(jsonl([conn()]))
    (row,) = flows_of(tmp_path).select(list(FACT_SCHEMA)).rows(named=True)
    assert row == EXPECTED


def test_the_order_of_the_files_changes_nothing(tmp_path: Path) -> None:
    files = []
    for name, record in (LOGS | {"conn": conn()}).items():
        files.append(tmp_path / f"{name}.log")
        files[-1].write_bytes(as_json(name, record))
    for order in list(permutations(files))[::17]:
        (row,) = flows_of(*order).select(list(FACT_SCHEMA)).rows(named=True)
        assert row == EXPECTED


def test_one_stream_may_hold_all_logs(tmp_path: Path) -> None:
    file = tmp_path / "all.log"
    lines = [as_json("conn", conn() | {"_path": "conn"})]
    file.write_bytes(b"".join([*lines, *(as_json_with_path(n, r) for n, r in LOGS.items())]))
    (row,) = flows_of(file).select(list(FACT_SCHEMA)).rows(named=True)
    assert row == EXPECTED


def test_without_other_logs_all_facts_are_null(tmp_path: Path) -> None:
    assert set(facts_of({}, tmp_path).values()) == {None}


def test_facts_of_other_flows_and_sensors_are_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    other = {"http": [HTTP | {"uid": "Cother"}], "dns": [DNS | {"id.orig_h": "192.168.1.2"}]}
    assert set(facts_of(other, folder).values()) == {None}
    file = tmp_path / "http.log"
    file.write_bytes(as_json("http", HTTP))
    steps = read_inputs(
        [str(folder / "conn.log"), str(file)],
        batch_rows=10,
        stdin=file.open("rb"),
        sensors=(("b", "http.log"),),
    )
    (flows,) = ordered(steps, batch_rows=10)
    assert flows["http_requests"].to_list() == [None]


def test_several_requests_of_a_connection_are_taken_together(tmp_path: Path) -> None:
    requests = [
        HTTP | {"method": "POST", "host": None, "user_agent": None, "status_code": 404},
        HTTP | {"ts": START + 0.2, "host": "198.51.100.7:8080", "uri": "/long", "referrer": "x"},
        HTTP | {"ts": START + 0.3, "status_code": None, "user_agent": "Mozilla/5.0"},
    ]
    facts = facts_of({"http": requests}, tmp_path)
    assert facts["http_method"] == "GET,POST"
    assert facts["http_host"] == "198.51.100.7:8080"
    assert (facts["http_host_is_address"], facts["http_has_referrer"]) == (True, True)
    assert (facts["http_user_agent"], facts["http_is_tool_agent"]) == ("curl/8.5", True)
    assert (facts["http_status"], facts["http_uri_bytes"], facts["http_requests"]) == (200, 5, 3)


def test_what_a_request_lacks_is_null(tmp_path: Path) -> None:
    bare = {name: HTTP[name] for name in ("ts", "uid", "trans_depth")} | {"user_agent": ""}
    facts = facts_of({"http": [bare | {"_path": "http"}]}, tmp_path)
    unset = ("http_method", "http_host", "http_user_agent", "http_status", "http_uri_bytes")
    assert [facts[name] for name in unset] == [None] * 5
    assert (facts["http_is_tool_agent"], facts["http_requests"]) == (False, 1)


def test_a_handshake_without_a_certificate_says_nothing_of_one(tmp_path: Path) -> None:
    facts = facts_of({"ssl": [SSL | {"established": False, "server_name": None}]}, tmp_path)
    assert (facts["tls_established"], facts["tls_server_name"]) == (False, None)
    assert facts["tls_has_certificate"] is False
    unknown = ("is_self_signed", "validity_days", "is_name_mismatch", "has_alternative_name")
    assert [facts[f"tls_{name}"] for name in unknown] == [None] * 4


def test_older_logs_name_certificates_by_their_file(tmp_path: Path) -> None:
    ssl = {name: value for name, value in SSL.items() if name != "cert_chain_fps"}
    x509 = X509 | {"id": "F1", "certificate.issuer": "CN=CA", "san.dns": None}
    del x509["fingerprint"]
    facts = facts_of({"ssl": [ssl | {"cert_chain_fuids": ["F1", "F2"]}], "x509": [x509]}, tmp_path)
    assert facts["tls_has_certificate"] is True
    assert (facts["tls_is_self_signed"], facts["tls_has_alternative_name"]) == (False, False)


def test_a_certificate_may_be_valid_for_centuries(tmp_path: Path) -> None:
    times = {"not_valid_before": "2000-01-01T00:00:00.000000Z", "not_valid_after": 253402300799}
    x509 = X509 | {f"certificate.{name}": value for name, value in times.items()}
    days = facts_of({"ssl": [SSL], "x509": [x509]}, tmp_path)["tls_validity_days"]
    assert days == pytest.approx(8000 * 365.2425, rel=1e-4)


@pytest.mark.parametrize(("asked_s", "expected"), [(-2, "shop.example"), (-0.4, None), (5, None)])
def test_a_name_counts_once_its_answer_came(
    asked_s: float, expected: str | None, tmp_path: Path
) -> None:
    assert facts_of({"dns": [DNS | {"ts": START + asked_s}]}, tmp_path)["resp_name"] == expected


def test_the_first_name_of_an_address_stays(tmp_path: Path) -> None:
    later = DNS | {"ts": START - 1, "query": "late.example", "answers": [SERVER], "TTLs": [7.0]}
    facts = facts_of({"dns": [later, DNS]}, tmp_path)
    assert (facts["resp_name"], facts["resp_name_ttl"]) == ("shop.example", 300.0)


def test_ipv6_addresses_meet_in_canonical_form(tmp_path: Path) -> None:
    answer = DNS | {"answers": ["2001:DB8:0::7"], "id.orig_h": "2001:db8:0:0::1"}
    (tmp_path / "dns.log").write_bytes(as_json("dns", answer))
    flow = conn(id_orig_h="2001:db8::1", id_resp_h="2001:0db8::7")
    (tmp_path / "conn.log").write_bytes(jsonl([flow]))
    assert flows_of(tmp_path)["resp_name"].to_list() == ["shop.example"]


def test_escapes_and_separators_of_sets_are_resolved(tmp_path: Path) -> None:
    record = DNS | {"query": "b\\xc3\\xbcro.example", "answers": f"TXT 3 a\\x2cb;{SERVER}"}
    data = as_tsv("dns", record).replace(b"#path", b"#set_separator\t;\n#path")
    (tmp_path / "dns.log").write_bytes(data)
    (tmp_path / "conn.log").write_bytes(jsonl([conn()]))
    assert flows_of(tmp_path)["resp_name"].to_list() == ["büro.example"]


def test_lines_that_are_no_records_of_the_log_are_counted_as_before() -> None:
    data = as_tsv("dns", DNS)
    got = read(data + b"cut off\n" + data.splitlines()[-1] + b"\r\n\n")
    assert (got.rejects, got.out_of_scope) == ([], {"facts_dns": 2, "zeek_dns": 1})


def test_records_that_belong_to_no_flow_give_no_fact(tmp_path: Path) -> None:
    strange = [
        HTTP | {"uid": None},
        HTTP | {"ts": "soon"},
        HTTP | {"status_code": -1, "uri": {"a": 1}, "uid": "C2"},
    ]
    assert facts_of({"http": strange}, tmp_path)["http_requests"] is None
    assert facts_of({"http": [HTTP | {"status_code": "x"}]}, tmp_path)["http_status"] is None


def test_a_store_is_bounded_and_counts_what_left(tmp_path: Path) -> None:
    count, limit = 50, 20
    requests = [HTTP | {"uid": f"C{n:017d}", "ts": START + n} for n in range(count)]
    (tmp_path / "http.log").write_bytes(jsonl(requests[25:] + requests[:25]))
    (tmp_path / "conn.log").write_bytes(jsonl([conn(n) for n in range(count)]))
    store = FactStore(limit)
    flows = flows_of(tmp_path, store=store).sort("ts")
    assert store.left_early == count - limit
    assert flows["http_requests"].is_not_null().to_list() == [False] * 30 + [True] * 20


def test_pieces_of_any_size_give_the_same_facts(tmp_path: Path) -> None:
    requests = [
        HTTP | {"uid": f"C{n % 7:017d}", "ts": START + n, "uri": "/" * (n % 30 + 1)}
        for n in range(100)
    ]
    got = [
        read(jsonl(requests[n:m]), name="http.log").steps
        for n, m in ((0, 10), (10, 11), (11, 80), (80, 100))
    ]
    pieces = [step.facts for steps in got for step in steps]
    flows = read(jsonl([conn(n) for n in range(9)])).flows
    results = []
    for order in (pieces, pieces[::-1]):
        store = FactStore()
        for piece in order:
            store.add(piece)
            filled = store.fill(flows)
        results.append(filled)
    assert results[0].equals(results[1])
    assert results[0]["http_requests"].to_list() == [15, 15, 14, 14, 14, 14, 14, None, None]


def test_facts_that_flows_have_stay() -> None:
    flows = read(jsonl([conn()])).flows.with_columns(http_host=pl.lit("own.example"))
    (frame,) = ordered([Read(flows, 1)], batch_rows=10)
    assert frame["http_host"].to_list() == ["own.example"]


EVE = {name: eve(1)[name] for name in ("flow_id", "src_ip", "src_port", "dest_ip", "dest_port")}
EVE |= {"timestamp": "2024-05-01T12:00:01.100000+0200"}
EVE_HTTP = {
    "hostname": "shop.example",
    "url": "/a",
    "http_user_agent": "curl/8.5",
    "http_method": "GET",
    "status": 200,
}
EVE_TLS = {
    "subject": "CN=shop.example",
    "issuerdn": "CN=shop.example",
    "fingerprint": "aa:bb",
    "sni": "shop.example",
    "notbefore": "2024-05-01T00:00:00",
    "notafter": "2024-05-11T00:00:00",
}
ANSWERS = [
    {"rrname": "shop.example", "rrtype": "CNAME", "ttl": 60, "rdata": "cdn.example"},
    {"rrname": "cdn.example", "rrtype": "A", "ttl": 300, "rdata": SERVER},
]
EVE_DNS = {"type": "answer", "rrname": "shop.example", "answers": ANSWERS}
ASKED = EVE | {"timestamp": "2024-05-01T11:59:00.000000+0200", "flow_id": 9, "dest_port": 53}


def eve_facts(*events: dict[str, Any]) -> dict[str, Any]:
    """Facts of the flow `eve(1)` beside other events."""
    steps = read(jsonl([eve(1), *events]), "suricata").steps
    (flows,) = ordered(iter(steps), batch_rows=10)
    (row,) = flows.select(list(FACT_SCHEMA)).rows(named=True)
    return row


def test_suricatas_events_give_the_same_facts() -> None:
    facts = eve_facts(
        ASKED | {"event_type": "dns", "dns": EVE_DNS},
        EVE | {"event_type": "http", "http": EVE_HTTP},
        EVE | {"event_type": "tls", "tls": EVE_TLS},
    )
    unsaid = {"tls_is_name_mismatch": None, "tls_has_alternative_name": None}
    assert facts == EXPECTED | unsaid


@pytest.mark.parametrize(
    ("dns", "ttl"),
    [
        ({"type": "answer", "rrname": "shop.example", "grouped": {"A": [SERVER]}}, None),
        ({"type": "answer", "rrname": "shop.example", "rrtype": "A", "rdata": SERVER, "ttl": 7}, 7),
        ({"type": "response", "queries": [{"rrname": "shop.example"}], "answers": ANSWERS}, 300),
    ],
)
@pytest.mark.parametrize("is_swapped", [False, True])
def test_every_form_of_suricatas_answers_names_the_responder(
    dns: dict[str, Any], ttl: float | None, is_swapped: bool
) -> None:
    event = ASKED | {"event_type": "dns", "dns": dns}
    if is_swapped:
        ends = {"src_ip": event["dest_ip"], "src_port": 53, "dest_ip": event["src_ip"]}
        event |= ends | {"dest_port": 40000}
    facts = eve_facts(event)
    assert (facts["resp_name"], facts["resp_name_ttl"]) == ("shop.example", ttl)


def test_suricatas_events_that_say_nothing_give_no_fact() -> None:
    events = [
        EVE | {"event_type": "http", "http": None, "flow_id": None},
        EVE | {"event_type": "tls", "tls": [], "timestamp": "soon"},
        ASKED | {"event_type": "dns", "dns": {"type": "query", "rrname": "shop.example"}},
        ASKED | {"event_type": "dns", "dns": EVE_DNS, "src_ip": "nobody"},
    ]
    assert set(eve_facts(*events).values()) == {None}
    facts = eve_facts(EVE | {"event_type": "tls", "tls": {"sni": "shop.example"}})
    assert (facts["tls_server_name"], facts["tls_has_certificate"]) == ("shop.example", False)
