"""Bench `soak`: faults on the wire, and nothing lost, nothing twice.

    python -m tests.bench.soak [--json] [--records 1000000 | --long] [--seed 1] [--pace 30] [--outage 60]

Eight sensors are replayed onto a broker of its own while consumers are killed in turn, the broker
is restarted and killed, Elasticsearch is killed and stays away, detect runs as one, three and one
instances, the data stream rolls over and another producer mixes garbage in. In the end
Elasticsearch must hold exactly the documents that `ids-plugin scan` makes of the same logs
(`event.ingested` aside), ids.rejects each garbage record once with its place, and the ledger must
balance over all stages and equal the scan's. The exit code is 1 if anything of it is not so. The
same seed gives the same traffic, garbage and order of faults.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from kafka import KafkaProducer

from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Counts
from tests.bench.support.whole_pipeline import VERBS, Wire, folder
from tests.bench.support.workload import Workload, workload

COMPARED = (
    "scored",
    "duplicate",
    "replaced",
    "over_threshold",
    "opened",
    "folded",
    "documents",
    "delivered",
)
"""counters that must be a scan's, sensor by sensor"""
STUCK_SECONDS = 90
"""without a new entry in the ledger: longer than any timeout on the way"""
START_SECONDS = 120
"""until the first fold is open, from when on there are faults"""
BACK_SECONDS = 60
"""at most until the next kill once the input has ended: whoever was killed commits before, so that
all of it ends"""
RESTARTS_SECONDS = 40
"""that all restarts of broker and Elasticsearch take together, about"""
STOP_SECONDS = 10
LONG = 10_000_000


@dataclass(frozen=True)
class Form:
    """How much and how hard: `pace` seconds between faults, `outage` seconds without Elasticsearch,
    garbage records a second, `stop` seconds that a process may take to end. `speed` as for
    `replay`; `paced` spreads the input over all faults."""

    records: int = 1_000_000
    seed: int = 1
    pace: float = 30.0
    outage: float = 60.0
    garbage: float = 5.0
    partitions: int = 4
    speed: str = "paced"
    snapshot_seconds: int = 60
    stop: float = STOP_SECONDS
    keep: Path | None = None


class Fault(NamedTuple):
    """Seconds since the beginning, what was done to what, how many folds were open, when it was
    over (seconds since the epoch) and which stages or instances had to come back."""

    at: float
    what: str
    open_folds: int
    over: float
    who: tuple[str, ...]


def main() -> int:
    """Runs the soak and says what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=Form.records)
    parser.add_argument("--long", action="store_true", help=f"{LONG:,} records")
    parser.add_argument("--seed", type=int, default=Form.seed)
    parser.add_argument(
        "--pace",
        type=float,
        default=Form.pace,
        help="seconds between faults (default: %(default)s)",
    )
    parser.add_argument(
        "--outage", type=float, default=Form.outage, help="seconds without Elasticsearch"
    )
    parser.add_argument(
        "--partitions", type=int, default=Form.partitions, help="of the source topic"
    )
    parser.add_argument(
        "--speed",
        default=Form.speed,
        help="max, 60x, ... (default: the input lasts for all faults)",
    )
    parser.add_argument(
        "--keep", type=Path, help="leave logs of the consumers and what was found there"
    )
    args = vars(parser.parse_args())
    as_json, long = args.pop("json"), args.pop("long")
    form = Form(**args | ({"records": LONG} if long else {}))
    report = run(form, lambda text: print(text, file=sys.stderr))
    print(
        json.dumps(report)
        if as_json
        else "\n".join(f"{name:<20} {value}" for name, value in report.items())
    )
    return 0 if report["ok"] else 1


def run(form: Form, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Everything; the report's `problems` are what was wrong, `ok` that nothing was."""
    traffic = workload(form.records, form.seed)
    say(f"{traffic.about}")
    home = form.keep or folder()
    settings = {"detect": {"snapshot_seconds": form.snapshot_seconds}}
    with Wire(home, partitions=form.partitions, settings=settings) as wire:
        report = Soak(wire, traffic, form, say).run()
    if not form.keep:
        shutil.rmtree(home, ignore_errors=True)
    return report


