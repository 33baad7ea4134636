"""What the targets of `ids-plugin setup` say of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from ids_plugin.commands import Console, counted

UNCHANGED = ("keep", "look", "skip")
"""actions that change nothing"""


class Step(Protocol):
    """One object: what was done with it, or would be."""

    @property
    def name(self) -> str: ...

    @property
    def action(self) -> str: ...

    @property
    def why(self) -> str: ...

    def _asdict(self) -> dict[str, Any]: ...


AnyStep = TypeVar("AnyStep", bound=Step)


def report(
    steps: Iterable[AnyStep],
    console: Console,
    *,
    what: str,
    kind: Callable[[AnyStep], str],
    dry_run: bool,
) -> None:
    """Says each step while it is done, then how many there were; `keep` only where it has a reason.

    Args:
        steps: of `install`.
        what: one of the things that were set up, such as `topic`.
        kind: of the thing of a step, in words.
        dry_run: nothing is changed.
    """
    done = []
    for step in steps:
        done.append(step)
        if step.action == "keep" and not step.why:
            continue
        doing = step.action
        if doing == "look":
            doing = "look at"
        elif dry_run and doing != "keep":
            doing = f"would {doing}"
        console.say(f"{doing} {kind(step)} {step.name}" + (f": {step.why}" if step.why else ""))
    changes = sum(step.action not in UNCHANGED for step in done)
    console.say(f"{counted(len(done), what)}, {changes} {'to change' if dry_run else 'changed'}")
    if console.json:
        console.result([step._asdict() for step in done])
