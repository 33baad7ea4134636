"""Clients of a Kafka broker as the configuration has it, and what its errors mean (kafka-python,
extra `[kafka]`)."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ids_plugin.config import Config
from ids_plugin.config import Kafka as Settings
from ids_plugin.errors import ConfigError, MissingExtraError, ServiceError

if TYPE_CHECKING:
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

SESSION_MS, TRANSACTION_MS = 10_000, 10_000
"""After so long a dead member's partitions go to others, and its open transaction stops holding
readers back."""
BOOTSTRAP_MS = 5_000
"""How long a broker may take to answer the first time."""
LARGEST_MESSAGE = 900_000
"""bytes; brokers take 1 MiB unless told otherwise"""
LARGEST_BUNDLE = 32 << 20
"""bytes of a bundle sent through Kafka"""


def instance(name: str | None) -> str:
    """The configured name of an instance, or the host's."""
    return name or socket.gethostname()


def consumer(
    config: Config, group: str = "", name: str | None = None, **options: Any
) -> KafkaConsumer:
    """A consumer that reads what was committed, from the beginning where it knows no place, and
    commits nothing itself.

    Args:
        config: where the broker is.
        group: its consumer group, none if empty.
        name: its instance, a static member of the group.
        options: kafka-python's, over ours.

    Raises:
        MissingExtraError, ConfigError, ServiceError: as `reaching`.
    """
    settings: dict[str, Any] = {
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "allow_auto_create_topics": False,
        "metadata_max_age_ms": 10_000,
    }
    if group:
        settings |= {
            "group_id": group,
            "group_instance_id": f"{group}-{instance(name)}",
            "session_timeout_ms": SESSION_MS,
            "heartbeat_interval_ms": SESSION_MS // 4,
        }
    with reaching(config):
        return _kafka().KafkaConsumer(**settings | _access(config) | options)


def producer(
    config: Config, group: str = "", name: str | None = None, **options: Any
) -> KafkaProducer:
    """An idempotent producer; with a group a transactional one, for the instance `name` of it.

    Raises:
        MissingExtraError, ConfigError, ServiceError: as `reaching`.
    """
    settings: dict[str, Any] = {
        "acks": "all",
        "enable_idempotence": True,
        "allow_auto_create_topics": False,
    }
    if group:
        transactional = {
            "transactional_id": f"{group}-{instance(name)}",
            "transaction_timeout_ms": TRANSACTION_MS,
        }
        settings |= transactional
    with reaching(config):
        made = _kafka().KafkaProducer(**settings | _access(config) | options)
        if group:
            made.init_transactions()
        return made


def admin(config: Config) -> KafkaAdminClient:
    """
    Raises:
        MissingExtraError, ConfigError, ServiceError: as `reaching`.
    """
    with reaching(config):
        return _kafka().KafkaAdminClient(**_access(config))


@contextlib.contextmanager
def reaching(config: Config) -> Iterator[None]:
    """Says what the broker's errors mean and what to do.

    Raises:
        MissingExtraError: kafka-python isn't installed.
        ConfigError: the settings can't be right, such as a file of certificates that isn't there.
        ServiceError: the broker doesn't answer, or refuses us.
    """
    errors = _kafka().errors
    where = ",".join(config.kafka.bootstrap)
    _LOST.reasons.clear()
    try:
        yield
    except errors.UnknownTopicOrPartitionError as error:
        hint = "ids-plugin setup kafka makes our topics; sensors' topics are the sensors'"
        raise ServiceError("a topic is missing", location=where, hint=hint) from error
    except errors.AuthorizationError as error:
        raise ServiceError(
            f"Kafka refuses us: {_error_text(error)}", location=where, hint=_NOT_ALLOWED
        ) from error
    except (errors.KafkaConfigurationError, AssertionError) as error:
        raise ConfigError(f"kafka: {error}", location=where) from error
    except (errors.KafkaTimeoutError, errors.KafkaConnectionError, OSError) as error:
        what, hint = _why(config, _error_text(error))
        raise ServiceError(f"no answer from Kafka: {what}", location=where, hint=hint) from error
    except errors.KafkaError as error:
        raise ServiceError(
            f"Kafka refuses: {_error_text(error)}", location=where, hint="see the broker's log"
        ) from error


def _kafka() -> Any:
    try:
        import kafka
        import kafka.errors
    except ImportError as error:
        raise MissingExtraError(
            "Kafka needs kafka-python", hint="pip install 'ids-plugin[kafka]'"
        ) from error
    log = logging.getLogger("kafka")
    if _LOST not in log.handlers:
        log.addHandler(_LOST)
        log.propagate = False
    return kafka