class Garbage(threading.Thread):
    """Another producer on the source topic: records nobody can read, and where they lie."""

    def __init__(self, wire: Wire, traffic: Workload, form: Form) -> None:
        super().__init__(daemon=True)
        self.places = dict[tuple[int, int], bytes]()
        self._rng = np.random.default_rng([form.seed, 99])
        self._wire, self._pause, self._end = wire, 1 / form.garbage, threading.Event()
        self._line = next(iter(traffic.logs.values())).open("rb").readline().rstrip()

    def run(self) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self._wire.kafka.bootstrap,
            enable_idempotence=True,
            delivery_timeout_ms=300_000,
        )
        sent = []
        while not self._end.wait(self._pause):
            value = self._value()
            partition = int(self._rng.integers(self._wire.partitions))
            sent.append((value, producer.send(self._wire.topic, value, partition=partition)))
        for value, future in sent:
            lies = future.get(timeout=300)
            self.places[lies.partition, lies.offset] = value
        producer.close()

    def stop(self) -> None:
        self._end.set()
        self.join()

    def _value(self) -> bytes:
        """A record cut short, bytes of any kind, text, or JSON that is no record."""
        rng = self._rng
        kinds: tuple[Callable[[], bytes], ...] = (
            lambda: self._line[: int(rng.integers(1, len(self._line) - 1))],
            lambda: rng.bytes(int(rng.integers(20, 4000))).replace(b"\n", b" "),
            lambda: b"#separator \\x09",
            lambda: orjson.dumps([int(one) for one in rng.integers(0, 9, 5)]),
            lambda: b"{" * int(rng.integers(1, 2000)),
            lambda: self._line.replace(b'"ts":', b'"ts":"never",'),
        )
        return kinds[int(rng.integers(len(kinds)))]()


