"""A process of the streaming pipeline: its signals, its health, its log lines, its metrics."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers import cli
from consumers.commands.options import ServiceOptions, load_settings
from consumers.runtime.logs import consumer_logger
from consumers.runtime.metrics import Metrics
from consumers.runtime.service import Service, StopRequested
from ids_plugin import config
from ids_plugin.config import Config, Health
from ids_plugin.errors import ServiceError, UsageError
from tests.services.server import free_port

CONTRACT = {
    "ids_records_total": {"stage", "outcome"},
    "ids_alerts_total": {"severity", "model"},
    "ids_lag_records": {"topic", "partition"},
    "ids_stage_seconds": {"stage"},
    "ids_event_delay_seconds": set(),
    "ids_window_pairs": set(),
    "ids_rejects_total": {"reason"},
    "ids_bundle_info": {"id", "family"},
}
"""what the pipeline is watched by: names and labels"""


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("ids-consumer")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level, own.level = before


def lines(stream: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.splitlines()]


def get(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{page}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def watched() -> Config:
    return Config(health=Health(port=free_port()))


def test_the_metrics_have_their_names_and_labels() -> None:
    metrics = Metrics()
    metrics.records.labels("detect", "scored").inc()
    metrics.bundle.labels("abc", "tcn").set(1)
    labels_of = {}
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels_of[name] = {
            label for sample in family.samples for label in sample.labels if label != "le"
        }
        if not family.samples:
            labels_of[name] = CONTRACT.get(name, set())
    assert CONTRACT.items() <= labels_of.items()


def test_health_says_what_is_missing() -> None:
    with Service("detect", watched()) as service:
        assert get(service.port, "/healthz") == (200, "ok\n")
        assert get(service.port, "/readyz") == (503, "starting\n")
        service.mark_ready()
        assert get(service.port, "/readyz") == (200, "ok\n")
        service.mark_unready(ServiceError("no answer", location="kafka", hint="start it"))
        assert get(service.port, "/readyz") == (503, "kafka: no answer (start it)\n")
        assert get(service.port, "/healthz")[0] == 200
        assert get(service.port, "/")[0] == 404
        status, text = get(service.port, "/metrics")
        assert status == 200
        assert "ids_ready 0.0" in text
    with pytest.raises(urllib.error.URLError):
        get(service.port, "/healthz")


def test_a_loop_that_stands_still_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Service("detect", watched()) as service:
        now = time.monotonic()
        monkeypatch.setattr("consumers.runtime.service.time.monotonic", lambda: now + 301)
        assert get(service.port, "/healthz") == (503, "no turn of the loop for 301 s\n")
        service.heartbeat()
        assert get(service.port, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_told() -> None:
    taken = watched()
    with (
        Service("detect", taken),
        pytest.raises(UsageError, match="can't serve health: address already in use"),
    ):
        Service("deliver", taken).__enter__()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_wait(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with Service("detect", Config()) as service:
        os.kill(os.getpid(), number)
        began = time.monotonic()
        service.wait(30)
        assert service.is_stopping
        assert time.monotonic() - began < 25
    messages = [line["message"] for line in lines(capsys.readouterr().err)]
    assert messages == ["started", f"ended: {signal.Signals(number).name}"]


def test_a_service_that_is_away_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(
        [ServiceError("no answer"), ServiceError("no answer"), ServiceError("refused"), None]
    )

    def connect() -> str:
        answer = next(answers)
        if answer:
            raise answer
        return "connected"

    with Service("deliver", Config()) as service:
        service.wait = lambda seconds: None  # type: ignore[method-assign]
        service.mark_ready()
        assert service.retry(connect) == "connected"
    logged = [(line["log.level"], line["message"]) for line in lines(capsys.readouterr().err)]
    assert logged == [
        ("info", "started"),
        ("info", "working"),
        ("warning", "no answer"),
        ("warning", "refused"),
        ("info", "working again after: refused"),
        ("info", "ended"),
    ]


def test_told_to_stop_it_waits_no_longer() -> None:
    def never() -> None:
        service.stop()
        raise ServiceError("no answer")

    with Service("deliver", Config()) as service:
        service.retry(never)
        pytest.fail("goes on")
    assert service.is_stopping


def test_stopping_is_no_error_and_others_are() -> None:
    with Service("deliver", Config()):
        raise StopRequested
    with pytest.raises(UsageError), Service("deliver", Config()):
        raise UsageError("so not")


def test_lines_are_json_whatever_is_said() -> None:
    stream = io.StringIO()
    log = consumer_logger("detect", stream)
    log.info("it %s", "is", extra={"fields": {"topic": "zeek", "path": Path("/tmp")}})
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("failed")
    logging.getLogger("polars").warning("careful")
    logging.getLogger("elasticsearch").warning("chatter")
    first, second, third = lines(stream.getvalue())
    assert (first["message"], first["topic"], first["path"], first["log.level"]) == (
        "it is",
        "zeek",
        "/tmp",
        "info",
    )
    assert {"@timestamp", "service.name", "ids_plugin.stage"} <= first.keys()
    assert "ValueError" in second["error.stack_trace"]
    assert third["log.logger"] == "polars"


def test_no_line_has_a_secret_in_it() -> None:
    stream = io.StringIO()
    log = consumer_logger("detect", stream, ['wo"rd', "key"])
    log.warning('refused: wo"rd', extra={"fields": {"tried": ["key"]}})
    assert [(line["message"], line["tried"]) for line in lines(stream.getvalue())] == [
        ("refused: ***", ["***"])
    ]


def test_an_instance_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDS_DETECT_GROUP", f"group-{os.getpid()}")
    free = ServiceOptions()
    first, second = (load_settings(free, "detect").detect.instance for _ in range(2))
    assert first
    assert second
    assert (first[-2:], second[-2:]) == ("-1", "-2")
    assert load_settings(ServiceOptions(instance="me"), "detect").detect.instance == "me"
    assert load_settings(free, "ship").ship.instance is None
    monkeypatch.setenv("IDS_DETECT_INSTANCE", "named")
    assert load_settings(free, "detect").detect.instance == "named"


VERBS = cli.VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_complete(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.PROGRAM.load(verb)
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert command.example in shown
    assert command.example.startswith(f"example: ids-consumer {verb}")
    for option in ("--config", "--json", "--quiet", "--debug", "--version"):
        assert option in shown


PLAIN_INSTALL = """
import sys
for package in ("elastic_transport", "elasticsearch", "kafka", "prometheus_client"):
    sys.modules[package] = None
