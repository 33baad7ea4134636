"""`python -m tests.lab run SCENARIO --seed N --out DIR`, `flows DIR…`, `uniflows DIR…`, `clean`."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from tests.lab import labels, runner


def main(arguments: list[str] | None = None) -> int:
    """The lab's command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="Labelled traffic in network namespaces."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a scenario (root; Linux)")
    run.add_argument("scenario", help="a name in tests/lab/scenarios, or a .toml file")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--out", type=Path, required=True)
    flows = commands.add_parser("flows", help="capture.pcap and labels.jsonl → flows.parquet")
    flows.add_argument("folders", type=Path, nargs="+")
    ways = commands.add_parser(
        "uniflows", help="capture.pcap and labels.jsonl → uniflow.parquet, of mqtt- scenarios"
    )
    ways.add_argument("folders", type=Path, nargs="+")
    commands.add_parser("clean", help="remove what a killed run left")
    options = parser.parse_args(arguments)
    if options.command == "run":
        return _run(options.scenario, options.seed, options.out)
    if options.command == "flows":
        from tests.lab import metering

        for folder in options.folders:
            print(metering.summary(metering.write(folder)))
        return 0
    if options.command == "uniflows":
        from tests.lab import uniflows

        for folder in options.folders:
            print(uniflows.summary(uniflows.write(folder)))
        return 0
    print("\n".join(runner.clean()))
    return 0


def _run(name: str, seed: int, out: Path) -> int:
    lacking = runner.missing()
    if lacking:
        print(f"needs: apt-get install {' '.join(sorted(set(lacking.values())))}", file=sys.stderr)
        return 2
    if os.geteuid():
        print("needs: root, for network namespaces", file=sys.stderr)
        return 2
    try:
        facts = runner.run(runner.load(name), seed, out, lambda text: print(text, file=sys.stderr))
    except KeyboardInterrupt:
        print("interrupted; namespaces removed", file=sys.stderr)
        return 130
    counts = Counter(activity.klass for activity in labels.read(out / "labels.jsonl"))
    print(
        f"{out}: {', '.join(f'{klass} {count}' for klass, count in counts.items())}; "
        f"{facts['tcpdump']}"
    )
    for failure in facts["failures"]:  # type: ignore[attr-defined]
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if facts["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
