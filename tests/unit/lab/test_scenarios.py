"""The scenario files: every behaviour exists, every option is one of its, drawing is repeatable."""

from __future__ import annotations

import inspect
import ipaddress
import random

import pytest

from tests.lab import behaviours, runner, wires, world

NAMES = sorted(path.stem for path in runner.SCENARIOS.glob("*.toml"))
PLAN = {"run", "by", "at", "chance"}
ROLES = {
    "resolver",
    "broker",
    "server",
    "nas",
    "recorder",
    "exposed",
    "internet",
    "outside",
    *world.COUNTS,
}


@pytest.mark.parametrize("name", NAMES)
def test_behaviours_take_the_options_they_are_given(name: str) -> None:
    for entry in runner.load(name).activity:
        takes = inspect.signature(behaviours.find(str(entry["run"]))).parameters
        assert entry.keys() - PLAN <= takes.keys(), f"{name}: {entry}"


@pytest.mark.parametrize("name", NAMES)
def test_a_range_goes_upwards_and_ports_are_no_range(name: str) -> None:
    for entry in runner.load(name).activity:
        for key, value in entry.items():
            if (
                isinstance(value, list)
                and len(value) == 2
                and all(type(one) in {int, float} for one in value)
            ):
                assert value[0] <= value[1], f"{name}: {entry}"
                assert key != "port", f"{name}: {entry}"


@pytest.mark.parametrize("name", NAMES)
def test_somebody_plays_every_part(name: str) -> None:
    scenario = runner.load(name)
    for entry in scenario.activity:
        by = entry["by"] if isinstance(entry["by"], list) else [entry["by"]]
        assert set(by) <= ROLES | scenario.cast.keys(), f"{name}: {entry}"


@pytest.mark.parametrize(
    ("judging", "training"), [("judge", ("train",)), ("mqtt-judge", ("mqtt-a", "mqtt-b", "mqtt-c"))]
)
def test_judging_scenarios_use_tools_that_training_never_shows(
    judging: str, training: tuple[str, ...]
) -> None:
    def attacks(*prefix: str) -> set[str]:
        found = {
            str(entry["run"])
            for name in NAMES
            if name.startswith(prefix)
            for entry in runner.load(name).activity
        }
        return {run for run in found if not run.startswith(("benign.", "inbound_noise."))}

    assert attacks(judging)
    assert not attacks(judging) & attacks(*training)


def test_every_class_is_in_the_sample_and_in_training() -> None:
    wanted = {
        "scan",
        "brute_force",
        "flood",
        "command_and_control",
        "exfiltration",
        "spreading",
        "inbound_noise",
    }
    for prefix in ("sample", "train"):
        runs = [
            str(entry["run"])
            for name in NAMES
            if name.startswith(prefix)
            for entry in runner.load(name).activity
        ]
        assert wanted <= {run.split(".")[0] for run in runs}


@pytest.mark.parametrize(
    ("value", "lowest", "highest"),
    [([2, 5], 2, 5), ([0.5, 2], 0.5, 2), ([1, 2, 30], 1, 30), (7, 7, 7)],
)
def test_numbers_are_drawn_from_their_range(value: object, lowest: float, highest: float) -> None:
    drawn = [world.draw(value, random.Random(seed)) for seed in range(50)]
    assert all(isinstance(one, int | float) and lowest <= one <= highest for one in drawn)
    assert drawn == [world.draw(value, random.Random(seed)) for seed in range(50)]


def test_choices_keep_texts_and_truth_values() -> None:
    assert {world.draw([True, False], random.Random(seed)) for seed in range(20)} == {True, False}
    assert world.draw("-sS", random.Random(1)) == "-sS"


def test_local_networks_are_private_and_the_internet_is_documentation() -> None:
    for seed in range(200):
        assert world.subnet(random.Random(seed)).is_private
    assert all(
        ipaddress.ip_network(net).is_private and not ipaddress.ip_network(net).is_global
        for net in world.OUTSIDE
    )


def test_an_unknown_behaviour_is_refused() -> None:
    for name in ("scan.nothing", "weather.rain", "scan._label"):
        with pytest.raises(ValueError, match="no behaviour"):
            behaviours.find(name)


def test_one_address_is_always_as_far_away() -> None:
    def frame(source: bytes, target: bytes) -> bytes:
        return bytes(12) + b"\x08\0" + bytes(12) + source + target

    there, here = b"\xc0\0\2\7", b"\x0a\0\0\1"
    leaving, arriving = frame(there, here), frame(here, there)
    assert wires.place(leaving, True, 0.1) == wires.place(arriving, False, 0.1)
    assert 0 <= wires.place(leaving, True, 0.1) <= 0.1
    assert wires.place(bytes(60), True, 0.1) == 0
