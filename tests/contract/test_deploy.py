"""docker-compose.yml, the image, and the systemd units: whatever they refer to exists. No engine
runs here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from consumers import cli as consumers_cli
from ids_plugin import cli, config
from ids_plugin.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
COMPOSE, EXAMPLE, DOCKERFILE = (
    ROOT / "docker-compose.yml",
    ROOT / ".env.example",
    ROOT / "consumers/Dockerfile",
)
UNITS = sorted((ROOT / "consumers/systemd").glob("*.service"))
OURS = "ids-plugin:"
MADE_BY_DOCKER = "./captures/"
"""folders on the host that Docker makes where they aren't there"""
each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)


def parse(program: str, words: list[str]) -> None:
    """Fails where a command line of ours can't be typed so."""
    known = cli.PROGRAM if program == "ids-plugin" else consumers_cli.PROGRAM
    assert _parser(known, words).parse_args(words)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return found


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """.env.example with everything in it that has to be filled in."""
    path = tmp_path / "env"
    path.write_text(
        re.sub(
            r"(PASSWORD|KEY)=$",
            r"\1=0123456789abcdef0123456789abcdef",
            EXAMPLE.read_text(),
            flags=re.M,
        )
    )
    return path


def test_compose_fits_its_specification() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run(
        [str(checker), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    "profile", ["zeek-live", "zeek-captures", "suricata-live", "suricata-captures"]
)
def test_docker_compose_takes_it(environment: Path, profile: str) -> None:
    if not shutil.which("docker-compose"):
        pytest.skip("needs docker-compose: apt-get install docker-compose")
    command = [
        "docker-compose",
        "-f",
        str(COMPOSE),
        "--env-file",
        str(environment),
        "--profile",
        profile,
        "config",
        "-q",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_variables_are_those_of_the_example() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text()))
    explained = set(re.findall(r"^(\w+)=", EXAMPLE.read_text(), flags=re.M))
    assert used | {"COMPOSE_PROFILES"} == explained
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_services_depend_on_services(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in services, name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"
            if condition["condition"] == "service_completed_successfully":
                assert services[other]["restart"] == "no", f"{name} waits for the end of {other}"


def test_volumes_and_paths_exist(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    named = set()
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if not source.startswith("."):
                named.add(source)
            elif not source.startswith(MADE_BY_DOCKER):
                assert (ROOT / source).exists(), source
        for network in service.get("networks", ()):
            assert network in compose["networks"]
        if "build" in service:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert named == set(compose["volumes"])


def test_scripts_read_no_folder_that_isnt_mounted(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        words = [*_words(service.get("entrypoint")), *_words(service.get("command"))]
        mounted = {volume.split(":")[1] for volume in service.get("volumes", ())}
        for word in words:
            if word.startswith(("/ids-plugin/", "/logs", "/captures", "/var/lib/ids-plugin")):
                assert any(word == path or word.startswith(f"{path}/") for path in mounted), (
                    f"{name}: {word}"
                )


def test_every_service_is_pinned_and_limited(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+", service["image"]), name
        for limit in ("mem_limit", "cpus", "pids_limit", "logging", "restart"):
            assert limit in service, f"{name}: {limit}"
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name


def test_ours_have_no_privileges(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if service["image"].startswith(OURS):
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"]
            assert "no-new-privileges:true" in service["security_opt"]
            assert "cap_add" not in service


def test_our_commands_can_be_typed(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if not service["image"].startswith(OURS):
            continue
        if "entrypoint" not in service:
            parse("ids-consumer", service["command"])
        elif name in ("setup", "dashboards"):
            lines = [line.strip() for line in service["command"][0].split(";")]
            for line in (shlex.split(line) for line in lines if line.startswith("ids-plugin")):
                parse("ids-plugin", line[1:])


def test_the_consumers_settings_are_settings(services: dict[str, dict[str, Any]]) -> None:
    for verb in ("normalise", "detect", "deliver"):
        given = {
            key: re.sub(r"\$\{\w+(:-|:\?)?.*\}", "x", value)
            for key, value in services[verb]["environment"].items()
        }
        found = config.load(None, given | {"IDS_DETECT_LOCAL_NETS": ""})
        assert found.kafka.bootstrap == ("kafka:9092",)
        assert set(found.normalise.topics) == set(found.normalise.sensors)


def test_sensors_write_to_topics_that_are_read(services: dict[str, dict[str, Any]]) -> None:
    read = services["normalise"]["environment"]["IDS_NORMALISE_TOPICS"].split(",")
    ships = [service["command"] for name, service in services.items() if name.startswith("ship-")]
    assert {command[command.index("--topic") + 1] for command in ships} == set(read)


def _words(value: str | list[str] | None) -> list[str]:
    return shlex.split(value) if isinstance(value, str) else list(value or ())


def stages() -> list[list[str]]:
    """The Dockerfile's instructions, stage by stage, each on one line."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    starts = [at for at, line in enumerate(lines) if line.startswith("FROM")] + [len(lines)]
    return [lines[one:other] for one, other in pairwise(starts)]


def test_the_image_is_small_and_powerless() -> None:
    build, final = stages()
    assert all(re.match(r"FROM [\w./-]+:\d+\.\d+\.\d+-\S+", stage[0]) for stage in (build, final))
    users = [line for line in final if line.startswith("USER")]
    assert users
    assert not re.search(r"\b(root|0)\b", users[-1])
    assert 'ENTRYPOINT ["ids-consumer"]' in final
    assert any(line.startswith("HEALTHCHECK") for line in final)
    assert not any(line.startswith("RUN pip") for line in final)


def test_the_image_is_made_of_what_there_is() -> None:
    taken = {path for line in stages()[0] if line.startswith("COPY") for path in line.split()[1:-1]}
    assert all((ROOT / path).exists() for path in taken)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == taken
    project = (ROOT / "pyproject.toml").read_text()
    extras = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE.read_text())[0].split(",")
    assert all(re.search(rf"^{extra} = ", project, flags=re.M) for extra in extras)


@each_unit
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    installed = tmp_path / unit.name
    command = str(Path(sys.executable).with_name("ids-consumer"))
    installed.write_text(unit.read_text().replace("/opt/ids-plugin/bin/ids-consumer", command))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@each_unit
def test_systemd_calls_the_unit_safe(unit: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:]


@each_unit
def test_the_unit_starts_what_there_is(unit: Path) -> None:
    text = unit.read_text()
    words = shlex.split(re.findall(r"^ExecStart=(.*)$", text, flags=re.M)[0])
    assert Path(words[0]).name == "ids-consumer"
    parse("ids-consumer", words[1:])
    given = dict(re.findall(r"^Environment=(IDS_\w+)=(\S+)$", text, flags=re.M))
    config.load(None, given)
    verb = words[1]
    if "@" in unit.name:
        assert given[f"IDS_{verb.upper()}_INSTANCE"] == "%H-%i"


def test_there_is_a_unit_for_every_process() -> None:
    assert {re.split(r"[@.]", path.name)[0] for path in UNITS} == {
        "ids-normalise",
        "ids-detect",
        "ids-deliver",
        "ids-ship",
    }
