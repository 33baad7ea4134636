"""The rules that keep the house liveable, checked on the source itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "ids_plugin"
FILES = sorted(path for folder in ("ids_plugin", "consumers") for path in (ROOT / folder).rglob("*.py"))
ROOMS = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()} - {"schema", "bundles"}
BASE = {"errors", "config", "registry", "bundle", "kafka", "elastic", "snapshot", "schema", "__init__"}
MAY_IMPORT = {
    "cli": {"*"},
    "commands": {"*"},
    "pipeline": ROOMS - {"training", "compress", "models", "commands"},
    "windows": {"features"},
    "training": {"models", "features", "windows", "sources", "scoring", "explain", "alerts"},
    "compress": {"models", "training", "features", "windows", "sources", "scoring"},
}
"""What each place may import beside the base and itself; rooms not named here import no other room."""
TORCH_ROOMS = {"models", "training", "compress"}
PURE_ROOMS = {"features", "windows", "models", "explain", "alerts", "schema"}
BROAD = {"Exception", "BaseException"}
HEAVY = {"torch", "pandas", "sklearn", "onnx", "scipy"}


def place(path: Path) -> str:
    """Room or top-level module a file belongs to."""
    relative = path.relative_to(LIBRARY)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            if node.module == "ids_plugin":
                yield from ((node.lineno, f"ids_plugin.{alias.name}") for alias in node.names)


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
        allowed = BASE | {here} | MAY_IMPORT.get(here, set())
        for line, name in imports(path):
            if name.startswith("consumers"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
            parts = name.split(".")
            if parts[0] == "ids_plugin" and len(parts) > 1 and not {"*", parts[1]} & allowed:
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
    outside = re.compile(r"\bopen\(|\bsocket\b|\bsubprocess\b|\burllib\b|\.write_(text|bytes)\(|\bprint\(")
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
    edges = {"cli", "commands", "training", "compress"}
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
        for line, name in imports(path)
        if name.split(".")[0] in {"consumers", "ids_consumers"}
    ]
    assert not wrong, "within consumers only relative imports hold:\n" + "\n".join(wrong)


def test_every_package_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in LIBRARY.rglob("*.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(setuptools["packages"]) == packages | setuptools["package-dir"].keys()
    assert all((ROOT / folder).is_dir() for folder in setuptools["package-dir"].values())


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


@pytest.mark.parametrize("module", ["ids_plugin.pipeline", "ids_plugin.cli", "ids_plugin.scoring._scorer"])
def test_serving_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{name.split('.')[0] for name in sys.modules}} & {HEAVY!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