from consumers import cli
sys.exit(cli.main(sys.argv[1:]))
"""
"""`ids-consumer` where none of the extras' packages can be imported"""


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_needs_no_extra(arguments: list[str]) -> None:
    command = [sys.executable, "-c", PLAIN_INSTALL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: ids-consumer" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["normalise"], ["detect"], ["deliver"], ["ship", "a.log", "--topic", "t"]],
    ids=lambda arguments: arguments[0],
)
def test_a_verb_that_runs_names_the_missing_extra(arguments: list[str]) -> None:
    command = [sys.executable, "-c", PLAIN_INSTALL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'ids-plugin[kafka,elastic]'" in done.stderr


def test_the_program_ends_as_the_contract_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids.toml").write_text("[kafka]\nbootstrp = 'a:1'\n")
    assert cli.main(["detect", "--config", str(tmp_path / "ids.toml")]) == 2
    assert "ids-consumer: " in (error_text := capsys.readouterr().err)
    assert "did you mean bootstrap?" in error_text
    with pytest.raises(SystemExit) as stop:
        cli.main(["no-such-verb"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("ids-consumer ")


def test_processes_whose_broker_is_away_wait_and_end_when_told() -> None:
    word = "correct-horse"
    environment = {
        **os.environ,
        "IDS_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "IDS_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "IDS_KAFKA_SASL_MECHANISM": "PLAIN",
        "IDS_KAFKA_SASL_USERNAME": "me",
        "IDS_KAFKA_SASL_PASSWORD": word,
        "IDS_NORMALISE_TOPICS": "zeek",
    }
    program, running = str(Path(sys.executable).with_name("ids-consumer")), {}
    for verb in ("normalise", "detect", "deliver"):
        port = free_port()
        own = environment | {"IDS_HEALTH_PORT": str(port)}
        running[port] = subprocess.Popen(
            [program, verb], env=own, stderr=subprocess.PIPE, text=True
        )
    for port, process in running.items():
        _until_missing(port, "nothing listens there")
        assert get(port, "/healthz")[0] == 200
        process.send_signal(signal.SIGTERM)
    for process in running.values():
        log = process.communicate(timeout=60)[1]
        assert process.returncode == 0
        messages = [line["message"] for line in lines(log)]
        assert messages[-1] == "ended: SIGTERM"
        assert sum("nothing listens there" in message for message in messages) == 1
        assert word not in log


def _until_missing(port: int, what: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError):
            if what in get(port, "/readyz")[1]:
                return
        time.sleep(0.2)
    pytest.fail(f"never missing: {what}")


def test_the_configuration_s_sections_of_processes_have_what_all_need() -> None:
    for section in ("normalise", "detect", "deliver", "ship"):
        assert hasattr(getattr(config.load(None, {}), section), "instance")
