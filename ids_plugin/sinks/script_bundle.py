"""ES modules as one inline script, since browsers refuse to import modules over `file://`.

Every module becomes a function that is called once, in the order of the imports; its exports are
the fields of what the function returns:

    import { words } from "./text.js";      const { words } = textModule;
    export function render() { … }          function render() { … }   …   return { render };

Only named imports from files of the same folder, and exported functions and constants, are
understood; anything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function (\w+)|const (\w+))", re.MULTILINE)
OTHER_STATEMENT = re.compile(r"^(?:import|export)\b.*|</script|<!--", re.MULTILINE)


def bundle_modules(modules: Mapping[str, str], entry: str) -> str:
    """The text of a script that runs the module `entry` with all that it imports.

    Args:
        modules: name (of the file, without `.js`) → source text.
        entry: name of the module that starts the page.

    Raises:
        ValueError: a module is missing, imports are circular, or a statement isn't understood.
    """
    imports: dict[str, list[str]] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name not in modules:
            raise ValueError(f"there is no module {name}.js")
        if name not in imports:
            imports[name] = [match[2] for match in IMPORT.finditer(modules[name])]
            waiting += imports[name]
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        raise ValueError(f"circular imports: {' → '.join(error.args[1])}") from error
    return "\n".join(_function(name, modules[name]) for name in order)


def _function(name: str, source: str) -> str:
    exported = [match[1] or match[2] for match in EXPORT.finditer(source)]
    body = EXPORT.sub("", IMPORT.sub(_destructuring, source))
    if other := OTHER_STATEMENT.search(body):
        raise ValueError(f"{name}.js: can't be bundled: {other[0]}")
    return f"const {name}Module = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();"


def _destructuring(statement: re.Match[str]) -> str:
    names = [part.strip().replace(" as ", ": ") for part in statement[1].split(",")]
    return f"const {{ {', '.join(filter(None, names))} }} = {statement[2]}Module;"
