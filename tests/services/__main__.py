"""`python -m tests.services kafka elasticsearch`: starts them, says where they are, ends them on
Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import signal
from types import FrameType

from tests.services import Elasticsearch, Kafka, missing

KINDS: dict[str, type[Kafka] | type[Elasticsearch]] = {
    "kafka": Kafka,
    "elasticsearch": Elasticsearch,
}


def main() -> None:
    """Runs the named services until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(KINDS))
    parser.add_argument("--build", action="store_true", help="fetch and build only")
    arguments = parser.parse_args()
    if reason := missing():
        parser.exit(2, f"{reason}\n")
    services = [KINDS[name]() for name in arguments.names]
    with contextlib.ExitStack() as stack:
        for service in services:
            stack.callback(service.close)
        if arguments.build:
            return
        signal.signal(signal.SIGTERM, _stop)
        with contextlib.suppress(KeyboardInterrupt):
            for service in services:
                service.start()
                where = service.bootstrap if isinstance(service, Kafka) else service.url
                print(
                    f"{type(service).__name__.lower()} {where} (process {service.pid}, "
                    f"{service.folder})",
                    flush=True,
                )
            signal.pause()


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


main()
