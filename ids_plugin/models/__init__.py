"""Architectures only: window spec → something that can be trained. A file here that defines `PLUGIN` is a family."""

from __future__ import annotations

from typing import Any, Protocol

from ids_plugin.schema.window import Spec


class Family(Protocol):
    """A model family. `build` gives a torch module, or the parameters of a tree learner."""

    name: str
    kind: str
    """`torch` or `lightgbm`"""
    paper: str
    """where the architecture was published"""

    def build(self, spec: Spec, classes: int, **options: Any) -> Any: ...