class Soak:
    """One run on a wire that is up."""

    def __init__(
        self, wire: Wire, traffic: Workload, form: Form, say: Callable[[str], None]
    ) -> None:
        self._wire, self._traffic, self._form, self._say = wire, traffic, form, say
        self._garbage = Garbage(wire, traffic, form)
        self._rng = np.random.default_rng([form.seed, 98])
        self._faults: list[Fault] = []
        self._stops: dict[str, float] = {}
        self._begin = time.time()

    def run(self) -> dict[str, Any]:
        """Starts everything, does everything to it, waits for the end and compares."""
        wire, form = self._wire, self._form
        for verb in VERBS:
            wire.run(verb)
        self._garbage.start()
        plan = [*self._plan()]
        seconds = len(plan) * form.pace + form.outage + RESTARTS_SECONDS
        speed = (
            f"{self._traffic.about['seconds'] / seconds:.3f}x"
            if form.speed == "paced"
            else form.speed
        )
        self._begin = time.time()
        replay = wire.replay([*self._traffic.inputs, "--speed", speed])
        self._wait(START_SECONDS, lambda: wire.watch.total.total.opened > 0)
        for fault in plan:
            time.sleep(form.pace)
            self._do(*fault)
        problems = [f"replay ended with {code}"] if (code := replay.wait()) else []
        self._garbage.stop()
        self._end()
        seconds = time.time() - self._begin
        self._stop(*wire.processes)
        time.sleep(1)
        report = self._report(seconds) | {"stopped_after_s": self._stops, "speed": speed}
        problems += [
            f"{name} took {took} s to stop"
            for name, took in self._stops.items()
            if took > form.stop
        ]
        report["problems"] = problems + report["problems"]
        return report | {"ok": not report["problems"]}

    def _end(self) -> None:
        """Whoever still has something to do is killed until all is drained, each time after it has
        come back."""
        while not self._finished():
            for verb in VERBS:
                self._wait(self._form.pace, self._finished)
                self._wait(BACK_SECONDS, lambda: self._back() or self._finished())
                if verb in self._busy():
                    self._do(f"kill -9 {verb}", lambda verb=verb: self._kill(verb))  # type: ignore[misc]

    def _plan(self) -> Iterator[tuple[str, Callable[[], Iterable[str]]]]:
        """Every kind of fault once, with a kill -9 of each consumer in turn between them."""
        wire = self._wire
        others: list[tuple[str, Callable[[], Iterable[str]]]] = [
            ("restart the broker", lambda: self._all(wire.kafka.restart)),
            ("kill -9 the broker", lambda: self._all(wire.kafka.kill9, wire.kafka.start)),
            ("Elasticsearch away", self._outage),
            ("roll over", lambda: self._all(wire.rollover)[2:]),
        ]
        others = [others[at] for at in self._rng.permutation(len(others))]
        others.insert(1, ("detect 1 to 3", self._more))
        others.insert(4, ("detect 3 to 1", self._fewer))
        others.append(("roll over again", lambda: self._all(wire.rollover)[2:]))
        kills = self._kills()
        for other in others:
            yield next(kills)
            yield other

    def _kills(self) -> Iterator[tuple[str, Callable[[], Iterable[str]]]]:
        """Each consumer in turn, and of several instances any, without end."""
        while True:
            for verb in VERBS:
                yield f"kill -9 {verb}", lambda verb=verb: self._kill(verb)  # type: ignore[misc]

    def _kill(self, verb: str) -> list[str]:
        name = str(
            self._rng.choice(sorted(one for one in self._wire.processes if one.startswith(verb)))
        )
        self._wire.kill9(name)
        return [name]

    def _more(self) -> list[str]:
        return [self._wire.run("detect", number).name for number in (2, 3)]

    def _fewer(self) -> list[str]:
        self._stop("detect-2", "detect-3")
        return ["detect-1"]

    def _stop(self, *names: str) -> None:
        self._stops |= {name: round(self._wire.end(name), 2) for name in names}

    def _outage(self) -> list[str]:
        self._wire.elasticsearch.kill9()
        time.sleep(self._form.outage)
        self._wire.elasticsearch.start()
        return ["deliver"]

    def _all(self, *steps: Callable[[], object]) -> list[str]:
        for step in steps:
            step()
        return list(VERBS)

    def _do(self, what: str, act: Callable[[], Iterable[str]]) -> None:
        counts = self._wire.watch.total.total
        at, still_open = time.time() - self._begin, 2 * counts.opened - counts.documents
        who = tuple(act())
        self._faults.append(Fault(at, what, still_open, time.time(), who))
        self._say(
            f"{at:7.1f} s  {what} ({', '.join(who)}; {still_open} folds open; read {counts.read:,})"
        )

    def _back(self) -> bool:
        """Whether all that the last fault hit have committed again."""
        fault = self._faults[-1]
        later = [step for step in tuple(self._wire.watch.steps[-1000:]) if step.at >= fault.over]
        return {*fault.who} <= {name for step in later for name in (step.stage, step.instance)}

    def _wait(self, seconds: float, done: Callable[[], bool]) -> None:
        """Waits until it is done, for so long at most."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not done():
            time.sleep(0.2)

    def _finished(self) -> bool:
        """Whether all is drained, or nothing moves any more."""
        return self._drained() or time.monotonic() - self._wire.watch.moved > STUCK_SECONDS

    def _drained(self) -> bool:
        """Whether every stage is through with everything that was sent."""
        return not self._busy()

    def _busy(self) -> set[str]:
        """Stages that aren't through with everything that was sent."""
        total = self._wire.watch.total.total
        sent = self._traffic.about["records"] + len(self._garbage.places)
        scored = total.scored + total.duplicate + total.replaced + total.value("out_of_scope")
        through = {
            "normalise": total.read >= sent,
            "detect": scored >= total.parsed >= sent - len(self._garbage.places)
            and total.documents == 2 * total.opened,
            "deliver": total.delivered + total.value("refused") >= total.documents,
        }
        return {verb for verb, done in through.items() if not done}

    def _report(self, seconds: float) -> dict[str, Any]:
        wire, traffic = self._wire, self._traffic
        documents = compare(traffic.documents, wire.documents())
        alerts = compare(traffic.documents, wire.messages("ids.alerts"))
        rejects = self._rejects()
        ledger = self._ledger()
        few = [fault.what for fault in self._faults if not fault.open_folds]
        problems = [
            *(
                f"Elasticsearch: {documents[kind]} {kind}"
                for kind in ("lost", "twice", "strange")
                if documents[kind]
            ),
            *(
                f"ids.alerts: {alerts[kind]} {kind}"
                for kind in ("lost", "twice", "strange")
                if alerts[kind]
            ),
            *rejects["problems"],
            *ledger,
        ]
        return {
            **traffic.about,
            "seconds_taken": round(seconds, 1),
            "documents": documents,
            "alerts": alerts,
            "garbage": rejects["sent"],
            "faults": [self._recovered(fault) for fault in self._faults],
            "faults_without_open_folds": few,
            "exits": [one._asdict() for one in wire.exits],
            "problems": problems,
        }

    def _recovered(self, fault: Fault) -> dict[str, Any]:
        """Seconds until each that had to come back had committed again; none where it had nothing
        to do."""
        steps = self._wire.watch.steps
        back: dict[str, float | None] = {}
        for who in fault.who:
            later = (
                step.at
                for step in steps
                if who in (step.stage, step.instance) and step.at >= fault.over
            )
            first = min(later, default=None)
            back[who] = None if first is None else round(first - fault.over, 2)
        return {
            "at": round(fault.at, 1),
            "what": fault.what,
            "open_folds": fault.open_folds,
            "back_after_s": back,
        }

    def _rejects(self) -> dict[str, Any]:
        """Whether each garbage record is in ids.rejects, once, with its bytes."""
        sent = self._garbage.places
        found = Counter[tuple[int, int]]()
        problems = []
        for one in self._wire.messages("ids.rejects"):
            place = one["partition"], one["offset"]
            found[place] += 1
            if place not in sent or one["topic"] != self._wire.topic:
                problems.append(f"rejected, and not garbage: {one}"[:500])
            elif base64.b64decode(one["bytes"]) != sent[place]:
                problems.append(f"other bytes than were sent: {one}"[:500])
        lost, twice = len(sent.keys() - found.keys()), sum(count > 1 for count in found.values())
        problems = problems[:5] + [f"... and {len(problems) - 5} more"] * (len(problems) > 5)
        problems += [f"ids.rejects: {lost} lost"] * bool(lost) + [
            f"ids.rejects: {twice} twice"
        ] * bool(twice)
        return {"sent": len(sent), "problems": problems}

    def _ledger(self) -> list[str]:
        """What of the ledger doesn't balance or isn't the scan's."""
        whole = self._wire.watch.total
        total = whole.total
        total.pending = total.documents - total.delivered - total.value("refused")
        problems = [f"ledger: {total.pending} documents pending"] * bool(total.pending)
        for name, parts in _equations(total):
            problems += [f"ledger: {name} {total.value(name)} is not {parts}"] * (
                total.value(name) != sum(parts)
            )
        sent = self._traffic.about["records"] + len(self._garbage.places)
        if total.read != sent:
            problems.append(f"ledger: {total.read} read and {sent} sent")
        mine, scans = _by_sensor(whole.to_dict()), _by_sensor(self._traffic.ledger)
        for sensor, counts in scans.items():
            for name in COMPARED:
                if mine.get(sensor, Counts()).value(name) != counts.value(name):
                    got = mine.get(sensor, Counts()).value(name)
                    problems.append(
                        f"ledger: {sensor} {name} {got}, the scan's {counts.value(name)}"
                    )
        return problems


