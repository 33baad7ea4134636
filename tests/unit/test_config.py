"""Settings: file, environment, secrets; what is wrong is said with its place and what it should
be."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from ids_plugin.config import Config, Secret, load
from ids_plugin.errors import ConfigError

WORD = "correct-horse"


def written(folder: Path, text: str) -> Path:
    path = folder / "ids.toml"
    path.write_text(text)
    return path


def told(folder: Path, text: str, **environment: str) -> str:
    """What is said of settings that can't be."""
    with pytest.raises(ConfigError) as found:
        load(written(folder, text), environment)
    return str(found.value).replace(f"{folder}/", "")


def test_nothing_has_to_be_set() -> None:
    assert load(None, {}) == Config()


def test_a_file_sets_keys_of_every_kind(tmp_path: Path) -> None:
    text = """
    [kafka]
    bootstrap = ["a:9092", "[::1]:9093"]
    ssl_check_hostname = false
    [normalise]
    topics = ["zeek"]
    sensors = {zeek = "north"}
    batch = 7
    [detect]
    stale_seconds = 5
    allow = "/etc/allow.toml"
    """
    found = load(written(tmp_path, text), {})
    assert found.kafka.bootstrap == ("a:9092", "[::1]:9093")
    assert found.kafka.ssl_check_hostname is False
    assert (found.normalise.sensors, found.normalise.batch) == ({"zeek": "north"}, 7)
    assert (found.detect.stale_seconds, found.detect.allow) == (5.0, Path("/etc/allow.toml"))


def test_the_environment_wins(tmp_path: Path) -> None:
    environment = {
        "IDS_KAFKA_BOOTSTRAP": "a:1, b:2",
        "IDS_KAFKA_SSL_CHECK_HOSTNAME": "false",
        "IDS_NORMALISE_SENSORS": "zeek=north, eve = south",
        "IDS_NORMALISE_BATCH": "9",
        "IDS_DETECT_STALE_SECONDS": "2.5",
        "OTHERS_KAFKA_BOOTSTRAP": "c:3",
    }
    found = load(written(tmp_path, '[kafka]\nbootstrap = "z:1"\n[detect]\nheld = 3\n'), environment)
    assert found.kafka.bootstrap == ("a:1", "b:2")
    assert not found.kafka.ssl_check_hostname
    assert found.normalise.sensors == {"zeek": "north", "eve": "south"}
    assert (found.normalise.batch, found.detect.stale_seconds, found.detect.held) == (9, 2.5, 3)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "[kafka]\nboostrap = 'a:1'",
            "ids.toml:2: no key is called kafka.boostrap (did you mean bootstrap?)",
        ),
        ("[detect]\n\n[kafak]\n", "ids.toml:3: no section is called [kafak] (did you mean kafka?)"),
        ("[health]\nzzz = 1", "ids.toml:2: no key is called health.zzz (there are: host, port)"),
        ("health = 1", "ids.toml:1: health is a section: [health]"),
        ("[health]\nport = 70000", "ids.toml:2: port has to be between 0 and 65535, not 70000"),
        ("[health]\nport = true", "ids.toml:2: port has to be a whole number, not True"),
        ("[normalise]\n\nbatch = 0", "ids.toml:3: batch has to be at least 1, not 0"),
        ("[normalise]\ntopics = [1]", "ids.toml:2: topics has to be a list of texts, not [1]"),
        ("[normalise]\nsensors = 'a'", "ids.toml:2: sensors has to be a table of texts, not 'a'"),
        ("[detect]\nbundle = ''", "ids.toml:2: bundle has to be a text, not ''"),
        (
            "[kafka]\nsecurity_protocol = 'ssl'",
            "ids.toml:2: security_protocol has to be one of PLAINTEXT, SSL, SASL_PLAINTEXT, "
            "SASL_SSL, not ssl "
            "(did you mean SSL?)",
        ),
        ("[kafka]\nbootstrap = ['a']", "ids.toml: [kafka]: bootstrap names 'a', not HOST:PORT"),
        ("[kafka]\nbootstrap = []", "ids.toml: [kafka]: bootstrap names no broker"),
        (
            "[kafka]\nsecurity_protocol = 'SASL_SSL'",
            "ids.toml: [kafka]: SASL_SSL needs sasl_mechanism",
        ),
        (
            "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'PLAIN'",
            "ids.toml: [kafka]: SASL_SSL needs sasl_username and sasl_password",
        ),
        (
            "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'OAUTHBEARER'",
            "ids.toml: [kafka]: SASL_SSL needs sasl_oauth_token_file",
        ),
        (
            "[elasticsearch]\nurl = 'host:9200'",
            "ids.toml: [elasticsearch]: url is no http or https address",
        ),
        (
            "[elasticsearch]\nusername = 'a'",
            "ids.toml: [elasticsearch]: username and password belong together",
        ),
        (
            "[kibana]\nurl = 'https://me:word@host'",
            "ids.toml: [kibana]: url holds a user or a password (they belong into username and "
            "password_file)",
        ),
        (
            "[kibana]\nspace = 'My Team'",
            "ids.toml: [kibana]: space is the identifier of one, not 'My Team' (small letters, "
            "digits, - and _)",
        ),
        (
            "[kibana]\nflow_url = 'https://host/flow'",
            "ids.toml: [kibana]: flow_url has no {{value}} in it (it is put where the value "
            "belongs)",
        ),
        (
            "[elasticsearch]\nusername = 'a'\npassword = 'b'\napi_key = 'c'",
            "ids.toml: [elasticsearch]: either an API key or username and password",
        ),
        (
            "[kafka",
            "ids.toml: is no TOML: Expected ']' at the end of a table declaration (at end of "
            "document)",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, wanted: str) -> None:
    assert told(tmp_path, text) == wanted


