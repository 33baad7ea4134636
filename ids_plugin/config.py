"""Settings of the streaming pipeline: one TOML file, every key also as `IDS_<SECTION>_<KEY>`,
secrets also from files.

The environment wins over the file. A secret's key with `_file` behind it names a file that holds
the secret. Lists are comma-separated in the environment, tables are `key=value` pairs. Unknown
sections and keys are refused. docs/deploy.md describes every key; a new one is a new field here and
a line there. Nothing else reads the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from ids_plugin.errors import ConfigError

PREFIX = "IDS_"
FILE = "_file"


class Secret:
    """A text that is shown nowhere: only `reveal` gives it."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def _number(default: float, least: float, most: float = float("inf")) -> Any:
    """A number within bounds."""
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True)
class Kafka:
    """`[kafka]`: where the brokers are and who we are to them."""

    bootstrap: tuple[str, ...] = ("localhost:9092",)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    sasl_oauth_token_file: Path | None = None
    """read again for every connection: whoever fetches the tokens keeps it fresh"""
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_password: Secret | None = None
    """of the key file"""
    ssl_check_hostname: bool = True
    client_id: str = "ids-plugin"

    def __post_init__(self) -> None:
        if not self.bootstrap:
            raise ConfigError("bootstrap names no broker")
        for broker in self.bootstrap:
            if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}", broker):
                raise ConfigError(f"bootstrap names {broker!r}, not HOST:PORT")
        if not self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism:
                raise ConfigError(
                    f"sasl_mechanism has no effect with security_protocol {self.security_protocol}",
                    hint="SASL_SSL, or SASL_PLAINTEXT in a network that nobody can listen to",
                )
            return
        missing = [name for name in self._needed() if getattr(self, name) is None]
        if missing:
            raise ConfigError(f"{self.security_protocol} needs {' and '.join(missing)}")

    def _needed(self) -> tuple[str, ...]:
        if self.sasl_mechanism is None:
            return ("sasl_mechanism",)
        if self.sasl_mechanism == "OAUTHBEARER":
            return ("sasl_oauth_token_file",)
        return ("sasl_username", "sasl_password")


@dataclass(frozen=True)
class Topics:
    """`[topics]`: names of our own topics."""

    flows: str = "ids.flows"
    alerts: str = "ids.alerts"
    rejects: str = "ids.rejects"
    ledger: str = "ids.ledger"
    state: str = "ids.state"
    bundles: str = "ids.bundles"
    places: str = "ids.places"


@dataclass(frozen=True)
class Normalise:
    """`[normalise]`: sensors' topics → flows."""

    topics: tuple[str, ...] = ()
    pattern: str | None = None
    """regular expression that whole names of topics match, instead of `topics`"""
    sensors: Mapping[str, str] = field(default_factory=dict)
    """topic → name of its sensor, for records that don't say who wrote them"""
    group: str = "ids-normalise"
    instance: str | None = None
    batch: int = _number(20_000, 1)
    """records taken at once, at most"""


@dataclass(frozen=True)
class Detect:
    """`[detect]`: flows → alerts."""

    bundle: str | None = None
    """name or path; None: the one that is installed"""
    public_key: Path | None = None
    allow: Path | None = None
    local_nets: tuple[str, ...] = ()
    group: str = "ids-detect"
    instance: str | None = None
    buffer_ms: int = _number(1000, 0)
    """how long records without numbers wait for those that stand before them"""
    stale_seconds: float = _number(30.0, 1)
    """a source partition that is so far behind the others holds them no more"""
    held: int = _number(1_000_000, 1)
    """records of one sensor that wait for a missing one, at most"""
    snapshot_seconds: float = _number(60.0, 0.1)


@dataclass(frozen=True)
class Deliver:
    """`[deliver]`: alerts → Elasticsearch."""

    group: str = "ids-deliver"
    instance: str | None = None
    batch: int = _number(1000, 1)
    """documents in one request, at most"""


@dataclass(frozen=True)
class Ship:
    """`[ship]`: log files → a sensor's topic."""

    group: str = "ids-ship"
    instance: str | None = None
    sensor: str | None = None
    """name of the sensor whose files these are; None: the instance's"""


@dataclass(frozen=True)
class Elasticsearch:
    """`[elasticsearch]`: where it is and who we are to it."""

    url: str = "http://localhost:9200"
    api_key: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    ca_file: Path | None = None
    namespace: str = "default"
    timeout_seconds: float = _number(30.0, 1)

    def __post_init__(self) -> None:
        _check_access(self)


