"""A real Zeek or Suricata as the meter of captures: it runs in a temporary folder, its log is read
as any other."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ids_plugin.errors import InputError, UsageError
from ids_plugin.schema import flow
from ids_plugin.schema.reject import Reject
from ids_plugin.sources import Input, Read, Source
from ids_plugin.sources.readers.lines import HEAD
from ids_plugin.sources.suricata import PLUGIN as SURICATA
from ids_plugin.sources.zeek import PLUGIN as ZEEK

CAPTURE = ("-r", "capture.pcap")
FLOW_ONLY = """%YAML 1.1
---
outputs:
  - eve-log: {enabled: yes, filetype: regular, filename: eve.json, types: [flow]}
stats: {enabled: no}
stream: {midstream: true}
"""
"""Suricata's configuration: no rules, flow records only, connections in the middle too."""


@dataclass(frozen=True)
class Program:
    """How a program is run on `capture.pcap` in the current folder, and where it writes what
    `source` reads."""

    command: tuple[str, ...]
    log: str
    source: Source
    install: str


PROGRAMS = {
    "zeek": Program(
        ("zeek", "-C", *CAPTURE),
        "conn.log",
        ZEEK,
        "install Zeek, https://docs.zeek.org/en/current/install.html, and have `zeek` in PATH",
    ),
    "suricata": Program(
        (
            "suricata",
            "-c",
            "suricata.yaml",
            "-S",
            "/dev/null",
            "-k",
            "none",
            "--runmode",
            "single",
            "-l",
            ".",
            *CAPTURE,
        ),
        "eve.json",
        SURICATA,
        "apt-get install suricata, or https://docs.suricata.io/en/latest/install.html",
    ),
}


def measure(name: str, source: Input, batch_rows: int) -> Iterator[Read]:
    """Flows of a capture as the program `name` measures them.

    Raises:
        UsageError: there is no such meter, or its program isn't installed.
        InputError: the program wrote nothing, or there is no room for the capture.
    """
    program = PROGRAMS.get(name)
    if program is None:
        raise UsageError(
            f"no meter called {name!r}", hint=f"there are: builtin, {', '.join(PROGRAMS)}"
        )
    if shutil.which(program.command[0]) is None:
        raise UsageError(
            f"--meter {name} needs {program.command[0]}, which isn't installed",
            hint=program.install,
        )
    with tempfile.TemporaryDirectory(prefix="ids-plugin-") as folder:
        work_folder = Path(folder)
        _lay_out(source, work_folder)
        done = subprocess.run(
            program.command,
            cwd=work_folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        last_words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        log = work_folder / program.log
        if done.returncode and not (log.exists() and log.stat().st_size):
            raise InputError(f"{name} can't read it: {last_words}", location=source.name)
        if log.exists():
            with log.open("rb") as stream:
                head = stream.read(HEAD)
                stream.seek(0)
                for step in program.source.read(
                    replace(source, stream=stream, head=head), batch_rows
                ):
                    yield replace(step, source=program.source.name)
        if done.returncode:
            reject = Reject(source.name, "end", f"{name}_stopped", last_words, "")
            yield Read(flow.empty(), 1, (reject,), source=program.source.name)


def _lay_out(source: Input, work_folder: Path) -> None:
    """What the programs read."""
    try:
        with (work_folder / "capture.pcap").open("wb") as capture:
            shutil.copyfileobj(source.stream, capture)
        (work_folder / "suricata.yaml").write_text(FLOW_ONLY)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        hint = "as much as the capture is needed there, unpacked; TMPDIR chooses another place"
        raise InputError(
            f"can't keep the capture: {why}", location=str(work_folder), hint=hint
        ) from error
