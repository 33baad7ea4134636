"""A Kafka broker: one node, KRaft, loopback."""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.services.certificates import Certificates
from tests.services.server import QUICK_START, Server, built, free_port, unique

POM = Path(__file__).parent / "kafka/pom.xml"
MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "sasl.enabled.mechanisms": MECHANISMS,
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
}


def jars() -> Path:
    """The folder with the broker's jars."""

    def fetch(folder: Path) -> None:
        subprocess.run(
            [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(POM),
                "dependency:copy-dependencies",
                f"-DoutputDirectory={folder}",
            ],
            check=True,
        )

    return built("kafka-4.1.0", [POM], fetch)


class Kafka(Server):
    """A broker. `listeners` names security protocols besides PLAINTEXT (SSL, SASL_PLAINTEXT,
    SASL_SSL).

    `users` (name → password) may log in by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; `properties` are
    added to the broker's own, e.g. `{"message.max.bytes": "2000000"}`; `options` are those of the
    JVM. The certificates of TLS listeners are in `certificates`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        listeners: tuple[str, ...] = (),
        users: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        heap: str = "512m",
        options: tuple[str, ...] = QUICK_START,
    ) -> None:
        super().__init__(folder)
        self.ports = {name: free_port() for name in ("PLAINTEXT", *listeners)}
        self.users = dict(users or {})
        self.certificates = Certificates(self.folder / "certificates")
        self._controller = free_port()
        self._properties = dict(properties or {})
        self._java = ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", *options, "-cp", f"{jars()}/*"]
        self._starts = 0

    @property
    def bootstrap(self) -> str:
        """`host:port` of the listener without security."""
        return self.address("PLAINTEXT")

    def address(self, protocol: str) -> str:
        """`host:port` of one listener."""
        return f"127.0.0.1:{self.ports[protocol]}"

    def topic(self, name: str, partitions: int = 1, **config: str | int) -> str:
        """Makes a topic with a unique name that begins with `name`; settings as
        `cleanup_policy="compact"`."""
        from kafka.admin import KafkaAdminClient, NewTopic

        name = unique(name)
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        with KafkaAdminClient(bootstrap_servers=self.bootstrap) as admin:
            admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        return name

    def read(self, topic: str, isolation: str = "read_committed") -> list[Any]:
        """All records (kafka-python's ConsumerRecord) of a topic at this moment, partition by
        partition."""
        from kafka import KafkaConsumer, TopicPartition

        found: list[Any] = []
        with KafkaConsumer(bootstrap_servers=self.bootstrap, isolation_level=isolation) as consumer:
            parts = [
                TopicPartition(topic, number)
                for number in sorted(consumer.partitions_for_topic(topic) or ())
            ]
            ends = consumer.end_offsets(parts)
            for part in parts:
                consumer.assign([part])
                consumer.seek_to_beginning(part)
                while consumer.position(part) < ends[part]:
                    for records in consumer.poll(timeout_ms=200).values():
                        found += records
        return found

    def log(self) -> str:
        """What the broker wrote since its last start."""
        path = self.folder / f"kafka-{self._starts}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _ready(self) -> bool:
        return "Kafka Server started" in self.log()

    def _launch(self) -> int:
        properties = self.folder / "server.properties"
        if not properties.exists():
            properties.write_text(
                "".join(f"{key}={value}\n" for key, value in self._settings().items())
            )
            self._format(properties)
        self._starts += 1
        log = self.folder / f"kafka-{self._starts}.log"
        return self._spawn([*self._java, "kafka.Kafka", str(properties)], log)

    def _format(self, properties: Path) -> None:
        cluster = "k" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[1:22]
        scram = [
            argument
            for name, password in self.users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
        done = subprocess.run(
            [
                *self._java,
                "kafka.tools.StorageTool",
                "format",
                "-t",
                cluster,
                "-c",
                str(properties),
                *scram,
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"Kafka's storage couldn't be formatted:\n{done.stderr[-5000:]}")

    def _settings(self) -> dict[str, str]:
        listeners = ",".join(f"{name}://{self.address(name)}" for name in self.ports)
        settings = SETTINGS | {
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in self.ports)
            + ",CONTROLLER:PLAINTEXT",
            "log.dirs": f"{self.folder}/data",
        }
        if any("SSL" in name for name in self.ports):
            settings |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.certificates.server_pem),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.certificates.ca),
            }
        for name in self.ports:
            if name.startswith("SASL"):
                settings |= self._logins(f"listener.name.{name.lower()}")
        return settings | self._properties

    def _logins(self, listener: str) -> dict[str, str]:
        known = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        module = "org.apache.kafka.common.security"
        return {
            f"{listener}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required "
            f"{known};",
            f"{listener}.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule "
            "required;",
            f"{listener}.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule "
            "required;",
        }