@dataclass(frozen=True)
class Kibana:
    """`[kibana]`: where it is, who we are to it, and where its links lead; None: within Kibana."""

    url: str = "http://localhost:5601"
    """with its base path"""
    space: str = "default"
    api_key: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    ca_file: Path | None = None
    timeout_seconds: float = _number(60.0, 1)
    packets_url: str | None = None
    """of a community id; `{{value}}` stands for it"""
    flow_url: str | None = None
    """of a Zeek uid"""
    model_url: str | None = None
    """of a bundle's id"""
    budget: float = _number(20.0, 0)
    """alerts a day that the analysts can look at"""

    def __post_init__(self) -> None:
        _check_access(self)
        if not re.fullmatch(r"[a-z0-9_-]+", self.space):
            raise ConfigError(
                f"space is the identifier of one, not {self.space!r}",
                hint="small letters, digits, - and _",
            )
        for name in ("packets_url", "flow_url", "model_url"):
            if "{{value}}" not in (getattr(self, name) or "{{value}}"):
                raise ConfigError(
                    f"{name} has no {{{{value}}}} in it", hint="it is put where the value belongs"
                )


def _check_access(access: Elasticsearch | Kibana) -> None:
    """
    Raises:
        ConfigError: it isn't an address, or we would be two at once.
    """
    if urlsplit(access.url).scheme not in ("http", "https"):
        raise ConfigError("url is no http or https address")
    if "@" in urlsplit(access.url).netloc:
        raise ConfigError(
            "url holds a user or a password", hint="they belong into username and password_file"
        )
    if access.api_key and (access.username or access.password):
        raise ConfigError("either an API key or username and password")
    if bool(access.username) != bool(access.password):
        raise ConfigError("username and password belong together")


@dataclass(frozen=True)
class Health:
    """`[health]`: where /metrics, /healthz and /readyz are served."""

    host: str = "127.0.0.1"
    port: int = _number(0, 0, 65_535)
    """0: nowhere"""


@dataclass(frozen=True)
class Config:
    """All settings."""

    kafka: Kafka = field(default_factory=Kafka)
    topics: Topics = field(default_factory=Topics)
    normalise: Normalise = field(default_factory=Normalise)
    detect: Detect = field(default_factory=Detect)
    deliver: Deliver = field(default_factory=Deliver)
    ship: Ship = field(default_factory=Ship)
    elasticsearch: Elasticsearch = field(default_factory=Elasticsearch)
    kibana: Kibana = field(default_factory=Kibana)
    health: Health = field(default_factory=Health)

    def secrets(self) -> Iterator[str]:
        """Every secret there is, for whoever has to keep them out of sight."""
        for section in fields(self):
            values = getattr(self, section.name)
            for setting in fields(values):
                value = getattr(values, setting.name)
                if isinstance(value, Secret):
                    yield value.reveal()


@dataclass(frozen=True)
class _Value:
    """A setting as it was written, and where."""

    value: Any
    place: str


def load(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Settings of a TOML file and the environment; of the environment alone without a file.

    Raises:
        ConfigError: a file can't be read, a key or a section isn't known, a value isn't what it has
            to be.
    """
    sections = get_type_hints(Config)
    written = _from_file(path, sections) if path is not None else {}
    for (section, key), value in _from_environment(environment, sections).items():
        values = written.setdefault(section, {})
        values.pop(key.removesuffix(FILE) if key.endswith(FILE) else key + FILE, None)
        values[key] = value
    where = str(path) if path else "environment"
    return Config(
        **{
            name: _section(kind, f"{where}: [{name}]", written.get(name, {}))
            for name, kind in sections.items()
        }
    )


def _from_file(path: Path, sections: Mapping[str, type]) -> dict[str, dict[str, _Value]]:
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"can't be read: {(error.strerror or str(error)).lower()}", location=str(path)
        ) from error
    except ValueError as error:
        raise ConfigError(f"is no TOML: {error}", location=str(path)) from error
    written: dict[str, dict[str, _Value]] = {}
    for name, values in document.items():
        place = _place(path, text, name)
        if name not in sections:
            raise _unknown("section", f"[{name}]", name, sections, place)
        if not isinstance(values, dict):
            raise ConfigError(f"{name} is a section: [{name}]", location=place)
        keys = _keys(sections[name])
        for key in values:
            if key not in keys:
                raise _unknown("key", f"{name}.{key}", key, keys, _place(path, text, name, key))
        written[name] = {
            key: _Value(value, _place(path, text, name, key)) for key, value in values.items()
        }
    return written


def _from_environment(
    environment: Mapping[str, str], sections: Mapping[str, type]
) -> dict[tuple[str, str], _Value]:
    written = {}
    for variable, value in sorted(environment.items()):
        name, _, key = variable.removeprefix(PREFIX).lower().partition("_")
        if not variable.startswith(PREFIX) or not key:
            continue
        if name not in sections:
            if get_close_matches(name, sections, cutoff=0.75):
                raise _unknown("section", variable, name, sections, "environment")
            continue
        if key not in _keys(sections[name]):
            raise _unknown(
                "variable",
                variable,
                key,
                _keys(sections[name]),
                "environment",
                f"{PREFIX}{name.upper()}_",
            )
        written[name, key] = _Value(value, variable)
    return written


def _unknown(
    what: str, shown: str, name: str, known: Mapping[str, Any], place: str, prefix: str = ""
) -> ConfigError:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    proposed = f"{prefix}{near[0]}" if near else ""
    hint = (
        f"did you mean {proposed.upper() if prefix else proposed}?"
        if near
        else f"there are: {', '.join(known)}"
    )
    return ConfigError(f"no {what} is called {shown}", location=place, hint=hint)


def _keys(section: type) -> dict[str, Any]:
    """Key → its type, of the files that hold secrets too."""
    keys: dict[str, Any] = {}
    for name, kind in get_type_hints(section).items():
        keys[name] = kind
        if Secret in get_args(kind):
            keys[name + FILE] = Path
    return keys


def _section(kind: type, place: str, written: Mapping[str, _Value]) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for setting in fields(kind):
        if Secret in get_args(hints[setting.name]):
            secret_value = _secret(setting.name, written)
            if secret_value is not None:
                values[setting.name] = secret_value
        elif setting.name in written:
            values[setting.name] = _value(setting, hints[setting.name], written[setting.name])
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(error.message, location=place, hint=error.hint) from None


def _secret(name: str, written: Mapping[str, _Value]) -> Secret | None:
    plain, file = written.get(name), written.get(name + FILE)
    if plain and file:
        raise ConfigError(f"either {name} or {name}{FILE}", location=file.place)
    if plain:
        if not isinstance(plain.value, str):
            raise ConfigError(f"{name} has to be a text", location=plain.place)
        return Secret(plain.value)
    if not file:
        return None
    return secret(Path(str(file.value)), file.place)


def secret(path: Path, place: str) -> Secret:
    """What a file holds, without the white space around it; `place` is where the file is named.

    Raises:
        ConfigError: it can't be read, or is empty.
    """
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: the secret can't be read: {_why_unreadable(error)}", location=place
        ) from None
    if not text:
        raise ConfigError(f"{path}: the file of the secret is empty", location=place)
    return Secret(text)


def read_text(path: Path | str, what: str) -> str:
    """The UTF-8 text of a file that a setting or an option names; `what` the file is, for messages.

    Raises:
        ConfigError: the file can't be read, or isn't UTF-8.
    """
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{what} can't be read: {_why_unreadable(error)}", location=str(path)
        ) from error


def read_bytes(path: Path | str, what: str) -> bytes:
    """The bytes of a file that a setting or an option names; `what` the file is, for messages.

    Raises:
        ConfigError: the file can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{what} can't be read: {_why_unreadable(error)}", location=str(path)
        ) from error


