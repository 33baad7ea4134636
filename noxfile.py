"""The project's tasks: `nox -l` lists them, `nox -s lint types unit` runs some. CI runs the same
sessions.

Sessions use the environment that nox runs in (`pip install -e '.[dev]'`): torch alone takes a
minute to install.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "unit"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports, line length, and the list of words that name nothing."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict, on the product and its tests."""
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """Tests without services, browsers and trainings: a minute and a half on two cores."""
    session.run("pytest", "-m", "unit", "-n", "2", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Full trainings and long property tests."""
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Real Kafka, Elasticsearch and Suricata; a service that isn't there skips its tests and says
    how to start it."""
    session.run("pytest", "-m", "integration", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The report and the Vega panels in Chromium."""
    session.run("pytest", "-m", "browser", *session.posargs)


@nox.session
def lab(session: nox.Session) -> None:
    """Real traffic between network namespaces; needs root."""
    session.run("pytest", "-m", "lab", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything, as the README has it."""
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def services(session: nox.Session) -> None:
    """Builds the servers that integration tests start."""
    session.run("python", "-m", "tests.services", "--build", "kafka", "elasticsearch")
