"""Alert documents in any number, shaped as schema/alert.py says, to fill reports with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from ids_plugin.schema.ledger import Counts, Ledger
from ids_plugin.sinks import TrafficBucket

Document = dict[str, Any]

START = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
BUNDLE: Document = {
    "id": "9f2c" * 16,
    "family": "anomaly_net",
    "trained_on": ["office seed 1", "office seed 2"],
}
CLASSES = (
    ("scan", 47, 47, "T1046", "Network Service Discovery", "{} scans {}, 312 ports"),
    ("brute_force", 73, 73, "T1110", "Brute Force", "{} guesses passwords at {}, port 22"),
    ("flood", 73, 80, "T1498", "Network Denial of Service", "{} is flooded by {}, port 80"),
    (
        "command_and_control",
        73,
        85,
        "T1071",
        "Application Layer Protocol",
        "{} keeps in touch with a controller at {}",
    ),
    (
        "exfiltration",
        99,
        95,
        "T1048",
        "Exfiltration Over Alternative Protocol",
        "{} carries data out to {}, port 53",
    ),
    (
        "spreading",
        99,
        99,
        "T1210",
        "Exploitation of Remote Services",
        "{} tries to spread to {}, port 23",
    ),
    ("inbound_noise", 21, 21, "T1595", "Active Scanning", "{} is probed from the internet by {}"),
)
FEATURES = (
    ("pair_failed_ports_600s", "ports of the peer that failed in 10 min", "312", "0"),
    ("orig_acts_flows_10s", "flows by the originator in 10 s", "240", "2"),
    ("pair_received_3600s", "bytes received from the peer in 1 h", "0 B", "1.2 kB"),
    ("interval_cv", "variation of the last intervals", "4 %", "130 %"),
    ("external", "the peer is outside", "no", "no"),
)


def instant(seconds: float) -> str:
    """ISO 8601 in UTC, that many seconds after START."""
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def documents(
    alerts: int, *, seed: int = 1, seconds: float = 600, hosts: int = 9
) -> Iterator[Document]:
    """Opening documents of `alerts` folds, each followed by its closing one."""
    rng = random.Random(seed)
    for number in range(alerts):
        opening = _opening(rng, f"fold{number}", rng.uniform(0, seconds * 0.9), hosts)
        yield opening
        yield _closing(rng, opening, min(rng.expovariate(1 / 40), seconds * 0.1))


def traffic(seconds: int, width: int) -> list[TrafficBucket]:
    """Buckets of a quiet network."""
    rng = random.Random(3)
    start = int(START.timestamp())
    return [
        {
            "t": (start + second) * 1_000_000,
            "flows": rng.randint(20, 60),
            "bytes": rng.randint(10**5, 10**6),
        }
        for second in range(0, seconds, width)
    ]


def ledger(flows: int, alerts: int) -> Document:
    """A ledger that balances, with `flows` scored and `alerts` opened."""
    counts = Counts(
        read=flows + 12,
        parsed=flows + 5,
        rejected={"truncated line": 7},
        duplicate=5,
        scored=flows,
        over_threshold=9 * alerts,
        opened=alerts,
        folded=8 * alerts,
        documents=2 * alerts,
        delivered=2 * alerts,
    )
    entries = Ledger()
    entries.of("lab.pcap", "lab").add(counts)
    return entries.to_dict()


def _opening(rng: random.Random, fold: str, start: float, hosts: int) -> Document:
    label, severity, risk, technique, name, text = rng.choice(CLASSES)
    number = rng.randrange(hosts)
    host, peer = f"10.20.{number // 250}.{number % 250 + 2}", f"10.20.9.{rng.randint(2, 250)}"
    score = rng.uniform(0.8, 1)
    flows = _flows(rng, host, peer, start)
    return {
        "@timestamp": instant(start),
        "message": text.format(host, peer),
        "tags": ["alert", "ids_plugin"],
        "event": {
            "id": f"{fold}-open",
            "kind": "alert",
            "severity": severity,
            "risk_score": round(risk * score, 1),
        },
        "threat": {"framework": "MITRE ATT&CK", "technique": {"id": [technique], "name": [name]}},
        "observer": {"name": "lab"},
        "source": {"ip": host, "port": flows[-1]["orig_p"]},
        "destination": {"ip": peer, "port": flows[-1]["resp_p"]},
        "network": {"transport": "tcp", "community_id": f"1:{rng.getrandbits(120):030x}="},
        "related": {"ip": [host, peer]},
        "zeek": {"session_id": flows[-1]["uid"]},
        "ids_plugin": {
            "score": score,
            "threshold": 0.78,
            "label": label,
            "scores": {
                "anomaly_net": rng.random(),
                "lightgbm": rng.uniform(0.7, 1),
                "behaviour": rng.random(),
            },
            "bundle": {"id": BUNDLE["id"], "family": "anomaly_net", "version": "1"},
            "fold": _fold(fold, label, host, peer, instant(start)),
            "evidence": _evidence(rng, label, flows),
        },
    }


def _fold(fold: str, label: str, host: str, peer: str, start: str) -> Document:
    return {
        "id": fold,
        "state": "open",
        "subject": host,
        "role": "target" if label in {"flood", "inbound_noise"} else "actor",
        "count": 1,
        "first": start,
        "last": start,
        "peers": 1,
        "peers_relation": "eq",
        "top_peers": [{"ip": peer, "count": 1}],
        "ports": 1,
        "top_ports": [{"port": 23, "count": 1}],
    }


def _closing(rng: random.Random, opening: Document, lasted: float) -> Document:
    own = opening["ids_plugin"]
    start = datetime.fromisoformat(own["fold"]["first"]) - START
    count = rng.randint(2, 3000)
    totals = {
        "state": "closed",
        "closed_by": "quiet",
        "count": count,
        "last": instant(start.total_seconds() + lasted),
        "peers": 5,
        "top_peers": [{"ip": f"10.20.9.{n}", "count": count // (n + 1)} for n in range(1, 6)],
        "packets": 9 * count,
        "orig_bytes": 700 * count,
        "resp_bytes": 90 * count,
    }
    closing = {
        **opening,
        "message": f"{opening['message']}: {count:,} flows in {lasted:.3g} s",
        "tags": ["ids_plugin"],
    }
    closing["event"] = {
        **opening["event"],
        "id": opening["event"]["id"].replace("open", "closed"),
        "kind": "event",
    }
    closing["ids_plugin"] = {**own, "fold": {**own["fold"], **totals}}
    return closing


def _evidence(rng: random.Random, label: str, flows: list[Document]) -> Document:
    host, peer = flows[-1]["orig_h"], flows[-1]["resp_h"]
    return {
        "summary": f"{host} tried 312 ports of {peer} without success in 10 min; normal traffic "
        "here shows 0.",
        "method": "attention+tree_shap+occlusion",
        "faithfulness": round(rng.random(), 3),
        "behaviours": {label: round(rng.random(), 3)},
        "flows": flows,
        "features": [_feature(rng, place) for place in range(len(FEATURES))],
    }


def _flows(rng: random.Random, host: str, peer: str, start: float) -> list[Document]:
    earlier = rng.choice((0, 1, 3, 6, 10, 10))
    weights = [rng.random() ** 3 + 0.01 for _ in range(earlier + 1)]
    return [
        {
            "lag": lag,
            "weight": weight / sum(weights),
            "uid": f"C{rng.getrandbits(68):017x}",
            "ts": instant(start - 2 * lag),
            "orig_h": host,
            "orig_p": rng.randint(1024, 65535),
            "resp_h": peer,
            "resp_p": rng.choice((22, 23, 80, 1883)),
            "proto": "tcp",
            "conn_state": rng.choice(("S0", "SF", "REJ", "RSTO")),
            "duration": round(rng.random(), 6),
            "orig_bytes": rng.randint(0, 5000),
            "resp_bytes": rng.randint(0, 10000),
            "reverse": False,
        }
        for lag, weight in zip(range(earlier, -1, -1), weights, strict=True)
    ]


def _feature(rng: random.Random, place: int) -> Document:
    name, text, seen, usual = FEATURES[place]
    return {
        "name": name,
        "value": 312.0,
        "expected": 0.0,
        "contribution": rng.uniform(0, 2) / (place + 1),
        "text": f"{text}: {seen}, usually {usual}",
        "label": text,
        "unit": "flows",
        "value_text": seen,
        "expected_text": usual,
    }