def test_a_login_without_sasl_is_refused(tmp_path: Path) -> None:
    assert "sasl_mechanism has no effect" in told(tmp_path, "[kafka]\nsasl_mechanism = 'PLAIN'")


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [
        (
            "IDS_KAFKA_BOTSTRAP",
            "no variable is called IDS_KAFKA_BOTSTRAP (did you mean IDS_KAFKA_BOOTSTRAP?)",
        ),
        ("IDS_DETEKT_BUNDLE", "no section is called IDS_DETEKT_BUNDLE (did you mean detect?)"),
        ("IDS_HEALTH_PORT", "IDS_HEALTH_PORT: port has to be a whole number, not 'x'"),
    ],
)
def test_wrong_variables_are_refused(tmp_path: Path, variable: str, wanted: str) -> None:
    assert wanted in told(tmp_path, "", **{variable: "x"})


def test_variables_of_others_are_theirs() -> None:
    assert load(None, {"IDS_NO_SKIPS": "1", "IDS": "1", "IDS_SERVICES": "/tmp"}) == Config()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml", {})


def test_secrets_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "word").write_text(f"{WORD}\n")
    by_file = written(
        tmp_path, f"[elasticsearch]\nusername = 'a'\npassword_file = '{tmp_path}/word'"
    )
    assert load(by_file, {}).elasticsearch.password == Secret(WORD)
    by_name = {"IDS_ELASTICSEARCH_API_KEY_FILE": str(tmp_path / "word")}
    assert load(None, by_name).elasticsearch.api_key == Secret(WORD)


def test_a_secret_of_the_environment_replaces_the_file_s(tmp_path: Path) -> None:
    by_file = written(tmp_path, "[elasticsearch]\nusername = 'a'\npassword_file = '/nowhere'")
    found = load(by_file, {"IDS_ELASTICSEARCH_PASSWORD": WORD}).elasticsearch.password
    assert found is not None
    assert found.reveal() == WORD


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("password = 'a'\npassword_file = 'b'", "ids.toml:4: either password or password_file"),
        (
            "password_file = '/nowhere/word'",
            "ids.toml:3: /nowhere/word: the secret can't be read: no such file",
        ),
        ("password_file = '/dev/null'", "ids.toml:3: /dev/null: the file of the secret is empty"),
        ("password = 7", "ids.toml:3: password has to be a text"),
    ],
)
def test_secrets_that_cannot_be_had(tmp_path: Path, text: str, wanted: str) -> None:
    assert told(tmp_path, f"[elasticsearch]\nusername = 'a'\n{text}").startswith(wanted)


def test_no_text_of_the_settings_has_a_secret_in_it() -> None:
    environment = {
        "IDS_KAFKA_SASL_PASSWORD": WORD,
        "IDS_KAFKA_SSL_PASSWORD": f"{WORD}-2",
        "IDS_ELASTICSEARCH_API_KEY": f"{WORD}-3",
    }
    found = load(None, environment)
    for text in (
        repr(found),
        str(found),
        f"{found.kafka.sasl_password}",
        repr(vars(found.elasticsearch)),
    ):
        assert WORD not in text
        assert "***" in text
    assert set(found.secrets()) == {WORD, f"{WORD}-2", f"{WORD}-3"}


@pytest.mark.parametrize(
    "environment",
    [
        {"IDS_ELASTICSEARCH_URL": f"https://me:{WORD}@host"},
        {"IDS_ELASTICSEARCH_PASSWORD": WORD},
        {"IDS_KAFKA_SASL_PASSWORD": WORD, "IDS_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
        {"IDS_KAFKA_SASL_PASWORD": WORD},
    ],
)
def test_no_error_has_a_secret_in_it(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as found:
        load(None, environment)
    assert WORD not in str(found.value)


def test_settings_are_frozen() -> None:
    settings: Any = Config()
    with pytest.raises(FrozenInstanceError):
        settings.kafka.bootstrap = ()
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301
