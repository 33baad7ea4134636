"""What a behaviour gets to work with: the hosts, the clock, tools inside its namespace, and the
label book."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.labels import Activity
from tests.lab.network import Host, Network


class Stopped(Exception):
    """The run is over; ends the thread of a behaviour."""


@dataclass
class Stage:
    """One run. Everything random comes from generators seeded by scenario, seed and place."""

    network: Network
    scenario: str
    seed: int
    folder: Path
    """scratch files of the daemons and tools"""
    duration: float = 0.0
    busy: float = 1.0
    """factor on the waiting times of everyday traffic"""
    weight: float = 1.0
    """factor on the sizes of web pages"""
    sites: list[str] = field(default_factory=list)
    clouds: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    """outside addresses nobody has taken: silent until owned"""
    annex: str = ""
    """a second local network behind the router, mostly silent"""
    names: dict[str, str] = field(default_factory=dict)
    """host names → addresses, as the DNS servers answer them"""
    activities: list[Activity] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """what tools and servers saw, for checking that an attack did what it says"""

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def rng(self, *place: object) -> random.Random:
        """A generator of its own for a place in the run."""
        return random.Random(":".join(map(str, (self.scenario, self.seed, *place))))

    def role(self, *roles: str) -> list[Host]:
        """Hosts that have one of the roles."""
        return [host for host in self.network.hosts if host.role in roles]

    def local(self) -> list[Host]:
        """Hosts of the local network, but the crowd."""
        return [
            host
            for host in self.network.hosts
            if host.role not in {"internet", "outside", "tunnel", "crowd"}
        ]

    def one(self, role: str) -> Host:
        """The host of a role that has one."""
        return self.role(role)[0]

    def outsider(self, rng: random.Random, *, answers: bool = True) -> str:
        """An outside address nobody used yet; one that answers belongs to the internet host from
        now on."""
        with self._lock:
            address = self.spare.pop(rng.randrange(len(self.spare)))
        if answers:
            self.network.own(self.one("internet"), address)
        return address

    def sleep(self, seconds: float) -> None:
        """Waits; raises Stopped when the run ends meanwhile."""
        if self.over.wait(max(seconds, 0.0)):
            raise Stopped

    def pause(self, rng: random.Random, interval: float, jitter: float) -> None:
        """Waits about `interval` seconds, give or take the share `jitter` of it."""
        self.sleep(interval * rng.uniform(1 - jitter, 1 + jitter))

    def note(self, text: str) -> None:
        """Remembers what a tool or server saw."""
        with self._lock:
            self.notes.append(text)

    def start(self, host: Host, work: Callable[[], None], name: str) -> None:
        """Runs work in a thread inside the host; a failure of it is recorded, the end of the run is
        none."""

        def body() -> None:
            try:
                host.enter()
                work()
            except Stopped:
                pass
            except Exception as error:  # noqa: BLE001 - reported when the run ends
                if not self.over.is_set():
                    with self._lock:
                        self.failures.append(f"{name}: {type(error).__name__}: {error}")

        thread = threading.Thread(target=body, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    @contextmanager
    def activity(
        self,
        klass: str,
        technique: str,
        name: str,
        orig: Iterable[Host | str] | None,
        resp: Iterable[Host | str] | None,
        proto: str | None,
        ports: Sequence[int] | None,
    ) -> Iterator[None]:
        """Labels what happens inside the block, also when it is cut off by the end of the run."""
        begin = time.time()
        try:
            yield
        finally:
            line = Activity(
                start=round(begin, 3),
                end=round(time.time(), 3),
                klass=klass,
                technique=technique,
                activity=name,
                orig=_names(orig),
                resp=_names(resp),
                proto=proto,
                ports=None if ports is None else tuple(ports),
            )
            with self._lock:
                self.activities.append(line)

    def spawn(
        self, command: Sequence[str], private: dict[str, Path] | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a program in the calling thread's namespace; it is ended with the run.

        Args:
            private: files that this program alone sees in place of others (path → what is seen
                there).
        """
        log = (self.folder / f"{Path(command[0]).name}-{len(self._running)}.log").open("wb")
        words = list(command)
        if private:
            mounts = " && ".join(f"mount --bind {file} {path}" for path, file in private.items())
            words = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        with self._lock:
            self._running.append(process)
        return process

    def tool(self, command: Sequence[str], limit: float) -> str:
        """Runs a program to its end or the limit in seconds, and gives what it printed. Stopped
        ends it too."""
        file = self.folder / f"tool-{threading.get_ident()}-{time.monotonic_ns()}.txt"
        with file.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with self._lock:
            self._running.append(process)
        deadline = time.monotonic() + limit
        try:
            while process.poll() is None and time.monotonic() < deadline:
                self.sleep(0.05)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        return file.read_text(errors="replace")

    def finish(self) -> None:
        """Ends behaviours, then programs."""
        self.over.set()
        deadline = time.monotonic() + 6
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _names(hosts: Iterable[Host | str] | None) -> tuple[str, ...] | None:
    if hosts is None:
        return None
    return tuple(
        name
        for host in hosts
        for name in ((host,) if isinstance(host, str) else (host.address, *host.also))
    )
