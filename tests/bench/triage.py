"""Bench `triage`: what the dashboards ask, on an index with a million alerts.

    python -m tests.bench.triage [--json] [--documents 1000000] [--rounds 10] [--heap 3g] [--seed 1]

A real Elasticsearch of one node (tests/services) is filled with the alerts, the ledger and the
scored flows of 90 days: the sample's own documents moved to other times, hosts and sensors, in
three backing indices as a monthly rollover leaves them. Then every request that opening Overview,
Triage and Host sends is sent as Kibana sends it, for 24 h, 7 d and 90 d: once cold (after a
restart, with Elasticsearch's caches emptied before each; the system's file cache stays) and then
warm, each time with another end of the time range, as a clock that runs on gives it, so that no
answer comes from the request cache. CPU is that of the server's process, a request's share over all
warm rounds: other load on the machine doesn't change it much. A dashboard is `open` when all its
requests, six at a time as a browser sends them, are answered. Beside it in the same run, taking
turns: the same on 10,000 documents.

`new alert`: a fold of its own is written by the product's sink while the others are there;
`visible` is until a search finds it (Elasticsearch refreshes each second), `evidence` what Triage's
panels then take for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import elasticsearch as client
import numpy as np
import orjson
from elasticsearch.helpers import parallel_bulk

from ids_plugin.config import Elasticsearch as Settings
from ids_plugin.elastic.index_setup import install
from ids_plugin.elastic.streams import ALERTS, LEDGER
from ids_plugin.sinks import Delivered
from ids_plugin.sinks.elasticsearch import Elasticsearch
from tests import services
from tests.bench.support import triage_site
from tests.bench.support.triage_site import Made
from tests.bench.support.whole_pipeline import cpu
from tests.support.kibana import Request, ours, requests

END = datetime(2026, 4, 1, tzinfo=UTC)
DAYS = 90
RANGES = {"24 h": timedelta(days=1), "7 d": timedelta(days=7), "90 d": timedelta(days=DAYS)}
DASHBOARDS = ("Overview", "Triage", "Host")
FULL, SMALL = "full", "small"
"""namespaces"""
SMALL_COUNT = 10_000
ROLLOVERS = 3
BROWSER = 6
"""requests that a browser has under way with one server"""
ALERTS_TIMED = 12
MOST_S = 60
GOAL_S = 1.0
IDLE_S = 31
"""without a search for longer than index.search.idle.after, an index isn't refreshed until the next
one"""


OURS = ours()
"""read once: they may be edited meanwhile"""


class Asked(NamedTuple):
    """A dashboard at one time range of one namespace."""

    space: str
    dashboard: str
    span: str


class Cost(NamedTuple):
    """Of one request."""

    seconds: float
    cpu: float
    """seconds of the server's process"""


Costs = dict[tuple[Asked, str], list[Cost]]
"""dashboard and panel → one a round"""


