"""docs/stacks says what is so: fields that are read, what is lost, commands and settings that can
be typed.

None of the stacks runs here: what they write is taken from their public configuration
(tests/support/stacks.py)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from ruamel.yaml import YAML

from ids_plugin.config import load
from ids_plugin.elastic.paging import SCHEME, target
from ids_plugin.schema.flow import ZEEK_NAMES
from ids_plugin.sources.ecs import ALSO, DIALECTS, SHARED
from tests.contract.test_deploy import parse
from tests.support.logs import conn, jsonl, read
from tests.support.stacks import STACKS

FOLDER = Path(__file__).resolve().parents[2] / "docs/stacks"
PAGES = {path.stem: path.read_text() for path in FOLDER.glob("*.md")}
DIALECT_PAGES = {
    "elastic": "elastic-agent",
    "security_onion": "security-onion",
    "corelight": "corelight",
    "malcolm": "malcolm",
}
ZEEK = {column: name for name, column in ZEEK_NAMES.items()}
ZEEK |= {
    "source_port": "id.orig_p",
    "destination_port": "id.resp_p",
    "icmp_type": "id.orig_p",
    "icmp_code": "id.resp_p",
}
ZEEK |= {"sensor": "the sensor"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", PAGES[page], flags=re.S | re.M)


def commands() -> list[tuple[str, str]]:
    """Command lines of ours, in blocks and in the text."""
    found = []
    for page, text in PAGES.items():
        lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
        lines += re.findall(r"`(ids-(?:plugin|consumer) [a-z]+ [^`]+)`", text)
        found += [
            (page, line) for line in lines if re.match(r"ids-(plugin|consumer) \w+ [^U]", line)
        ]
    return [(page, line) for page, line in found if "URL/INDEX" not in line]


@pytest.mark.parametrize("dialect", DIALECT_PAGES)
def test_fields_are_those_that_are_read(dialect: str) -> None:
    wanted: dict[str, set[str]] = {}
    paths = next(one.paths for one in DIALECTS if one.name == dialect)
    for column, path in (*SHARED.items(), *paths.items(), *ALSO.get(dialect, {}).items()):
        wanted.setdefault(ZEEK[column], set()).add(path)
    rows = re.findall(
        r"^\| `?([\w. ]+?)`? \| ((?:`[\w.@]+` ?)+) \|$", PAGES[DIALECT_PAGES[dialect]], flags=re.M
    )
    assert {name: set(re.findall(r"`([^`]+)`", fields)) for name, fields in rows} == wanted


@pytest.mark.parametrize("dialect", DIALECT_PAGES)
def test_what_is_lost_is_said_and_no_more_is(dialect: str) -> None:
    write, lose = STACKS[dialect]
    records = [
        conn(1, ts=1_700_000_000.123456, tunnel_parents=["Ctunnel"]),
        conn(2, proto="icmp", id_orig_p=8, id_resp_p=0, service=None, history=None, ip_proto=1),
        conn(
            3,
            id_orig_h="fe80::1",
            id_resp_h="ff02::fb",
            proto="udp",
            service="dns,mdns",
            duration=None,
            ip_proto=17,
        ),
    ]
    flows, whole = read(jsonl(map(write, records)), "ecs").flows, read(jsonl(records)).flows
    if dialect != "malcolm":  # its numbers are texts, which only the reader of indices takes
        ours = ("source", "origin", "sensor")
        assert flows.drop(ours).equals(read(jsonl(map(lose, records))).flows.drop(ours))
    lossy = read(jsonl(map(lose, records))).flows
    lost = {
        ZEEK[name]
        for name in ZEEK_NAMES.values()
        if not lossy[name].equals(whole[name], null_equal=True)
    }
    (said,) = re.findall(
        r"^Lost[^:]*: (.+?)\.(?: |$)", PAGES[DIALECT_PAGES[dialect]], flags=re.M | re.S
    )
    assert {name for name in re.findall(r"`([\w.]+)`", said) if name in ZEEK_NAMES} == lost


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_can_be_typed(page: str, line: str) -> None:
    program, *words = shlex.split(line)
    parse(program, words)
    for word in words:
        if word.startswith(SCHEME):
            found = target(word)
            assert found.url.startswith("https://")
            assert found.query is None or " " not in found.index


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_settings_are_settings_and_name_the_topic(page: str, tmp_path: Path) -> None:
    (block,) = blocks(page, "toml")
    (tmp_path / "ids.toml").write_text(block)
    topics = load(tmp_path / "ids.toml", {}).normalise.topics
    told = re.findall(
        r"--topic (\w+)|ZEEK_KAFKA_TOPIC=(\w+)|^  topic: (\w+)", PAGES[page], flags=re.M
    )
    assert {name for names in told for name in names if name} <= set(topics)


def test_filebeats_configuration_sends_lines_to_that_topic() -> None:
    (block,) = blocks("elastic-agent", "yaml")
    found: dict[str, Any] = YAML(typ="safe").load(block)
    assert found["filebeat.inputs"][0]["paths"] == ["/opt/zeek/logs/current/conn.log"]
    kafka = found["output.kafka"]
    assert (kafka["topic"], kafka["required_acks"]) == ("zeek", -1)
    assert kafka["max_message_bytes"] < 1 << 20


def test_a_key_for_reading_can_only_read() -> None:
    (body,) = re.findall(
        r"^POST /_security/api_key\n(.+?)^```", PAGES["elasticsearch-input"], flags=re.S | re.M
    )
    (role,) = orjson.loads(body)["role_descriptors"].values()
    assert [one["privileges"] for one in role["indices"]] == [["read"]]
    assert "cluster" not in role


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for path, anchor in re.findall(r"\]\(([^)#]*)(?:#([\w-]+))?\)", PAGES[page]):
        linked = FOLDER / path if path else FOLDER / f"{page}.md"
        assert linked.exists(), path
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.M)
        anchors = {re.sub(r"[^a-z0-9_ -]", "", one.lower()).replace(" ", "-") for one in headings}
        assert not anchor or anchor in anchors, (path, anchor)


def test_every_stack_has_its_page() -> None:
    assert {f"{page}.md" for page in PAGES} - {"README.md"} == set(
        re.findall(r"\]\((\w[\w-]+\.md)\)", PAGES["README"])
    )
    assert {one.name for one in DIALECTS} == set(DIALECT_PAGES)


def test_security_onions_whole_records_lose_nothing() -> None:
    write, lose = STACKS["security_onion_whole"]
    record = conn(1, tunnel_parents=["Ctunnel"])
    assert lose(record) == record
    assert orjson.loads(write(record)["message"]) == record
    assert isinstance(read(jsonl([{"message": write(record)["message"]}])).flows, pl.DataFrame)
