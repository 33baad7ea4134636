"""Bench `models`: every family and baseline, on every data set, beside the published figures.

    python -m tests.bench.models --all --json
    python -m tests.bench.models --all --seconds 3600 --page docs/results.md
    python -m tests.bench.models --only lab/cnn --only nslkdd --seeds 1

A cell is a family in a section with one seed. What is finished is kept under --work with the
bundles that were trained, so a run goes on where the one before it stopped; what was made with
other settings, data or windows is made again. Cells that weren't run are listed. The public sets
are read from IDS_SHARED_DATA; a section whose set is absent can't run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.models import records
from tests.bench.models.flows import REPOSITORY, say
from tests.bench.models.page import classes, page
from tests.bench.models.sections import SECTIONS, Bench, cells
from tests.bench.models.settings import QUICK, Settings
from tests.bench.models.store import Cell, Store

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ids-plugin" / "models"


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(
        "python -m tests.bench.models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--all", action="store_true", help="every cell")
    made.add_argument(
        "--only", action="append", default=[], metavar="SECTION[/FAMILY]",
        help=f"these cells alone; may be repeated. Sections: {', '.join(SECTIONS)}",
    )  # fmt: skip
    made.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="seeds 1 to N (default: %(default)s)"
    )
    made.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="start no cell later than S seconds after the start",
    )
    made.add_argument(
        "--quick", action="store_true", help="tiny sizes, only to see that everything runs"
    )
    made.add_argument("--json", action="store_true", help="print every result as JSON")
    made.add_argument(
        "--page", type=Path, metavar="FILE", help="write all that is finished there (Markdown)"
    )
    made.add_argument(
        "--work",
        type=Path,
        default=CACHE,
        help="where cells, bundles and windows are kept (%(default)s)",
    )
    made.add_argument(
        "--corpus", type=Path, metavar="DIR",
        help="what `ids-plugin simulate --corpus` wrote (default: made under --work)",
    )  # fmt: skip
    return made


def main(arguments: list[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    unknown = [one for one in args.only if one.partition("/")[0] not in SECTIONS]
    if unknown:
        parser().error(
            f"no section called {unknown[0].partition('/')[0]!r}; there are: {', '.join(SECTIONS)}"
        )
    settings = QUICK if args.quick else Settings()
    bench = Bench(
        settings, Store(args.work, settings.as_dict()), args.corpus or args.work / "corpus"
    )
    wanted = [cell for cell in cells(args.seeds) if args.all or _named(cell, args.only)]
    run(bench, wanted, args.seconds)
    results = {cell: finished(bench, cell) for cell in cells(args.seeds)}
    left = [cell for cell in (wanted or list(results)) if results[cell] is None]
    if args.page:
        args.page.write_text(page(settings, results))
        args.page.with_name(f"{args.page.stem}-classes.md").write_text(classes(results))
    if args.json:
        print(json.dumps(_told(settings, results, left)))
    for cell in left:
        say(f"not run: {cell.name}")
    return 0


def run(bench: Bench, wanted: list[Cell], seconds: float | None) -> None:
    """Makes what isn't finished, in order, until the time is up."""
    began = time.monotonic()
    for cell in wanted:
        section = SECTIONS[cell.section]
        if finished(bench, cell) is not None:
            continue
        if section.public and records.absent(section.public):
            say(f"{cell.name}: {section.public} of the shared data is absent")
            continue
        if seconds is not None and time.monotonic() - began >= seconds:
            say("time is up")
            return
        say(f"{cell.name}: running, {time.monotonic() - began:.0f} s after the start")
        corpus(bench.corpus, cell)
        cpu = time.process_time()
        result = section.run(bench, cell)
        result["cell_cpu_s"] = round(time.process_time() - cpu, 1)
        bench.store.save(cell, result, *bench.made_from(section))


def finished(bench: Bench, cell: Cell) -> dict[str, Any] | None:
    """The cell's result where it was made from the data that are there."""
    return bench.store.load(cell, *bench.made_from(SECTIONS[cell.section]))


def corpus(folder: Path, cell: Cell) -> None:
    """Simulates the networks to train on where they are needed and absent."""
    if (
        cell.section in records.SETS
        or cell.section in ("nab", "devices")
        or (folder / "train.parquet").exists()
    ):
        return
    say("simulating networks")
    command = [
        sys.executable,
        "-m",
        "ids_plugin.cli",
        "simulate",
        "--corpus",
        "--out",
        str(folder),
    ]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=REPOSITORY)


def _named(cell: Cell, only: list[str]) -> bool:
    return any(one in (cell.section, f"{cell.section}/{cell.family}") for one in only)


def _told(
    settings: Settings, results: dict[Cell, dict[str, Any] | None], left: list[Cell]
) -> dict[str, Any]:
    """Everything, as JSON has it."""
    found: dict[str, Any] = {}
    for cell, result in results.items():
        if result is not None:
            found.setdefault(cell.section, {}).setdefault(cell.family, {})[str(cell.seed)] = result
    return {
        "settings": settings.as_dict(),
        "results": found,
        "not_run": [cell.name for cell in left],
    }


if __name__ == "__main__":
    sys.exit(main())