def main() -> int:
    """Fills, asks, says; 1 when a panel takes longer than the goal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--documents", type=int, default=1_000_000, help="alert documents")
    parser.add_argument("--rounds", type=int, default=10, help="warm ones")
    parser.add_argument("--heap", default="3g")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with services.Elasticsearch(heap=args.heap, options=()) as server:
        result = run(server, args.documents, args.rounds, args.seed)
    again = (
        f"--documents {args.documents} --rounds {args.rounds} --heap {args.heap} --seed {args.seed}"
    )
    result["repeat"] = f"python -m tests.bench.triage {again}"
    print(json.dumps(result) if args.json else "\n".join(lines(result)))
    return int(result["worst_p95_s"] > GOAL_S)


def run(server: services.Elasticsearch, documents: int, rounds: int, seed: int) -> dict[str, Any]:
    """Everything, on a server of its own."""
    folds = triage_site.originals()
    es = client.Elasticsearch(server.url, request_timeout=120, max_retries=0)
    filled = {
        space: fill(es, Settings(server.url, namespace=space), space, count, folds, seed)
        for space, count in ((SMALL, min(SMALL_COUNT, documents)), (FULL, documents))
    }
    server.restart()
    busiest = _busiest(es)
    cold = ask(es, server.pid, busiest, 1, cold=True)
    panels = list(table(cold, ask(es, server.pid, busiest, rounds)))
    return {
        "load_average": round(os.getloadavg()[1], 1),
        "cores": os.cpu_count(),
        "indexed": filled,
        "panels": panels,
        "open_s": opening(es, busiest, rounds),
        "new_alert_s": new_alerts(es, Settings(server.url, namespace=FULL), folds, seed),
        "worst_p95_s": max(one["p95_s"] for one in panels),
        "worst_cold_s": max(one["cold_s"] for one in panels),
    }


def fill(
    es: client.Elasticsearch,
    settings: Settings,
    space: str,
    count: int,
    folds: list[Any],
    seed: int,
) -> dict[str, Any]:
    """Alerts, ledger and scored flows of the whole time; the alerts' stream rolls over as it would
    have."""
    list(install(settings))
    begin = time.perf_counter()
    flows: list[Made] = []
    made = _with_flows(triage_site.alerts(folds, count, seed, END, DAYS), flows)
    for part in range(ROLLOVERS):
        if part:
            es.indices.rollover(alias=f"{ALERTS}-{space}")
        es.indices.put_settings(
            index=f"{ALERTS}-{space}", settings={"index.refresh_interval": "-1"}
        )
        _send(es, f"{ALERTS}-{space}", islice(made, -(-count // ROLLOVERS)))
    es.indices.put_settings(index=f"{ALERTS}-{space}", settings={"index.refresh_interval": None})
    took = time.perf_counter() - begin
    _send(es, f"{LEDGER}-{space}", triage_site.ledger(count // 10, END, DAYS))
    _send(es, f"logs-ids_plugin.flow-{space}", flows)
    es.indices.refresh(index=f"*-{space}")
    stats = es.indices.stats(index=f"{ALERTS}-{space}", metric="docs,store,segments")["_all"][
        "primaries"
    ]
    return {
        "alerts": stats["docs"]["count"],
        "megabytes": round(stats["store"]["size_in_bytes"] / 1e6),
        "segments": stats["segments"]["count"],
        "documents_per_s": round(count / took),
    }


def _with_flows(made: Iterable[Made], flows: list[Made]) -> Iterator[Made]:
    """The same; the flow of every tenth goes to `flows`."""
    for number, one in enumerate(made):
        if number % 10 == 0:
            flows.append(triage_site.flow(one))
        yield one


def _send(es: client.Elasticsearch, stream: str, made: Iterable[Made]) -> None:
    """
    Raises:
        BulkIndexError: one of them is refused.
    """
    actions: Iterator[Any] = (({"create": {"_id": one.id}}, one.body) for one in made)
    whole: Callable[[Any], Any] = tuple
    for _ in parallel_bulk(es, actions, 2, 1_000, index=stream, expand_action_callback=whole):
        pass


def _busiest(es: client.Elasticsearch) -> dict[str, dict[str, str]]:
    """What is chosen in each dashboard: nothing; a fold that an analyst clicked; the host with most
    folds."""
    alert = {"term": {"event.kind": "alert"}}
    hosts = {"hosts": {"terms": {"field": "ids_plugin.fold.subject", "size": 1}}}
    answer = es.search(
        index=f"{ALERTS}-{FULL}", size=1, query=alert, sort=[{"@timestamp": "desc"}], aggs=hosts
    )
    fold = answer["hits"]["hits"][0]["_source"]["ids_plugin"]["fold"]["id"]
    host = answer["aggregations"]["hosts"]["buckets"][0]["key"]
    return {
        "Overview": {},
        "Triage": {},
        "Triage, an alert chosen": {"ids_plugin.fold.id": fold},
        "Host": {"ids_plugin.fold.subject": host},
    }


def views(chosen: dict[str, dict[str, str]], later: int) -> Iterator[tuple[Asked, list[Request]]]:
    """Every dashboard at every time range in both namespaces; the ranges end `later` seconds
    later."""
    for span in RANGES:
        for dashboard, filters in chosen.items():
            for space in (SMALL, FULL):
                title = dashboard.partition(",")[0]
                wanted = requests(
                    title, filters, between(span, later), namespace=space, objects=OURS
                )
                yield Asked(space, dashboard, span), wanted


def between(span: str, later: int) -> tuple[str, str]:
    """Beginning and end of a time range."""
    end = END + timedelta(seconds=later)
    return (end - RANGES[span]).isoformat(), end.isoformat()


def ask(
    es: client.Elasticsearch,
    pid: int,
    chosen: dict[str, dict[str, str]],
    rounds: int,
    cold: bool = False,
) -> Costs:
    """What every request costs, one after the other."""
    costs: Costs = defaultdict(list)
    for later in range(rounds):
        for asked, wanted in views(chosen, later):
            for request in wanted:
                if cold:
                    es.indices.clear_cache(index="*")
                before, begin = cpu(pid), time.perf_counter()
                _ask(es, request)
                costs[asked, request.name].append(
                    Cost(time.perf_counter() - begin, cpu(pid) - before)
                )
    return costs


def opening(
    es: client.Elasticsearch, chosen: dict[str, dict[str, str]], rounds: int
) -> dict[str, Any]:
    """Seconds until all requests of a dashboard are answered; they are under way six at a time."""
    taken: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ThreadPoolExecutor(BROWSER) as browser:
        for later in range(rounds, 2 * rounds):
            for asked, wanted in views(chosen, later):
                if asked.space == FULL:
                    begin = time.perf_counter()
                    list(browser.map(partial(_ask, es), wanted))
                    taken[asked.dashboard][asked.span].append(time.perf_counter() - begin)
    return {
        name: {span: _median(some) for span, some in spans.items()} for name, spans in taken.items()
    }


def new_alerts(
    es: client.Elasticsearch, settings: Settings, folds: list[Any], seed: int
) -> dict[str, Any]:
    """From the moment the sink has delivered an alert until a search finds it, and what its
    evidence takes."""
    sink = Elasticsearch(settings)
    made = [
        orjson.loads(one.body)
        for one in triage_site.alerts(folds, 2 * ALERTS_TIMED + 2, seed + 1, END, 1)
    ]
    opened = [one for one in made if one["ids_plugin"]["fold"]["state"] == "open"]
    *timed, late = opened
    visible, evidence, panels = list[float](), list[float](), dict[str, list[float]]()
    for alert in timed:
        visible.append(_visible(es, sink, alert))
        for name, seconds in _evidence(es, alert["ids_plugin"]["fold"]["id"]):
            (panels.setdefault(name, []) if name else evidence).append(seconds)
    time.sleep(IDLE_S)
    after = _visible(es, sink, late)
    sink.close()
    worst = max(panels, key=lambda name: max(panels[name]))
    return {
        "visible": _two(visible),
        "visible_after_idleness": round(after, 3),
        "evidence_panel": _two([one for some in panels.values() for one in some]),
        "evidence_worst_panel": {"panel": worst, **_two(panels[worst])},
        "evidence_all_panels": _two(evidence),
    }


def _visible(es: client.Elasticsearch, sink: Elasticsearch, alert: dict[str, Any]) -> float:
    """Seconds from delivery until a search finds it.

    Raises:
        RuntimeError: it isn't delivered, or doesn't appear.
    """
    answer = sink.write([alert])
    begin = time.perf_counter()
    if not isinstance(answer, Delivered) or answer.documents != 1:
        raise RuntimeError(f"not delivered: {answer}")
    query = {"term": {"event.id": alert["event"]["id"]}}
    while not es.search(index=sink.stream, query=query, size=1)["hits"]["hits"]:
        if time.perf_counter() - begin > MOST_S:
            raise RuntimeError(f"{query} isn't found")
        time.sleep(0.01)
    return time.perf_counter() - begin


def _evidence(es: client.Elasticsearch, fold: str) -> Iterator[tuple[str, float]]:
    """Seconds of each of Triage's requests for a fold just written, by name, and of all of them six
    at a time ("")."""
    wanted = requests(
        "Triage", {"ids_plugin.fold.id": fold}, between("90 d", 0), namespace=FULL, objects=OURS
    )
    for request in wanted:
        begin = time.perf_counter()
        _ask(es, request)
        yield request.name.partition(" / ")[2], time.perf_counter() - begin
    begin = time.perf_counter()
    with ThreadPoolExecutor(BROWSER) as browser:
        list(browser.map(partial(_ask, es), wanted))
    yield "", time.perf_counter() - begin


def _ask(es: client.Elasticsearch, request: Request) -> None:
    """
    Raises:
        RuntimeError: not every shard answered in time.
    """
    answer = es.search(index=request.index, body=request.body)
    if answer["timed_out"] or answer["_shards"]["failed"]:
        raise RuntimeError(f"{request.name}: {answer['_shards']}")


def table(cold: Costs, warm: Costs) -> Iterator[dict[str, Any]]:
    """A row for every panel and time range: its cost on the full index, and how many times that on
    the small one."""
    for (asked, name), costs in warm.items():
        if asked.space == FULL:
            small = warm[asked._replace(space=SMALL), name]
            seconds = [one.seconds for one in costs]
            yield {
                "dashboard": asked.dashboard,
                "panel": name.partition(" / ")[2],
                "range": asked.span,
                "cold_s": round(cold[asked, name][0].seconds, 3),
                "p50_s": _median(seconds),
                "p95_s": round(float(np.percentile(seconds, 95)), 3),
                "cpu_s": round(sum(one.cpu for one in costs) / len(costs), 3),
                "ratio": round(
                    float(np.median(seconds) / np.median([one.seconds for one in small])), 1
                ),
            }


def _median(seconds: list[float]) -> float:
    return round(float(np.median(seconds)), 3)


def _two(seconds: list[float]) -> dict[str, float]:
    return {"p50": _median(seconds), "p95": round(float(np.percentile(seconds, 95)), 3)}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The result for people."""
    yield f"{result['cores']} cores, load average {result['load_average']} over the last 5 minutes"
    for space, told in result["indexed"].items():
        yield f"{space}: " + ", ".join(
            f"{value:,} {name.replace('_', ' ')}" for name, value in told.items()
        )
    yield f"\n{'ms':<66}{'range':>6}{'cold':>7}{'p50':>7}{'p95':>7}{'CPU':>7}   p50: times that of {SMALL}"
    milliseconds = ("cold_s", "p50_s", "p95_s", "cpu_s")
    for one in result["panels"]:
        numbers = "".join(f"{one[name] * 1000:>7.0f}" for name in milliseconds)
        yield f"{one['dashboard'] + ' / ' + one['panel']:<66.66}{one['range']:>6}{numbers}{one['ratio']:>6}"
    yield "\nseconds until a dashboard is open, p50"
    for name, spans in result["open_s"].items():
        yield f"{name:<30}" + "".join(f"{span:>8} {seconds:.2f}" for span, seconds in spans.items())
    yield f"\na new alert: {result['new_alert_s']}"
    yield f"worst panel: p95 {result['worst_p95_s']} s, cold {result['worst_cold_s']} s; goal {GOAL_S} s"
    yield f"again: {result['repeat']}"


if __name__ == "__main__":
    sys.exit(main())
