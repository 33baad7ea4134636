"""The services that the integration tests lean on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import elasticsearch as client
import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from tests import services


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="module")
def guarded(java: None) -> Iterator[services.Kafka]:
    with services.Kafka(listeners=("SSL", "SASL_SSL"), users={"alice": "secret"}) as server:
        yield server


def test_records_outlive_a_killed_broker(guarded: services.Kafka) -> None:
    topic = guarded.topic("kept", partitions=2)
    with KafkaProducer(bootstrap_servers=guarded.bootstrap) as producer:
        for number in range(100):
            producer.send(topic, str(number).encode(), partition=number % 2).get(10)
    guarded.kill9()
    assert not guarded.running()
    guarded.start()
    assert sorted(int(record.value) for record in guarded.read(topic)) == list(range(100))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_users_log_in_over_tls(guarded: services.Kafka, mechanism: str) -> None:
    topic = guarded.topic("secured")
    login: dict[str, Any] = {
        "bootstrap_servers": guarded.address("SASL_SSL"),
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(guarded.certificates.ca),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "alice",
    }
    with KafkaAdminClient(**login, **{"sasl_plain_password": "secret"}) as admin:
        assert topic in admin.list_topics()
    with pytest.raises(KafkaError):
        KafkaAdminClient(**login, **{"sasl_plain_password": "wrong"}, bootstrap_timeout_ms=2000)


def test_elasticsearch_keeps_what_it_acknowledged_and_who_may_ask(java: None) -> None:
    with services.Elasticsearch(tls=True) as server:
        index = services.unique("kept")
        trust = str(server.certificates.ca)
        login: dict[str, Any] = {"basic_auth": (server.user, server.password), "ca_certs": trust}
        with client.Elasticsearch(server.url, **login) as es:
            es.index(index=index, id="1", document={"a": 1})
        server.kill9()
        server.start()
        with client.Elasticsearch(server.url, **login) as es:
            assert es.get(index=index, id="1")["_source"] == {"a": 1}
        with (
            client.Elasticsearch(
                server.url, basic_auth=(server.user, "wrong"), ca_certs=trust
            ) as es,
            pytest.raises(client.AuthenticationException),
        ):
            es.info()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_broker_outlives_who_started_it(java: None, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.services", "kafka"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().partition("(process ")[2].partition(",")[0])
        assert running(pid)
        process.send_signal(how)
        process.wait(90)
    deadline = time.monotonic() + 60
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running(pid)
