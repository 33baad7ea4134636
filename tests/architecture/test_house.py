"""The rules that keep the house liveable, checked on the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import quantiles

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "ids_plugin"
FILES = sorted(
    path for folder in ("ids_plugin", "consumers") for path in (ROOT / folder).rglob("*.py")
)
ROOMS = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()}
BASE = {"bundle", "checkpoint", "config", "errors", "kafka", "registry", "schema", "writing"}
FRONT_DOOR = {"api", "cli", "commands", "ids_plugin"}
MAY_IMPORT = {
    "pipeline": ROOMS - {"commands", "compression", "models", "training"},
    "windows": {"features"},
    "detectors": {"explain", "features", "scoring", "windows"},
    "engines": {"detectors", "explain", "features", "scoring", "windows"},
    "sources": {"elastic", "flowmeter"},
    "sinks": {"elastic"},
    "datasets": {"sources"},
    "feedback": {"alerts", "elastic", "engines", "pipeline"},
    "training": {
        "alerts",
        "datasets",
        "detectors",
        "engines",
        "explain",
        "features",
        "models",
        "pipeline",
        "scoring",
        "sources",
        "windows",
    },
    "compression": {
        "datasets",
        "detectors",
        "features",
        "models",
        "scoring",
        "training",
        "windows",
    },
}
"""What each place may import beside the base and itself; places not named here import no other
room."""
BASE_ORDER = ("errors", "registry", "config", "writing", "kafka", "checkpoint", "schema", "bundle")
"""A place of the base imports only those before it."""
LARGEST_SHARE = 0.2
MOST_FILES = 15
TORCH_ROOMS = {"models", "training", "compression"}
PURE_ROOMS = {"features", "windows", "models", "explain", "alerts", "schema"}
BROAD = {"Exception", "BaseException"}
HEAVY = {"torch", "pandas", "sklearn", "onnx", "scipy"}


def place(path: Path) -> str:
    """Room or top-level module a file belongs to."""
    relative = path.relative_to(LIBRARY)
    if relative.name == "__init__.py" and len(relative.parts) == 1:
        return "ids_plugin"
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def module_name(path: Path) -> str:
    """Dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every module of ours that a file imports, relative imports resolved."""
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                name = inner if inner in MODULES else base
                if name in MODULES:
                    yield node.lineno, name


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            if node.module == "ids_plugin":
                yield from ((node.lineno, f"ids_plugin.{alias.name}") for alias in node.names)


def absolute_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of what a file imports by a name that doesn't begin with a dot."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_imports_go_one_way() -> None:
    wrong = []
    for path in FILES:
        if not path.is_relative_to(LIBRARY):
            continue
        here = place(path)
        if here in FRONT_DOOR:
            continue
        base = BASE_ORDER[: BASE_ORDER.index(here)] if here in BASE else BASE
        allowed = {*base, here, "__version__"} | MAY_IMPORT.get(here, set())
        for line, name in imports(path):
            if name.startswith("consumers"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
            parts = name.split(".")
            if parts[0] == "ids_plugin" and len(parts) > 1 and parts[1] not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_torch_and_other_heavy_packages_stay_where_they_belong() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if not path.is_relative_to(LIBRARY) or place(path) not in TORCH_ROOMS
        for line, name in imports(path)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_rooms_do_no_input_or_output() -> None:
    outside = re.compile(
        r"\bopen\(|\bsocket\b|\bsubprocess\b|\burllib\b|\.write_(text|bytes)\(|\bprint\("
    )
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        if path.is_relative_to(LIBRARY) and place(path) in PURE_ROOMS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if outside.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_library_never_reads_the_wall_clock() -> None:
    clock = re.compile(r"\btime\.time\(|datetime\.now\(|\.utcnow\(|\btime\.sleep\(")
    edges = {"api", "cli", "commands", "training", "compression"}
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        if path.is_relative_to(LIBRARY) and place(path) not in edges
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if clock.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_function_is_annotated() -> None:
    wrong = []
    for path, function in functions():
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in {"self", "cls"}]
        if bare or function.returns is None:
            wrong.append(f"{path.relative_to(ROOT)}:{function.lineno} {function.name} {bare}")
    assert not wrong, "\n".join(wrong)


def test_functions_are_short() -> None:
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for _, node in functions()]
    assert quantiles(lengths, n=10)[-1] <= 35


def test_public_things_say_what_they_are() -> None:
    wrong = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            wrong.append(f"{path.relative_to(ROOT)}: module")
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    assert not wrong, "\n".join(wrong)


def test_settings_are_read_in_one_place() -> None:
    environment = re.compile(r"\bos\.environ\b(?!\.setdefault)|\bgetenv\(")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        if path != LIBRARY / "config.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if environment.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_consumers_are_installed_under_a_name_that_cannot_clash() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if not path.is_relative_to(LIBRARY)
        for line, name in absolute_imports(path)
        if name.split(".")[0] in {"consumers", "ids_consumers"}
    ]
    assert not wrong, "within consumers only relative imports hold:\n" + "\n".join(wrong)


def test_processes_know_nothing_of_command_lines() -> None:
    """Options are parsed in consumers/commands; the processes get settings and typed options."""
    command_line = ("argparse", "ids_plugin.commands", "ids_plugin.cli")
    edges = {ROOT / "consumers/cli.py", *(ROOT / "consumers/commands").glob("*.py")}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in FILES
        if not path.is_relative_to(LIBRARY) and path not in edges
        for line, name in absolute_imports(path)
        if name.startswith(command_line)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_package_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {module_name(path.parent / "__init__.py") for path in FILES}
    installed = {re.sub(r"^consumers", "ids_consumers", name) for name in packages}
    assert set(setuptools["packages"]) == installed | {"ids_dashboards"}


def test_broad_excepts_live_in_the_consumers_only() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in BROAD)
            if broad and path.is_relative_to(LIBRARY) and path.stem != "cli":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "module", ["ids_plugin.pipeline", "ids_plugin.cli", "ids_plugin.scoring.scorer"]
)
def test_serving_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{name.split('.')[0] for name in sys.modules}} & {HEAVY!r}))"  # noqa: E501
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "[]"


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: {to for _, to in imported_modules(path)} for name, path in MODULES.items()}
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_a_leading_underscore_is_private_to_its_package() -> None:
    files = [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]
    wrong = []
    for path in files:
        here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for line, name in imports(path):
            parts = name.split(".")
            private = [
                number
                for number, part in enumerate(parts)
                if part.startswith("_") and not part.startswith("__")
            ]
            if parts[0] not in {"ids_plugin", "consumers", "ids_consumers", "tests"} or not private:
                continue
            if not here.startswith(".".join(parts[: private[0]])):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_room_outgrows_the_house() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    total = sum(lines.values())
    for room in ROOMS | {"consumers"}:
        root = ROOT / room if room == "consumers" else LIBRARY / room
        share = sum(count for path, count in lines.items() if path.is_relative_to(root)) / total
        assert share <= LARGEST_SHARE, f"{room} holds {share:.0%} of the lines"
    for folder in {path.parent for path in FILES}:
        count = len(list(folder.glob("*.py")))
        assert count <= MOST_FILES, f"{folder.relative_to(ROOT)} has {count} files at one level"
