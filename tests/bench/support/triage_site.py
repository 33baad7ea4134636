"""A site's alerts of many days, as the bench `triage` needs them: real documents, moved to other
times and hosts.

What a scan of the lab's sample gives are the originals. A fold keeps its form (evidence, totals,
texts) and gets another time, sensor, subject, peers, score, and ids of its own; both its documents
tell the same story. Few hosts have most of the folds. The same seed gives the same documents.
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import orjson

from ids_plugin import cli
from ids_plugin.schema.alert import Document
from ids_plugin.schema.ledger import Counts, Ledger
from ids_plugin.sinks import ledger_documents

SAMPLE = Path(__file__).parents[2] / "lab/sample/capture.pcap.gz"
SENSORS = tuple(f"sensor-{number:02}" for number in range(1, 13))
HOSTS, STRANGERS = 5_000, 60_000
DAY = 86_400_000_000
"""microseconds"""
FLOW_FIELDS = ("@timestamp", "ecs", "observer", "source", "destination", "network", "zeek")

TOKEN = re.compile(
    r'(?P<time>(?<=")\d{4}-\d\d-\d\dT[\d:.]+Z(?="))|(?P<address>\b\d{1,3}(?:\.\d{1,3}){3}\b)|'
    r'(?P<digest>(?<=")[0-9a-f]{40}(?="))|(?P<uid>(?<=")C[0-9A-Za-z]{16,17}(?="))|'
    r'(?P<community>(?<=")1:[0-9A-Za-z+/]{27}=(?="))|(?P<sensor>(?<="observer":\{"name":")[^"]+(?="))|'
    r'(?P<score>(?<="score":)[\d.]+)'
)
"""what a fold gets anew"""


class Part(NamedTuple):
    """Something of a document that changes: of which kind it is, and what it was."""

    kind: str
    text: str


Form = list[str | Part]
"""A document's JSON, cut where it changes"""


class Made(NamedTuple):
    """A document ready to be sent."""

    id: str
    body: bytes


def originals() -> list[tuple[Document, Document]]:
    """The open and the closed document of every fold of the sample."""
    with tempfile.TemporaryDirectory() as folder:
        if code := cli.main(["scan", str(SAMPLE), "--out", folder, "--quiet"]):
            raise RuntimeError(f"the sample can't be scanned: {code}")
        lines = (Path(folder) / "alerts.ndjson").read_bytes().splitlines()
    folds: dict[str, dict[str, Document]] = {}
    for one in map(orjson.loads, lines):
        folds.setdefault(one["ids_plugin"]["fold"]["id"], {})[
            one["ids_plugin"]["fold"]["state"]
        ] = one
    return [(fold["open"], fold["closed"]) for fold in folds.values()]


def alerts(
    folds: Sequence[tuple[Document, Document]], count: int, seed: int, end: datetime, days: int
) -> Iterator[Made]:
    """`count` documents of folds that opened in the `days` before `end`, in that order."""
    random, forms = Random(seed), [(form(opened), form(closed)) for opened, closed in folds]
    begins = [microseconds(opened["@timestamp"]) for opened, _ in folds]
    last = microseconds(end.isoformat())
    for at in sorted(random.uniform(last - days * DAY, last) for _ in range(count // 2)):
        which = random.randrange(len(forms))
        fold = Fold(random, round(at) - begins[which])
        yield from (fold.document(one) for one in forms[which])


def flow(made: Made) -> Made:
    """The flow of an alert, as a site that keeps scored flows has it."""
    alert = orjson.loads(made.body)
    ours = {
        name: alert["ids_plugin"][name]
        for name in ("score", "threshold", "label", "scores", "bundle")
    }
    event = {
        name: alert["event"][name] for name in ("id", "start", "end") if name in alert["event"]
    }
    event |= {
        "kind": "event",
        "category": ["network"],
        "module": "ids_plugin",
        "dataset": "ids_plugin.flow",
    }
    return Made(
        made.id,
        orjson.dumps(
            {**{name: alert[name] for name in FLOW_FIELDS}, "event": event, "ids_plugin": ours}
        ),
    )


def ledger(count: int, end: datetime, days: int) -> Iterator[Made]:
    """About `count` documents of every sensor's and stage's ledger, in even steps over the time."""
    stages = {
        "normalise": Counts(read=9_000, parsed=8_990, rejected={"no_ts": 10}),
        "detect": Counts(
            scored=8_900, duplicate=90, over_threshold=30, opened=9, folded=21, documents=18
        ),
        "deliver": Counts(delivered=18),
    }
    steps = max(1, count // (4 * len(SENSORS)))
    last = round(end.timestamp() * 1000)
    for step in range(steps):
        for stage, counts in stages.items():
            entries = Ledger()
            for sensor in SENSORS:
                entries.of("zeek", sensor).add(counts)
            at = last - (steps - step) * days * 86_400_000 // steps
            increment = {
                "stage": stage,
                "instance": f"{stage}-1",
                "at": at,
                "ledger": entries.to_dict(),
            }
            for one in ledger_documents.documents(increment, f"ids.ledger/{stage}/{step}"):
                yield Made(one["event"]["id"], orjson.dumps(one))


def form(document: Mapping[str, Any]) -> Form:
    """The document's JSON in pieces: what stays, and what a fold gets anew."""
    text = orjson.dumps(document).decode()
    pieces: Form = []
    done = 0
    for found in TOKEN.finditer(text):
        pieces += [text[done : found.start()], Part(str(found.lastgroup), found.group())]
        done = found.end()
    return [*pieces, text[done:]]


class Fold:
    """What a fold has instead of its original's: the same for the same, in both documents.

    `shift` (µs) is how much later it happens.
    """

    def __init__(self, random: Random, shift: int) -> None:
        self._random, self._shift = random, shift
        self._known: dict[Part, str] = {}
        self._where = random.choice(SENSORS)

    def document(self, pieces: Form) -> Made:
        """The document of this fold in that form."""
        text = "".join(one if isinstance(one, str) else self._text(one) for one in pieces)
        at = text.index('"event":{"id":"') + len('"event":{"id":"')
        return Made(text[at : at + 40], text.encode())

    def _text(self, part: Part) -> str:
        if part not in self._known:
            self._known[part] = getattr(self, f"_{part.kind}")(part.text)
        return self._known[part]

    def _time(self, text: str) -> str:
        return instant(microseconds(text) + self._shift)

    def _address(self, text: str) -> str:
        """Few addresses come often: the square of an even number."""
        often = self._random.random() ** 2
        if text.startswith(("10.", "192.168.", "172.")):
            host = int(often * HOSTS)
            return f"10.{host >> 16}.{host >> 8 & 255}.{host & 255}"
        stranger = int(often * STRANGERS)
        return f"198.{18 + (stranger >> 16)}.{stranger >> 8 & 255}.{stranger & 255}"

    def _digest(self, text: str) -> str:
        return f"{self._random.getrandbits(160):040x}"

    def _uid(self, text: str) -> str:
        return f"C{self._random.getrandbits(68):017x}"

    def _community(self, text: str) -> str:
        return f"1:{base64.b64encode(self._random.randbytes(20)).decode()}"

    def _sensor(self, text: str) -> str:
        return self._where

    def _score(self, text: str) -> str:
        return f"{self._random.uniform(0.5, 1):.6f}"


def microseconds(text: str) -> int:
    """Since the epoch, of a time as documents have it."""
    at = datetime.fromisoformat(text)
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)


def instant(at: int) -> str:
    """The time as documents have it."""
    return datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
