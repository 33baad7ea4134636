"""What both services have in common: a cached build, a process that never outlives us, and free
ports."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 120
"""a cold start of either takes 4 to 10 s on two quiet cores; the rest is for machines that others
use too"""

QUICK_START = ("-XX:TieredStopAtLevel=1",)
"""options of a JVM that starts for half the CPU time (Elasticsearch 8 s for 16, Kafka 3 for 4) and
runs slower; benches pass `options=()`"""

SURVIVOR = 'read -r _; kill -s KILL -- "-$1"'
"""shell: waits until the other end of its standard input is closed, which the kernel does when we
die; then ends a process group"""


def missing() -> str:
    """Why no service can be built here; empty where one can."""
    if absent := [program for program in ("javac", "java", "mvn") if not shutil.which(program)]:
        return f"needs {', '.join(absent)}: apt-get install openjdk-17-jdk-headless maven"
    return ""


def unique(name: str) -> str:
    """A topic, group or index name that no other test of this session has: letters, digits,
    underscores."""
    return f"{name}_{secrets.token_hex(4)}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def built(name: str, sources: Iterable[Path], build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills, once per content of its sources, however many processes ask
    for it."""
    home = Path(os.environ.get("IDS_SERVICES") or Path.home() / ".cache/ids-plugin/services")
    home.mkdir(parents=True, exist_ok=True)
    content = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder, half = home / f"{name}-{content[:12]}", home / f"{name}-{content[:12]}.half"
    with (home / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            build(half)
            half.rename(folder)
    return folder


class Server(ABC):
    """One service: starts on ports of its own, in a folder of its own, and is gone when we are.

    `folder` keeps configuration, data and logs (default: a temporary one, removed by `close`).
    """

    def __init__(self, folder: Path | None) -> None:
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"ids-{type(self).__name__.lower()}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pid = 0
        self._guard: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _launch(self) -> int:
        """Starts the process and returns its id."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether it answers."""

    @abstractmethod
    def log(self) -> str:
        """What it wrote since its last start."""

    def start(self) -> Self:
        """Starts it, or starts it again on the data and ports it had; returns when it answers."""
        if self.running():
            return self
        self.pid = self._launch()
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if not self.running() or time.monotonic() > deadline:
                self.kill9()
                raise RuntimeError(f"{type(self).__name__} didn't start:\n{self.log()[-5000:]}")
            time.sleep(0.1)
        return self

    def running(self) -> bool:
        """Whether its process is alive."""
        if not self.pid:
            return False
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self, seconds: float = 60) -> None:
        """Asks it to end (SIGTERM) and waits; killed when it doesn't within the given time."""
        self._end(signal.SIGTERM, seconds)

    def kill9(self) -> None:
        """Ends it at once (SIGKILL); the data stays."""
        self._end(signal.SIGKILL, 30)

    def restart(self) -> None:
        """An orderly stop and a start on the same data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freezes it (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Ends a pause."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends it for good and removes its temporary folder."""
        self.kill9()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _spawn(
        self, command: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> int:
        """Starts a process group that ends when we do; its id, which is that of its first
        process."""
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", SURVIVOR, "sh", str(process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return process.pid

    def _end(self, how: signal.Signals, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        if self.running():
            os.kill(self.pid, how)
        while self.running():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline += 10
            time.sleep(0.05)
        self.pid = 0
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
