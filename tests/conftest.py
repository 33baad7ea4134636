"""In `.ci/run` nothing is skipped silently: there a skip is a failure, but for what can't be installed at all."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("exploring", deadline=None)
settings.load_profile("repeatable" if os.environ.get("CI") else "exploring")
"""A run that others wait for draws the same examples every time; everybody else's run looks for new ones."""

NO_SKIPS = bool(os.environ.get("IDS_NO_SKIPS"))
EXCUSED = ("not installable here", "not possible here", "shared data")
"""beginnings or parts of reasons that are no failure: programs that no package registry carries, public data sets"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns skips into failures where IDS_NO_SKIPS is set."""
    report = yield
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(excuse in reason for excuse in EXCUSED):
            report.outcome = "failed"
            report.longrepr = f"skipped, but everything must run here: {reason}"
    return report
