"""What hosts do. A module here is a class of `ids_plugin.schema.score.CLASSES`; its public
functions are behaviours.

A behaviour is called as `behaviour(stage, me, rng, **options)` in a thread inside the host `me`;
the options come from the scenario. It labels what it does with `stage.activity`, and every attack
is bounded by counts and by time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ids_plugin.schema.score import CLASSES

Behaviour = Callable[..., None]


def find(name: str) -> Behaviour:
    """The behaviour called `class.function`; ValueError when there is none."""
    klass, _, function = name.partition(".")
    if klass not in CLASSES or function.startswith("_"):
        raise ValueError(
            f"no behaviour {name!r}: it is CLASS.FUNCTION with a class of {', '.join(CLASSES)}"
        )
    found = getattr(importlib.import_module(f"tests.lab.behaviours.{klass}"), function, None)
    if not callable(found):
        raise ValueError(f"no behaviour {name!r} in tests/lab/behaviours/{klass}.py")
    return found  # type: ignore[no-any-return]
