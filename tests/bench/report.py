"""Bench `report`: a report of 10,000 alerts in a real Chromium: how long it takes to open and to
filter.

    python -m tests.bench.report [--json] [--alerts 10000]

Opening is the time of the page's own thread, so that what else runs on the machine doesn't count;
filtering is wall time, the best of three of each query. Goals: 3 s and 200 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright import sync_api

from ids_plugin.sinks.report import write
from tests.support import report_documents as made

QUERIES = ("flood", "flood 10.20.3", "", "312 ports")
FILTER = """(text) => {
    const field = document.querySelector('#text');
    return Math.min(...[1, 2, 3].map(() => {
        const began = performance.now();
        field.value = text;
        field.dispatchEvent(new Event('input'));
        document.querySelector('#list').getBoundingClientRect();
        return performance.now() - began;
    }));
}"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        documents = list(made.documents(args.alerts, hosts=3000))
        write(
            path,
            documents,
            ledger=made.ledger(5000, args.alerts),
            traffic=made.traffic(600, 5),
            bundle=made.BUNDLE,
        )
        result = {
            "alerts": args.alerts,
            "megabytes": round(path.stat().st_size / 1e6, 1),
            **measure(path, args.chromium),
        }
    print(
        json.dumps(result)
        if args.json
        else "\n".join(f"{name:<20} {value}" for name, value in result.items())
    )
    return 0


def measure(path: Path, chromium: str) -> dict[str, Any]:
    """Seconds to open, milliseconds to filter."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        devtools = page.context.new_cdp_session(page)
        devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(path.as_uri())
        page.wait_for_selector("#timeline svg", state="attached")
        metrics = {
            one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]
        }
        took = {query: round(page.evaluate(FILTER, query), 1) for query in QUERIES}
        browser.close()
    return {"open_s": round(metrics["TaskDuration"], 2), "filter_ms": took}


if __name__ == "__main__":
    sys.exit(main())
