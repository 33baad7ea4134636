"""Runs a scenario: builds the world, records the bridge, lets everybody act, writes capture, labels
and facts."""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from tests.lab import behaviours, labels, network, world
from tests.lab.behaviours import benign
from tests.lab.network import Host
from tests.lab.stage import Stage

SCENARIOS = Path(__file__).parent / "scenarios"
PACKAGES = {
    **{
        name: name
        for name in (
            "tcpdump",
            "mosquitto",
            "dnsmasq",
            "vsftpd",
            "nmap",
            "hydra",
            "hping3",
            "masscan",
        )
    },
    **{
        name: name
        for name in ("ncrack", "medusa", "iodine", "iperf3", "sshpass", "curl", "openssl", "lftp")
    },
    "nginx": "nginx-light",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "mosquitto_passwd": "mosquitto",
}
"""Programs and the Debian package each is in."""


@dataclass(frozen=True)
class Scenario:
    """A scenario file."""

    name: str
    duration: float
    busy: object = 1.0
    """factor on the waiting times of everyday traffic"""
    weight: float = 1.0
    """factor on the sizes of web pages"""
    snaplen: int = 200
    """bytes kept of a packet: headers and the beginning of names; its true length is kept too"""
    hosts: dict[str, object] = field(default_factory=dict)
    cast: dict[str, object] = field(default_factory=dict)
    activity: list[dict[str, object]] = field(default_factory=list)


def load(name: str) -> Scenario:
    """Reads scenarios/NAME.toml or a path; FileNotFoundError, ValueError or TypeError when it isn't
    one."""
    path = Path(name) if name.endswith(".toml") else SCENARIOS / f"{name}.toml"
    scenario = Scenario(path.stem, **tomllib.loads(path.read_text()))
    for entry in scenario.activity:
        behaviours.find(str(entry["run"]))
    return scenario


def missing() -> dict[str, str]:
    """Programs that aren't there, and the package each is in."""
    found = partial(shutil.which, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin")
    return {program: package for program, package in PACKAGES.items() if not found(program)}


def run(scenario: Scenario, seed: int, out: Path, say: Callable[[str], None]) -> dict[str, object]:
    """Runs a scenario to its end and writes capture.pcap, labels.jsonl and scenario.json into
    `out`.

    Gives what scenario.json says. Whatever happens, programs are ended and namespaces removed.
    """
    clean()
    out.mkdir(parents=True, exist_ok=True)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix=f"lab{os.getpid()}-"))
    rng = random.Random(f"{scenario.name}:{seed}:network")
    try:
        with network.Network(world.subnet(rng)) as net:
            stage = Stage(
                net, scenario.name, seed, folder, scenario.duration, weight=scenario.weight
            )
            busy = world.draw(scenario.busy, rng)
            assert isinstance(busy, int | float), "busy: a number is wanted"
            stage.busy = float(busy)
            try:
                world.build(stage, scenario.hosts)
                return _record(stage, scenario, out, say)
            finally:
                stage.finish()
    finally:
        signal.signal(signal.SIGTERM, previous)
        shutil.rmtree(folder, ignore_errors=True)


def clean() -> list[str]:
    """Removes namespaces and scratch folders of runs that were killed; their names."""
    folders = [path for path in Path(tempfile.gettempdir()).glob("lab*-*") if _is_left(path.name)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return [*network.sweep(), *map(str, folders)]


def _is_left(name: str) -> bool:
    found = re.match(r"lab(\d+)-", name)
    return found is not None and not Path("/proc", found[1]).exists()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _record(
    stage: Stage, scenario: Scenario, out: Path, say: Callable[[str], None]
) -> dict[str, object]:
    command = [
        "ip",
        "netns",
        "exec",
        stage.network.switch,
        "tcpdump",
        "-i",
        "br0",
        "-n",
        "-Z",
        "root",
    ]
    command += ["-s", str(scenario.snaplen), "-B", "16384", "-w", str(out / "capture.pcap")]
    time.sleep(1.5)
    recorder = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        time.sleep(0.7)
        begin = time.time()
        say(
            f"{scenario.name} seed {seed_text(stage)}: {len(stage.network.hosts)} hosts, "
            f"{scenario.duration:.0f} s"
        )
        _act(stage, scenario)
        while time.time() < begin + scenario.duration:
            time.sleep(0.2)
        stage.finish()
        time.sleep(1.0)
    finally:
        recorder.send_signal(signal.SIGINT)
        _, seen = recorder.communicate(timeout=20)
    labels.write(out / "labels.jsonl", stage.activities)
    facts = _facts(stage, scenario, begin, seen)
    (out / "scenario.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def seed_text(stage: Stage) -> str:
    """The seed and the local network, for messages."""
    return f"{stage.seed} in {stage.network.subnet}"


def _act(stage: Stage, scenario: Scenario) -> None:
    for host in list(stage.network.hosts):
        for name in benign.DAILY.get(host.role, ()):
            _start(stage, host, f"benign.{name}", {}, 0.0, stage.rng(host.name, name))
    cast = {
        name: _pick(stage, roles, stage.rng("cast", name), {})
        for name, roles in scenario.cast.items()
    }
    for number, entry in enumerate(scenario.activity):
        rng = stage.rng("activity", number)
        plan = dict(entry)
        chance = plan.pop("chance", 1.0)
        assert isinstance(chance, int | float), "chance: a number is wanted"
        if rng.random() >= chance:
            continue
        name, host = str(plan.pop("run")), _pick(stage, plan.pop("by"), rng, cast)
        share = world.draw(plan.pop("at", [0.0, 0.8]), rng)
        assert isinstance(share, int | float), "at: a share of the duration is wanted"
        options = {key: world.draw(value, rng) for key, value in plan.items()}
        _start(stage, host, name, options, share * scenario.duration, rng)


def _pick(stage: Stage, roles: object, rng: random.Random, cast: dict[str, Host]) -> Host:
    """The host of the cast with that name, or one of a role drawn from the list."""
    role = rng.choice(roles) if isinstance(roles, list) else roles
    if role in cast:
        return cast[str(role)]
    candidates = stage.role(str(role))
    if not candidates:
        raise ValueError(f"nobody plays {role!r}: it is neither in [cast] nor a role")
    return rng.choice(candidates)


def _start(
    stage: Stage,
    host: Host,
    name: str,
    options: dict[str, object],
    after: float,
    rng: random.Random,
) -> None:
    behaviour = behaviours.find(name)

    def work() -> None:
        stage.sleep(after)
        behaviour(stage, host, rng, **options)

    stage.start(host, work, f"{name} by {host.name}")


def _facts(stage: Stage, scenario: Scenario, begin: float, seen: str) -> dict[str, object]:
    packages = sorted(set(PACKAGES.values()))
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages]
    lines: Sequence[str] = subprocess.run(
        query, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    return {
        "scenario": scenario.name,
        "seed": stage.seed,
        "begin": begin,
        "duration": scenario.duration,
        "local_nets": [str(stage.network.subnet), stage.annex],
        "hosts": {host.name: host.address for host in stage.network.hosts},
        "tcpdump": [line.strip() for line in seen.splitlines() if "packets" in line],
        "failures": stage.failures,
        "notes": stage.notes,
        "versions": {
            "python": platform.python_version(),
            **dict(line.split(" ", 1) for line in lines if " " in line),
        },
        "kernel": platform.release(),
        "threads": threading.active_count(),
    }