def compare(expected: Mapping[str, Document], found: Iterable[Document]) -> dict[str, Any]:
    """How many documents were expected, are there, lost, there twice, and not as expected; one
    example of these."""
    seen = Counter[str]()
    strange: list[dict[str, Any]] = []
    for document in found:
        name = document["event"]["id"]
        seen[name] += 1
        wanted = expected.get(name)
        if wanted is None or canonical(document) != canonical(wanted):
            strange.append({"id": name, "differs": differences(wanted or {}, document)[:5]})
    return {
        "expected": len(expected),
        "found": seen.total(),
        "lost": len(expected.keys() - seen.keys()),
        "twice": sum(count - 1 for count in seen.values()),
        "strange": len(strange),
        "example": strange[:1],
    }


def canonical(document: Document) -> bytes:
    """A document's bytes with its keys in order, without `event.ingested`."""
    event = {name: value for name, value in document["event"].items() if name != "ingested"}
    return orjson.dumps({**document, "event": event}, option=orjson.OPT_SORT_KEYS)


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two documents differ, in words."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other} - ({"ingested"} if path == ".event" else set()))
        return [
            text
            for key in keys
            for text in differences(one.get(key), other.get(key), f"{path}.{key}")
        ]
    if isinstance(one, list) and isinstance(other, list):
        pairs = enumerate(zip_longest(one, other))
        return [text for at, pair in pairs for text in differences(*pair, f"{path}[{at}]")]
    return [] if orjson.dumps(one) == orjson.dumps(other) else [f"{path}: {one!r} is {other!r}"]


def _by_sensor(ledger: Mapping[str, Any]) -> dict[str, Counts]:
    found: dict[str, Counts] = {}
    for entry in ledger["sources"]:
        counters = {
            name: value for name, value in entry.items() if name not in ("source", "sensor")
        }
        found.setdefault(entry["sensor"], Counts()).add(Counts(**counters))
    return found


def _equations(total: Counts) -> Iterator[tuple[str, list[int]]]:
    from ids_plugin.schema.ledger import EQUATIONS

    for name, parts in EQUATIONS:
        yield name, [total.value(part) for part in parts]


if __name__ == "__main__":
    sys.exit(main())
