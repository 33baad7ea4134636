"""`ids-consumer detect` on a real broker: its alerts are those of one process that never stops,
whatever happens."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import orjson
import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from consumers.runtime.service import Service
from consumers.stream.checkpoints import CheckpointPointer, PendingCheckpoint, load_state
from consumers.stream.transactions import TransactionalLoop
from ids_plugin import bundle, checkpoint, cli, config
from ids_plugin.errors import CheckpointError
from ids_plugin.kafka import consumer
from ids_plugin.schema.alert import Document
from tests.services import Kafka
from tests.support.detect_harness import DetectHarness, check, expected, pieces
from tests.unit.commands.test_bundle import keys

ALL = len(expected()[0])


def test_alerts_are_those_of_a_scan(kafka: Kafka, tmp_path: Path) -> None:
    with DetectHarness(kafka, tmp_path) as stream:
        for portion in pieces(Random(1), 4):
            stream.send(portion)
        stream.start()
        check(stream, stream.wait(ALL))
        stream.stop()


def test_killed_at_any_moment_it_goes_on_as_if_it_had_never_stopped(
    kafka: Kafka, tmp_path: Path
) -> None:
    chance = Random(2)
    with DetectHarness(kafka, tmp_path, {"IDS_DETECT_SNAPSHOT_SECONDS": "0.1"}) as stream:
        stream.start()
        for portion in pieces(chance, 4):
            before = len(kafka.read(stream.topics["ledger"]))
            stream.send(portion)
            stream.until(lambda before=before: len(kafka.read(stream.topics["ledger"])) > before)  # type: ignore[misc]
            time.sleep(chance.random())
            stream.kill()
            stream.start()
        check(stream, stream.wait(ALL))
        restored = [orjson.loads(line).get("checkpoint") for line in stream.log().splitlines()]
        assert any(restored), "no process started from a checkpoint"


def test_partitions_move_between_instances_and_nothing_else_changes(
    kafka: Kafka, tmp_path: Path
) -> None:
    with DetectHarness(kafka, tmp_path) as stream:
        first, second, third, fourth = pieces(Random(3), 4)
        stream.start("one")
        stream.send(first)
        stream.until(lambda: stream.log("one").count("is ours") >= 3)
        stream.start("two")
        stream.start("three")
        stream.send(second)
        stream.until(lambda: all("is ours" in stream.log(name) for name in ("two", "three")))
        stream.send(third)
        stream.stop("one")
        stream.kill("two")
        stream.send(fourth)
        check(stream, stream.wait(ALL))
        stream.stop("three")


def test_who_lost_its_partitions_without_noticing_can_commit_nothing(
    kafka: Kafka, tmp_path: Path
) -> None:
    with DetectHarness(kafka, tmp_path) as stream:
        first, second = pieces(Random(4), 2)
        zombie = stream.start("one")
        stream.send(first)
        stream.until(lambda: stream.log("one").count("is ours") >= 3)
        zombie.send_signal(signal.SIGSTOP)
        stream.start("two")
        stream.send(second)
        stream.until(lambda: stream.log("two").count("is ours") >= 3)
        zombie.send_signal(signal.SIGCONT)
        check(stream, stream.wait(ALL))


def test_two_processes_of_one_name_do_not_work_side_by_side(kafka: Kafka, tmp_path: Path) -> None:
    with DetectHarness(kafka, tmp_path) as stream:
        first, second = pieces(Random(5), 2)
        older = stream.start("one")
        stream.send(first)
        stream.until(lambda: stream.log("one").count("is ours") >= 3)
        stream.start("one")
        stream.send(second)  # whoever has nothing to commit doesn't notice
        assert older.wait(60) == 2
        assert "another process calls itself one" in stream.log("one")
        check(stream, stream.wait(ALL))


def bundles_of(documents: list[Document]) -> set[str]:
    return {document["ids_plugin"]["bundle"]["version"] for document in documents}


def test_a_bundle_is_swapped_while_running_and_a_broken_one_refused(
    kafka: Kafka, tmp_path: Path
) -> None:
    shipped, inplace = bundle.read(bundle.find("default")), tmp_path / "models"
    bundle.write(shipped, inplace)
    with DetectHarness(kafka, tmp_path, {"IDS_DETECT_BUNDLE": str(inplace)}) as stream:
        first, second, third = pieces(Random(6), 3)
        process = stream.start()
        stream.send(first)
        before = stream.wait(5)
        assert bundles_of(before) == {shipped.version}
        newer = bundle.seal(shipped.manifest.replaced(version="newer"), shipped.files)
        bundle.write(newer, inplace)
        process.send_signal(signal.SIGHUP)
        stream.until(lambda: f"bundle {newer.id[:12]} judges" in stream.log())
        (inplace / bundle.MANIFEST).write_text("{")
        process.send_signal(signal.SIGHUP)
        stream.until(lambda: "is refused" in stream.log())
        stream.send(second)
        stream.until(lambda: bundles_of(stream.alerts()) == {shipped.version, "newer"})
        shutil.rmtree(inplace)
        bundle.write(shipped, inplace)
        process.send_signal(signal.SIGHUP)
        stream.until(lambda: stream.log().count(f"bundle {shipped.id[:12]} judges") == 2)
        stream.send(third)
        after = stream.wait(ALL)
        assert {document["event"]["id"] for document in before} <= {
            document["event"]["id"] for document in after
        }
        assert len({document["event"]["id"] for document in after}) == len(after)


def test_a_bundle_from_kafka_has_to_be_signed(
    kafka: Kafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    private, public = keys(tmp_path, "own")
    strange, _ = keys(tmp_path, "theirs")
    shipped = bundle.read(bundle.find("default"))
    configured, newer, foreign = (
        tmp_path / f"{name}.idsb" for name in ("models", "newer", "foreign")
    )
    bundle.write(bundle.sign(shipped, private.read_bytes()), configured)
    other = bundle.seal(
        shipped.manifest.replaced(version="other"), shipped.files, private.read_bytes()
    )
    bundle.write(other, newer)
    bundle.write(
        bundle.seal(
            shipped.manifest.replaced(version="foreign"), shipped.files, strange.read_bytes()
        ),
        foreign,
    )
    settings = {"IDS_DETECT_BUNDLE": str(configured), "IDS_DETECT_PUBLIC_KEY": str(public)}
    with DetectHarness(kafka, tmp_path, settings) as stream:
        for name, value in stream.environment("pusher").items():
            monkeypatch.setenv(name, value)
        process = stream.start()
        stream.until(lambda: stream.log().count("is ours") >= 3)
        stream.raw("bundles", bundle.pack(bundle.read(foreign)), b"models")
        process.send_signal(signal.SIGHUP)
        stream.until(lambda: "signed with another key" in stream.log())
        assert cli.main(["bundle", "push", str(foreign)]) == 2
        assert cli.main(["bundle", "push", "default"]) == 2
        assert cli.main(["bundle", "push", str(newer), "--json"]) == 0
        assert orjson.loads(capsys.readouterr().out)["name"] == "models"
        process.send_signal(signal.SIGHUP)
        stream.until(lambda: f"bundle {other.id[:12]} judges" in stream.log())
        stream.kill()
        stream.start()
        stream.until(lambda: stream.log().count(f"bundle {other.id[:12]} judges") == 2)
        assert cli.main(["bundle", "push", str(newer), "--withdraw"]) == 0
        stream.until(
            lambda: (
                stream.log().rfind(f"bundle {shipped.id[:12]} judges")
                > stream.log().rfind(other.id[:12])
            )
        )
        assert "is refused" in stream.log()


def test_a_state_larger_than_a_transaction_takes_comes_back(kafka: Kafka, tmp_path: Path) -> None:
    with DetectHarness(kafka, tmp_path) as stream:
        settings = config.load(
            None, {name: text for name, text in stream.environment("a").items() if "IDS_" in name}
        )
        partition, previous = TopicPartition(stream.topics["flows"], 2), CheckpointPointer(0, "")
        for seed in (1, 2):
            state = {"noise": np.random.default_rng(seed).integers(0, 1 << 62, (1 << 20) * 5 // 2)}
            with (
                Service("detect", settings) as service,
                TransactionalLoop(service, stream.group, "a") as loop,
            ):
                loop.consumer.subscribe([partition.topic])
                while not loop.consumer.assignment():
                    loop.poll(100, 1)
                pointer = CheckpointPointer(seed, "", partition=1)
                pending = PendingCheckpoint.build(
                    pointer,
                    previous,
                    stream.topics["state"],
                    partition.partition,
                    checkpoint.dump(state),
                )
                pending.send_excess(loop)
                assert 0 < len(pending.unsent) < len(pending.sent)
                loop.commit(
                    pending.unsent,
                    lambda sent, pending=pending: {
                        partition: OffsetAndMetadata(7, str(pending.final_pointer(sent)), -1)
                    },  # type: ignore[misc]
                )
                committed = CheckpointPointer.parse(
                    loop.consumer.committed(partition, metadata=True).metadata
                )
                loop.leave_group()
            assert committed is not None
            with consumer(settings) as reader:
                loaded = load_state(reader, stream.topics["state"], committed, partition.partition)
                np.testing.assert_array_equal(loaded["noise"], state["noise"])
                with pytest.raises(CheckpointError, match="isn't there"):
                    load_state(
                        reader,
                        stream.topics["state"],
                        replace(committed, last=committed.last - 1),
                        partition.partition,
                    )
            assert committed.slot == 1 - previous.slot
            previous = committed


def test_a_damaged_message_becomes_a_reject_and_the_rest_goes_on(
    kafka: Kafka, tmp_path: Path
) -> None:
    with DetectHarness(kafka, tmp_path, partitions=1) as stream:
        stream.raw("flows", b"no flows", b"branch", [("kind", b"flows"), ("sensor", b"branch")])
        stream.raw("flows", None, b"nobody")
        for portion in pieces(Random(7), 1):
            stream.send(portion)
        stream.start()
        check(stream, stream.wait(ALL))
        rejects = [orjson.loads(record.value) for record in kafka.read(stream.topics["rejects"])]
        assert [(reject["offset"], reject["reason"]) for reject in rejects] == [
            (0, "bad_message"),
            (1, "bad_message"),
        ]
        assert rejects[0]["place"] == "partition 0 offset 0"
