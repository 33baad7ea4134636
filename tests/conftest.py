"""In `.ci/run` nothing is skipped silently: there a skip is a failure, but for what can't be
installed at all.

Tests that take `kafka` or `elasticsearch` share one real server of each, which is started for the
first of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests import services

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("exploring", deadline=None)
settings.load_profile("repeatable" if os.environ.get("CI") else "exploring")
"""A run that others wait for draws the same examples every time; everybody else's run looks for new
ones."""

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
"""Whoever runs us in the background may have these ignored or blocked, and so would the processes
we start."""

NO_SKIPS = bool(os.environ.get("IDS_NO_SKIPS"))
EXCUSED = ("not installable here", "not possible here", "shared data")
"""beginnings or parts of reasons that are no failure: programs that no package registry carries,
public data sets"""


SERVICE_FIXTURES = frozenset({"java", "kafka", "elasticsearch"})
BROWSER_TESTS = frozenset({"test_report.py", "test_kibana_vega.py"})
LAB_TESTS = frozenset({"test_lab.py"})
SLOW_FOLDERS = frozenset({"property", "training", "compression", "bench"})
"""of the tests: they train, or draw inputs by the hundred"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives every test the marker of its layer (CONTRIBUTING.md): where it lies and what it takes
    decide."""
    for item in items:
        name = item.path.name
        if name in BROWSER_TESTS:
            item.add_marker("browser")
        elif name in LAB_TESTS:
            item.add_marker("lab")
        elif item.path.parent.name == "integration" or _takes_services(item):
            item.add_marker("integration")
        elif item.path.parent.name in SLOW_FOLDERS:
            item.add_marker("slow")
        elif item.get_closest_marker("slow") is None:
            item.add_marker("unit")


def _takes_services(item: pytest.Item) -> bool:
    return bool(SERVICE_FIXTURES & set(getattr(item, "fixturenames", ())))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns skips into failures where IDS_NO_SKIPS is set."""
    report = yield
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = (
            str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        )
        if not any(excuse in reason for excuse in EXCUSED):
            report.outcome = "failed"
            report.longrepr = f"skipped, but everything must run here: {reason}"
    return report


@pytest.fixture(scope="session")
def java() -> None:
    """Skips where no service can be built; for tests that start services of their own."""
    if reason := services.missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka(java: None) -> Iterator[services.Kafka]:
    """The session's broker: `.bootstrap`, `.topic(name)` makes a topic of one's own,
    `.read(topic)`. Don't stop it."""
    with services.Kafka() as server:
        yield server


@pytest.fixture(scope="session")
def elasticsearch(java: None) -> Iterator[services.Elasticsearch]:
    """The session's Elasticsearch: `.url`; names of indices by `services.unique`; not to be
    stopped."""
    with services.Elasticsearch() as server:
        yield server
