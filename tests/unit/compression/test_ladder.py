"""tiny_cnn's ladder: five rungs, each measured on runs held out; --fit picks one that a device
holds, as a C header."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ids_plugin import cli
from ids_plugin.bundle import Bundle, pack, read
from ids_plugin.compression.tiny.c_header import header
from ids_plugin.compression.tiny.cluster import shared
from ids_plugin.compression.tiny.fit import DeviceMemory, fit, rungs_of
from ids_plugin.compression.tiny.integer_network import (
    CENTROIDS,
    biggest_sum,
    classify,
    constants,
    scores,
)
from ids_plugin.compression.tiny.ladder import ladder, network_of
from ids_plugin.errors import UsageError
from ids_plugin.training.tiny import Options, load, train
from tests.support import uniflows
from tests.unit.compression.test_c_header import in_c

JUDGE = Path(__file__).parents[2] / "lab" / "uniflow" / "judge"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uniflows.runs(tmp_path_factory.mktemp("uniflow") / "runs", rows=300)


@pytest.fixture(scope="module")
def trained(folder: Path) -> Bundle:
    return train(Options((f"uniflow:{folder}",), epochs=6))


@pytest.fixture(scope="module")
def made(trained: Bundle, folder: Path) -> Bundle:
    return ladder(trained, [f"uniflow:{folder}"])


@pytest.mark.slow
def test_rungs_shrink_and_each_computes_the_same_in_c(
    made: Bundle, folder: Path, tmp_path: Path
) -> None:
    rungs = made.manifest.members
    assert [rung.name for rung in rungs] == [
        "original", "original_int8", "pre_optimised", "optimised", "optimised_int8"
    ]  # fmt: skip
    counts = np.concatenate([run.counts for run in load([f"uniflow:{folder}", f"uniflow:{JUDGE}"])])
    for rung in rungs:
        network, place = network_of(made, rung), tmp_path / rung.name
        place.mkdir()
        said, found = in_c(network, counts, place)
        assert np.array_equal(found, scores(network, counts))
        assert np.array_equal(said, classify(network, counts))
        assert (
            made.file(f"{rung.name}.h").decode().partition("\n")[2]
            == header(network, "").partition("\n")[2]
        )
        assert rung.flash is not None
        assert rung.accuracy is not None
        assert rung.document["bytes"] == constants(network) < rung.flash
        assert 0 <= rung.accuracy <= 1
        assert not network.whole or biggest_sum(network) < 2**31
    small = network_of(made, rungs[-1])
    assert small.shared
    assert all((layer.weight == 0).mean() >= 0.5 for layer in small.layers)
    assert rungs[-1].document["bytes"] < 600 < rungs[0].document["bytes"] == 4 * 26_365


@pytest.mark.slow
def test_steps_are_measured_alone_and_together_and_it_repeats(
    made: Bundle, trained: Bundle, folder: Path
) -> None:
    steps = {row["step"]: row for row in made.manifest.compression}
    assert steps.keys() == {
        "fp32",
        "pruned",
        "clustered",
        "int8",
        "pruned, clustered",
        "pruned, clustered, int8",
    }
    assert (
        steps["pruned, clustered, int8"]["bytes"] < steps["int8"]["bytes"] < steps["fp32"]["bytes"]
    )
    assert pack(ladder(trained, [f"uniflow:{folder}"])) == pack(made)


def test_zero_is_a_centroid_and_zeros_stay() -> None:
    weight = np.random.default_rng(1).normal(size=(20, 24))
    weight[:, ::2] = 0
    centroids, index = shared(weight)
    assert (len(centroids), centroids[0]) == (CENTROIDS, 0)
    assert (index[:, ::2] == 0).all()
    assert np.abs(centroids[index] - weight).max() < 0.5


def test_the_most_accurate_rung_that_fits_is_picked(made: Bundle) -> None:
    rungs = {rung.entry.name: rung for rung in rungs_of(made)}
    for text in ("flash=32k,ram=2k", "flash=4k,ram=512", "flash=1m,ram=520k"):
        room = DeviceMemory.parse(text)
        picked = fit(made, room)
        (member,), device = picked.manifest.members, picked.manifest.device
        fits = [
            rung for rung in rungs.values() if rung.flash <= room.flash and rung.ram <= room.ram
        ]
        assert rungs[member.name].accuracy == max(rung.accuracy for rung in fits)
        assert device is not None
        too_large = {rung.name for rung in device.too_large}
        assert too_large == rungs.keys() - {rung.entry.name for rung in fits}
        assert set(picked.files) == {member.file, "ids_model.h"}
        assert b"int ids_classify" in picked.file("ids_model.h")
        assert scores(network_of(picked, member), np.ones((1, 16), np.int64)).shape == (1, 5)


def test_nothing_fits_says_what_the_smallest_needs(made: Bundle) -> None:
    least = min(rungs_of(made), key=lambda rung: rung.flash)
    with pytest.raises(
        UsageError, match=f"{least.entry.name} needs {least.flash:,} bytes of flash"
    ):
        fit(made, DeviceMemory.parse("flash=1k,ram=2k"))


@pytest.mark.parametrize(
    "text", ["", "32k", "flash=32k", "flash=32k,ram=x", "flash=1k,flash=2k", "rom=1k,ram=1k"]
)
def test_a_device_is_described_by_flash_and_ram(text: str) -> None:
    with pytest.raises(UsageError, match=r"device holds|missing in"):
        DeviceMemory.parse(text)
    assert DeviceMemory.parse("ram=2kB, flash=1.5M") == DeviceMemory(1_572_864, 2_048)


def test_the_command_line_trains_compresses_fits_and_shows(
    trained: Bundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", f"uniflow:{folder}"]
    tiny, small = str(tmp_path / "tiny"), str(tmp_path / "small")
    assert (
        cli.main(
            ["train", "--family", "tiny_cnn", *data, "--epochs", "6", "--out", tiny, "--quiet"]
        )
        == 0
    )
    assert read(Path(tiny)).id == trained.id
    record = tmp_path / "record.json"
    asked = ["--fit", "flash=32k,ram=2k", "--out", small, "--json", "--record", str(record)]
    assert cli.main(["compress", tiny, *data, *asked]) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads(record.read_text())["device"] == told["device"]
    assert told["device"]["picked"] == told["rungs"][0]["name"]
    for action in ("show", "verify"):
        assert cli.main(["bundle", action, small]) == 0
    assert "ids_model.h" in capsys.readouterr().out
    assert cli.main(["compress", small, "--fit", "flash=10,ram=10", "--out", tiny]) == 2
    assert cli.main(["compress", "default", "--fit", "flash=32k,ram=2k", "--out", tiny]) == 2
    assert cli.main(["scan", "tests/lab/sample/capture.pcap.gz", "--bundle", small]) == 2
    assert "microcontrollers" in capsys.readouterr().err


def test_other_data_than_it_was_made_with_is_refused(trained: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="isn't among the data"):
        ladder(trained, [f"uniflow:{uniflows.runs(tmp_path, rows=50)}"])
