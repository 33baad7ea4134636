"""doctor and setup kafka on real servers, and what Kafka's refusals are told as."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from elasticsearch import Elasticsearch as Client
from kafka import KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)
from kafka.structs import OffsetAndMetadata

from ids_plugin import cli, config, kafka
from ids_plugin.commands.doctor.elasticsearch import PRIVILEGES
from ids_plugin.commands.doctor.kafka import USES
from ids_plugin.errors import ConfigError, IdsPluginError, ServiceError
from tests.services import Elasticsearch, Kafka, unique
from tests.services.certificates import Certificates

USERS = Path(__file__).resolve().parents[2] / "consumers/compose/users.sh"
WORD, OTHER = "correct-horse", "battery-staple"
OURS = tuple(name for name in vars(config.Topics()))
OAUTH = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
"""takes tokens that nobody has signed"""
Variables = dict[str, str]


class Answer(NamedTuple):
    """What doctor gave."""

    code: int
    findings: list[dict[str, Any]]

    def told(self, state: str) -> list[str]:
        return [f"{one['what']} → {one['hint']}" for one in self.findings if one["state"] == state]


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], None]:
    """Settings for what runs in this process, as environment variables without their prefix."""

    def set_them(variables: Mapping[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"IDS_{name}", value)

    return set_them


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any]]:
    def run_it(*arguments: str) -> tuple[int, Any]:
        code = cli.main([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run_it


@pytest.fixture
def doctor(run: Callable[..., tuple[int, Any]]) -> Callable[..., Answer]:
    return lambda *arguments: Answer(*run("doctor", *arguments))


def own(server: Kafka) -> Variables:
    """Settings with names of topics and groups that nobody else has."""
    suffix = unique("test")
    topics = {f"TOPICS_{name.upper()}": f"ids.{name}.{suffix}" for name in OURS}
    groups = {f"{name.upper()}_GROUP": f"ids-{name}-{suffix}" for name in USES}
    return {
        "KAFKA_BOOTSTRAP": server.bootstrap,
        "NORMALISE_TOPICS": f"zeek.{suffix}",
        **topics,
        **groups,
    }


@pytest.fixture(scope="module")
def guarded(java: None) -> Iterator[Kafka]:
    """A broker with TLS, logins and rights; who comes without a login may do everything."""
    rights = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.name.ssl.ssl.client.auth": "required",
        "listener.name.sasl_plaintext.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config": OAUTH,
    }
    listeners = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
    with Kafka(listeners=listeners, users={"ids": WORD}, properties=rights) as server:
        yield server


@pytest.fixture(scope="module")
def private(java: None) -> Iterator[Elasticsearch]:
    """An Elasticsearch with logins and a certificate of an authority of its own."""
    with Elasticsearch(tls=True) as server:
        yield server


def login(server: Kafka, mechanism: str = "SCRAM-SHA-512", word: str = WORD) -> Variables:
    return {
        "KAFKA_BOOTSTRAP": server.address("SASL_SSL"),
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": "ids",
        "KAFKA_SASL_PASSWORD": word,
        "KAFKA_SSL_CAFILE": str(server.certificates.ca),
    }


def brokers(variables: Variables) -> int:
    """How many brokers there are for who has these settings."""
    told = config.load(None, {f"IDS_{name}": value for name, value in variables.items()})
    with closing(kafka.admin(told)) as admin, kafka.reaching(told):
        return len(admin.describe_cluster()["brokers"])


def test_setup_makes_topics_once(
    kafka: Kafka, set_up: Callable[[Variables], None], run: Callable[..., tuple[int, Any]]
) -> None:
    set_up(variables := own(kafka))
    flows, state, source = (
        variables["TOPICS_FLOWS"],
        variables["TOPICS_STATE"],
        variables["NORMALISE_TOPICS"],
    )

    def actions(*arguments: str) -> dict[str, str]:
        code, steps = run("setup", "kafka", "--sources", *arguments)
        assert code == 0
        return {step["name"]: step["action"] for step in steps}

    assert set(actions("--dry-run", "--partitions", "3").values()) == {"create"}
    assert set(actions("--partitions", "3").values()) == {"create"}
    assert set(actions("--partitions", "5").values()) == {"keep"}
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap) as admin:
        counts = {
            one["name"]: len(one["partitions"])
            for one in admin.describe_topics([flows, state, source])
        }
    assert counts == {flows: 3, state: 1, source: 3}
    _alter(kafka, state, "cleanup.policy", "delete")
    assert [name for name, action in actions("--dry-run").items() if action == "change"] == [state]
    assert [name for name, action in actions().items() if action == "change"] == [state]
    assert set(actions().values()) == {"keep"}


def test_all_is_well_then_one_thing_after_the_other_isn_t(
    kafka: Kafka,
    elasticsearch: Elasticsearch,
    set_up: Callable[[Variables], None],
    run: Callable[..., tuple[int, Any]],
    doctor: Callable[..., Answer],
) -> None:
    namespace = unique("doctor")
    variables = own(kafka) | {
        "ELASTICSEARCH_URL": elasticsearch.url,
        "ELASTICSEARCH_NAMESPACE": namespace,
    }
    set_up(variables)
    missing = doctor()
    assert missing.code == 4
    assert any(
        variables["TOPICS_FLOWS"] in one and "setup kafka" in one for one in missing.told("failure")
    )
    assert any("setup kafka --sources" in one for one in missing.told("failure"))
    assert any("setup elasticsearch" in one for one in missing.told("failure"))
    run("setup", "kafka", "--sources")
    run("setup", "elasticsearch")
    _send(kafka, variables["NORMALISE_TOPICS"], time.time())
    well = doctor()
    assert (well.code, well.told("failure")) == (0, [])
    assert any("takes writes in transactions" in one for one in well.told("ok"))

    _send(kafka, variables["NORMALISE_TOPICS"], time.time() + 3600)
    _alter(kafka, variables["TOPICS_STATE"], "cleanup.policy", "delete")
    _alter(kafka, variables["TOPICS_ALERTS"], "max.message.bytes", "1000")
    _alter(kafka, variables["TOPICS_FLOWS"], "retention.ms", "60000")
    _commit(kafka, variables["DETECT_GROUP"], variables["TOPICS_FLOWS"], ["aaa", "bbb"])
    with Client(elasticsearch.url) as client:
        stream = f"logs-ids_plugin.alert-{namespace}"
        client.indices.put_settings(
            index=stream, settings={"index.blocks.read_only_allow_delete": True}
        )
        found = doctor()
        client.indices.put_settings(
            index=stream, settings={"index.blocks.read_only_allow_delete": None}
        )
    assert found.code == 4
    told = "\n".join(found.told("failure"))
    assert "ahead of the clock here → set the clocks of the sensors" in told
    assert "cleanup.policy delete, not compact → ids-plugin setup kafka" in told
    assert "takes messages up to 1000 bytes" in told
    assert "judge by different bundles: aaa on partitions [0]; bbb on partitions [1]" in told
    assert "is read-only: index.blocks.read_only_allow_delete → free disk space" in told
    assert any("keeps messages for 0.0 h" in one for one in found.told("warning"))
    only = doctor("--process", "deliver")
    assert not any(
        "source topic" in one["what"] or "bundle" in one["what"] for one in only.findings
    )


def test_wrong_settings_are_findings(
    tmp_path: Path, set_up: Callable[[Variables], None], doctor: Callable[..., Answer], capsys: Any
) -> None:
    (tmp_path / "ids.toml").write_text("[kafka]\nbootstrp = 'a'\n")
    found = doctor("--config", str(tmp_path / "ids.toml"))
    assert found.code == 2
    assert "did you mean bootstrap?" in found.told("failure")[0]
    (tmp_path / "ids.toml").write_text(
        "[normalise]\ntopics = ['zeek']\n[detect]\nbundle = '/nowhere'\n"
    )
    set_up({"KAFKA_BOOTSTRAP": "127.0.0.1:9", "ELASTICSEARCH_URL": "http://127.0.0.1:9"})
    found = doctor("--config", str(tmp_path / "ids.toml"))
    assert found.code == 2
    told = found.told("failure")
    assert [one["area"] for one in found.findings if one["state"] == "failure"] == [
        "settings",
        "elasticsearch",
        "kafka",
    ]
    assert "/nowhere" in told[0]
    assert "nothing listens there" in told[2]
    assert cli.main(["doctor", "--process", "deliver"]) == 4
    assert "✗ kafka: " in capsys.readouterr().out


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_tls_and_logins(guarded: Kafka, mechanism: str) -> None:
    assert brokers(login(guarded, mechanism)) == 1


def test_tokens_are_read_again_for_every_connection(guarded: Kafka, tmp_path: Path) -> None:
    variables = {
        "KAFKA_BOOTSTRAP": guarded.address("SASL_PLAINTEXT"),
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_SASL_OAUTH_TOKEN_FILE": str(tmp_path / "token"),
    }
    claims = {"sub": "ids", "iat": int(time.time()), "exp": int(time.time()) + 600}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode()
        for part in ({"alg": "none"}, claims)
    ]
    (tmp_path / "token").write_text(".".join([*(part.rstrip("=") for part in parts), ""]) + "\n")
    assert brokers(variables) == 1
    (tmp_path / "token").write_text(OTHER)
    assert "login" in str(refused(variables))


def test_our_own_certificate(guarded: Kafka) -> None:
    certificate, key = guarded.certificates.client
    variables = {
        "KAFKA_BOOTSTRAP": guarded.address("SSL"),
        "KAFKA_SECURITY_PROTOCOL": "SSL",
        "KAFKA_SSL_CAFILE": str(guarded.certificates.ca),
    }
    assert "certificate of ours" in str(refused(variables))
    assert (
        brokers(variables | {"KAFKA_SSL_CERTFILE": str(certificate), "KAFKA_SSL_KEYFILE": str(key)})
        == 1
    )


def refused(variables: Variables) -> IdsPluginError:
    with pytest.raises(IdsPluginError) as found:
        brokers(variables)
    assert WORD not in str(found.value)
    assert OTHER not in str(found.value)
    return found.value


def test_refusals_are_told_by_their_cause(
    guarded: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "BOOTSTRAP_MS", 1_500)
    right, plain = login(guarded), {"KAFKA_BOOTSTRAP": guarded.address("SASL_SSL")}
    tls = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(guarded.certificates.ca)}
    unknown = {"KAFKA_SSL_CAFILE": str(Certificates(tmp_path / "other").ca)}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = f"127.0.0.1:{silent.getsockname()[1]}"
    for variables, wanted in (
        (right | unknown, "certificate isn't signed by an authority we trust (kafka.ssl_cafile"),
        (right | {"KAFKA_SASL_PASSWORD": OTHER}, "login (check kafka.sasl_username, sasl_password"),
        (plain, "it hangs up: it may want TLS or a login"),
        (tls | {"KAFKA_BOOTSTRAP": guarded.bootstrap}, "it doesn't speak TLS on this port"),
        ({"KAFKA_BOOTSTRAP": nobody}, "nothing listens there"),
        ({"KAFKA_BOOTSTRAP": "nowhere.invalid:9092"}, "the host's name is unknown"),
    ):
        error = refused(variables)
        assert isinstance(error, ServiceError)
        assert wanted in str(error)


def test_files_of_certificates_are_looked_at_first(guarded: Kafka, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    for path, wanted in (
        (tmp_path / "none", "no such file"),
        (tmp_path / "ca", "isn't what it should be"),
    ):
        error = refused(login(guarded) | {"KAFKA_SSL_CAFILE": str(path)})
        assert isinstance(error, ConfigError)
        assert wanted in str(error)
        assert str(path) in str(error)


def test_rights_are_looked_at(
    guarded: Kafka,
    set_up: Callable[[Variables], None],
    run: Callable[..., tuple[int, Any]],
    doctor: Callable[..., Answer],
) -> None:
    variables = own(guarded)
    set_up(variables)
    run("setup", "kafka", "--sources")
    set_up(login(guarded))
    processes = ("--process", "normalise", "--process", "detect")
    hidden = doctor(*processes)
    assert hidden.code == 4
    assert any("hidden from us" in one and "administrator" in one for one in hidden.told("failure"))
    _allow(
        guarded, ResourceType.TOPIC, "ids.", ACLOperation.DESCRIBE, ACLOperation.DESCRIBE_CONFIGS
    )
    _allow(guarded, ResourceType.TOPIC, "zeek", ACLOperation.DESCRIBE)
    partly = "\n".join(doctor(*processes).told("failure"))
    assert f"topic {variables['TOPICS_FLOWS']}: we may not read or write" in partly
    assert f"source topic {variables['NORMALISE_TOPICS']}: we may not read" in partly
    assert f"group {variables['DETECT_GROUP']}" in partly
    _allow(guarded, ResourceType.TOPIC, "ids.", ACLOperation.READ, ACLOperation.WRITE)
    _allow(guarded, ResourceType.TOPIC, "zeek", ACLOperation.READ)
    _allow(guarded, ResourceType.GROUP, "ids-", ACLOperation.READ, ACLOperation.DESCRIBE)
    assert "Transactional" in "\n".join(doctor(*processes).told("failure")).replace(
        "transactional", "Transactional"
    )
    _allow(
        guarded, ResourceType.TRANSACTIONAL_ID, "ids-", ACLOperation.WRITE, ACLOperation.DESCRIBE
    )
    assert doctor(*processes).told("failure") == []


def test_elasticsearch_with_logins_and_a_private_authority(
    private: Elasticsearch,
    set_up: Callable[[Variables], None],
    run: Callable[..., tuple[int, Any]],
    tmp_path: Path,
) -> None:
    from ids_plugin.commands.doctor import elasticsearch as area
    from ids_plugin.commands.doctor.findings import Asked, findings

    server = private
    ca = server.certificates.ca
    here = {"ELASTICSEARCH_URL": server.url, "ELASTICSEARCH_CA_FILE": str(ca)}
    set_up(
        here | {"ELASTICSEARCH_USERNAME": server.user, "ELASTICSEARCH_PASSWORD": server.password}
    )
    run("setup", "elasticsearch")
    with Client(server.url, ca_certs=str(ca), basic_auth=(server.user, server.password)) as client:
        names = ["logs-ids_plugin.*", "metrics-ids_plugin.*"]
        keys: dict[str, dict[str, Any]] = {
            "writer": {
                "cluster": ["monitor"],
                "indices": [{"names": names, "privileges": list(PRIVILEGES)}],
            },
            "reader": {
                "cluster": [],
                "indices": [{"names": names, "privileges": ["read", "view_index_metadata"]}],
            },
        }
        made = {
            name: client.security.create_api_key(name=name, role_descriptors={name: role})[
                "encoded"
            ]
            for name, role in keys.items()
        }

    def told(**variables: str) -> dict[str, list[str]]:
        asked = Asked(
            config.load(None, {f"IDS_{name}": value for name, value in (here | variables).items()})
        )
        found: dict[str, list[str]] = {}
        for one in findings([area.AREA], asked):
            found.setdefault(str(one.state), []).append(f"{one.what} → {one.hint}")
        assert server.password not in str(found)
        assert not any(key in str(found) for key in made.values())
        return found

    assert "failure" not in told(ELASTICSEARCH_API_KEY=made["writer"])
    lacking = told(ELASTICSEARCH_API_KEY=made["reader"])
    assert any(
        "may not auto_configure, create_doc, delete on" in one for one in lacking["failure"]
    ), lacking
    wrong = told(ELASTICSEARCH_USERNAME=server.user, ELASTICSEARCH_PASSWORD=OTHER)["failure"]
    assert "401" in wrong[0]
    assert "check the API key, or user name and password" in wrong[0]
    other = str(Certificates(tmp_path / "other").ca)
    untrusted = told(ELASTICSEARCH_API_KEY=made["writer"], ELASTICSEARCH_CA_FILE=other)["failure"]
    assert "check the scheme (http or https) and the CA file" in untrusted[0]


def test_users_may_write_our_documents_and_no_more(private: Elasticsearch) -> None:
    if not shutil.which("curl"):
        pytest.skip("needs curl: apt-get install curl")
    server, ca = private, str(private.certificates.ca)
    with Client(server.url, ca_certs=ca, basic_auth=(server.user, server.password)) as client:
        client.security.change_password(username="elastic", password="elastic-1")  # noqa: S106
    words = {
        "ELASTIC_PASSWORD": "elastic-1",
        "KIBANA_PASSWORD": "kibana-1",
        "IDS_PASSWORD": "writer-1",
    }
    for _ in range(2):
        subprocess.run(
            ["sh", USERS],
            check=True,
            env={**os.environ, **words, "URL": server.url, "CURL_CA_BUNDLE": ca},
        )
    with Client(server.url, ca_certs=ca, basic_auth=("kibana_system", "kibana-1")) as client:
        assert client.security.authenticate()["username"] == "kibana_system"
    with Client(server.url, ca_certs=ca, basic_auth=("ids_plugin", "writer-1")) as client:
        asked = [
            {"names": ["logs-ids_plugin.alert-x", "logs-other-x"], "privileges": list(PRIVILEGES)}
        ]
        rights = client.security.has_privileges(index=asked)["index"]
        assert all(rights["logs-ids_plugin.alert-x"].values())
        assert not any(rights["logs-other-x"].values())
        assert not client.security.has_privileges(cluster=["manage_security"])["has_all_requested"]


def _allow(server: Kafka, kind: ResourceType, prefix: str, *operations: ACLOperation) -> None:
    from kafka.admin import ACLResourcePatternType

    pattern = ResourcePattern(kind, prefix, ACLResourcePatternType.PREFIXED)
    with KafkaAdminClient(bootstrap_servers=server.bootstrap) as admin:
        admin.create_acls(
            [ACL("User:ids", "*", one, ACLPermissionType.ALLOW, pattern) for one in operations]
        )


def _alter(server: Kafka, topic: str, key: str, value: str) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    with KafkaAdminClient(bootstrap_servers=server.bootstrap) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {key: value})])


def _send(server: Kafka, topic: str, at: float) -> None:
    with closing(KafkaProducer(bootstrap_servers=server.bootstrap)) as producer:
        producer.send(topic, b"{}", timestamp_ms=round(at * 1000)).get(timeout=20)


def _commit(server: Kafka, group: str, topic: str, bundles: list[str]) -> None:
    from kafka import KafkaConsumer

    with closing(KafkaConsumer(bootstrap_servers=server.bootstrap, group_id=group)) as consumer:
        places = {
            TopicPartition(topic, number): OffsetAndMetadata(0, json.dumps({"bundle": bundle}), -1)
            for number, bundle in enumerate(bundles)
        }
        consumer.assign(list(places))
        consumer.commit(places)
