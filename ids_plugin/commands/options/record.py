"""A run record: what was run, with which versions, on which bytes, and what came out, as JSON
beside what it made."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ids_plugin import __version__
from ids_plugin.errors import UsageError

_LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime", "polars", "scikit-learn", "torch")
_OURS = ("run", "command", "debug", "quiet", "json", "record")


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """`--record FILE`."""
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="write a run record there (JSON): options, versions, hashes of the data, figures",
    )


@contextlib.contextmanager
def recorded(args: argparse.Namespace, specs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What is put into the dictionary meanwhile is the run's result; the record is written when all
    went well.

    Raises:
        UsageError: the record can't be written; where its folder isn't there, before anything is
            done.
        InputError: a file of `specs` is gone.
    """
    began, wall, cpu = datetime.now(UTC), time.monotonic(), time.process_time()
    result: dict[str, Any] = {}
    if args.record and not Path(args.record).absolute().parent.is_dir():
        raise UsageError(
            "can't write the run record: there is no such folder", location=str(args.record)
        )
    yield result
    if not args.record:
        return
    options = {name: value for name, value in vars(args).items() if name not in _OURS}
    write(
        Path(args.record),
        {
            "command": args.command,
            "options": options,
            "began": began.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - wall, 3),
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "versions": {
                "ids-plugin": __version__,
                "python": platform.python_version(),
                **_versions(),
            },
            "machine": {"platform": platform.platform(), "processors": os.cpu_count()},
            "data": _digests(specs, options.get("labels")),
            "result": result,
        },
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _digests(specs: Sequence[str], labels: Path | None) -> list[dict[str, str]]:
    import hashlib

    from ids_plugin.datasets.labelled_flows import files

    named = [(spec, file) for spec in specs for file in files(spec)]
    named += [("--labels", labels)] if labels else []
    return [
        {"spec": spec, "file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for spec, file in named
    ]


def write(target: Path, record: Mapping[str, Any]) -> None:
    """All of it or nothing.

    Raises:
        UsageError: it can't be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            made = Path(folder) / "record.json"
            made.write_text(json.dumps(record, indent=1, default=str) + "\n")
            made.replace(target)
    except OSError as error:
        raise UsageError(
            f"can't write the run record: {error.strerror}", location=str(target)
        ) from error