def _access(config: Config) -> dict[str, Any]:
    """The configuration as kafka-python has it."""
    kafka_settings = config.kafka
    settings: dict[str, Any] = {
        "bootstrap_servers": list(kafka_settings.bootstrap),
        "security_protocol": kafka_settings.security_protocol,
        "ssl_check_hostname": kafka_settings.ssl_check_hostname,
        "client_id": kafka_settings.client_id,
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "reconnect_backoff_max_ms": 2_000,
    }
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path = getattr(kafka_settings, name)
        settings[name] = str(path) if path else None
    _check_certificates(kafka_settings)
    settings["ssl_password"] = (
        kafka_settings.ssl_password.reveal() if kafka_settings.ssl_password else None
    )
    if kafka_settings.sasl_mechanism:
        settings["sasl_mechanism"] = kafka_settings.sasl_mechanism
        settings["sasl_plain_username"] = kafka_settings.sasl_username
        settings["sasl_plain_password"] = (
            kafka_settings.sasl_password.reveal() if kafka_settings.sasl_password else None
        )
    if kafka_settings.sasl_oauth_token_file:
        settings["sasl_oauth_token_provider"] = _token_provider(
            kafka_settings.sasl_oauth_token_file
        )
    return settings


def _check_certificates(kafka_settings: Settings) -> None:
    """
    Raises:
        ConfigError: a file isn't there, or isn't what it is meant to be.
    """
    password = kafka_settings.ssl_password.reveal() if kafka_settings.ssl_password else ""
    for name, path in (
        ("ssl_cafile", kafka_settings.ssl_cafile),
        ("ssl_certfile", kafka_settings.ssl_certfile),
    ):
        if path is None:
            continue
        try:
            if name == "ssl_cafile":
                ssl.create_default_context(cafile=path)
            else:
                ssl.create_default_context().load_cert_chain(
                    path, kafka_settings.ssl_keyfile, password
                )
        except ssl.SSLError as error:
            raise ConfigError(
                f"kafka.{name} isn't what it should be: {error.reason}", location=str(path)
            ) from error
        except OSError as error:
            place = str(
                path
                if name == "ssl_cafile" or not kafka_settings.ssl_keyfile
                else f"{path}, {kafka_settings.ssl_keyfile}"
            )
            raise ConfigError(
                f"kafka.{name}: {(error.strerror or str(error)).lower()}", location=place
            ) from error


def _token_provider(path: Path) -> Any:
    from kafka.net.sasl.oauth import AbstractTokenProvider

    class Provider(AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> str:
            return path.read_text("utf-8").strip()

    return Provider()


class _Lost(logging.Handler):
    """Keeps why connections were lost: kafka-python writes it into its log only, and says that time
    is up."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.reasons = deque[str](maxlen=64)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one message."""
        self.reasons.append(record.getMessage())


_LOST = _Lost()
_CHECK = (
    "check kafka.bootstrap and kafka.security_protocol, and that the broker runs: ids-plugin doctor"
)
_NOT_ALLOWED = (
    "the broker's administrator has to allow it (ACLs); "
    "docs/deploy.md lists what each consumer needs"
)
_PORTS = (
    "check kafka.bootstrap and kafka.security_protocol: "
    "each listener of the broker has a port of its own"
)
_REASONS = (
    (
        "SaslAuthenticationFailed",
        "it refuses our login",
        "check kafka.sasl_username, sasl_password, sasl_mechanism",
    ),
    (
        "UnsupportedSaslMechanism",
        "it doesn't have that SASL mechanism",
        "check kafka.sasl_mechanism",
    ),
    ("IllegalSaslState", "it takes no login on this port", _PORTS),
    (
        "CERTIFICATE_REQUIRED|ALERT_(BAD|UNSUPPORTED)_CERTIFICATE|ALERT_UNKNOWN_CA",
        "it wants a certificate of ours, or another one",
        "check kafka.ssl_certfile and kafka.ssl_keyfile",
    ),
    (
        "(Hostname|IP address) mismatch",
        "its certificate is another host's",
        "name it in kafka.bootstrap as in there",
    ),
    ("certificate has expired", "its certificate has expired", "renew it, or set the clock here"),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate isn't signed by an authority we trust",
        "kafka.ssl_cafile must be the authority that signed it",
    ),
    ("UNEXPECTED_EOF|WRONG_VERSION|RECORD_LAYER", "it doesn't speak TLS on this port", _PORTS),
    ("DNS Resolution", "the host's name is unknown", "check kafka.bootstrap and the name server"),
    ("ECONNREFUSED", "nothing listens there", "check kafka.bootstrap and that the broker runs"),
)
"""what kafka-python's log says → what it means, what to do; the first that fits is meant"""


def _why(config: Config, message: str) -> tuple[str, str]:
    """Why there is no answer, and what to do about it."""
    for pattern, what, hint in _REASONS:
        if any(re.search(pattern, reason) for reason in _LOST.reasons):
            return what, hint
    if not any("disconnected" in reason for reason in _LOST.reasons):
        return message, _CHECK
    if config.kafka.sasl_mechanism:
        return (
            "it hangs up on our login",
            f"check kafka.sasl_username, sasl_password, sasl_mechanism; {_PORTS}",
        )
    return "it hangs up: it may want TLS or a login", _PORTS


def _error_text(error: BaseException) -> str:
    """A client's error in few words: what the broker says, without the request and the response
    around it."""
    broker_message = re.search(r"error_message='(.+?)'[,)]", str(error))
    text = (
        broker_message[1] if broker_message else str(getattr(error, "description", None) or error)
    )
    return " ".join(text.split()) or type(error).__name__