def _why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    return (error.strerror or str(error)).lower()


def _value(setting: Field[Any], kind: Any, written: _Value) -> Any:
    """A value as its field wants it.

    Raises:
        ConfigError: it is something else.
    """
    value, name = written.value, setting.name
    kind = _bare(kind)
    if get_origin(kind) is Literal:
        return _choice(name, get_args(kind), written)
    wanted, convert = _KINDS[kind]
    try:
        converted = convert(value)
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(
            f"{name} has to be {wanted}, not {value!r}", location=written.place
        ) from None
    least, most = setting.metadata.get("least"), setting.metadata.get("most")
    if least is not None and not least <= converted <= most:
        bounds = (
            f"at least {least:g}" if most == float("inf") else f"between {least:g} and {most:g}"
        )
        raise ConfigError(f"{name} has to be {bounds}, not {value}", location=written.place)
    return converted


def _bare(kind: Any) -> Any:
    """A type without its `| None`."""
    return (
        next(member for member in get_args(kind) if member is not NoneType)
        if NoneType in get_args(kind)
        else kind
    )


def _choice(name: str, choices: tuple[str, ...], written: _Value) -> str:
    if written.value in choices:
        return str(written.value)
    near = get_close_matches(str(written.value).upper(), choices, n=1)
    hint = f"did you mean {near[0]}?" if near else None
    message = f"{name} has to be one of {', '.join(choices)}, not {written.value}"
    raise ConfigError(message, location=written.place, hint=hint)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _path(value: Any) -> Path:
    return Path(_text(value))


def _integer(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    return float(value)


def _truth(value: Any) -> bool:
    truth = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
    if truth is None:
        raise ValueError
    return truth


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(_text(part) for part in value)


def _table(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        value = dict(_pair(part) for part in _texts(value))
    return {_text(key): _text(name) for key, name in value.items()}


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError
    return key.strip(), value.strip()


_KINDS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("a text", _text),
    Path: ("a path", _path),
    int: ("a whole number", _integer),
    float: ("a number", _float),
    bool: ("true or false", _truth),
    tuple[str, ...]: ("a list of texts", _texts),
    Mapping[str, str]: ("a table of texts", _table),
}
"""kind of setting → how it is called, and how it is made of what is written"""


def _place(path: Path, text: str, section: str, key: str | None = None) -> str:
    """`file:line` of a section or of a key in it; the file alone where the line isn't written in
    the usual way."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w-]+)", line)
        if header:
            inside = header[1] == section
        match = (
            re.match(rf"\s*{re.escape(key)}\s*=", line)
            if key and inside
            else header
            if inside
            else None
        )
        if match or re.match(rf"\s*{re.escape(section)}\.?{re.escape(key or '')}\s*=", line):
            return f"{path}:{number}"
    return str(path)
