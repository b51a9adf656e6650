"""How the package is laid out: what may import what, what a bare import loads, module lengths.

The levels are those of `docs/design.md`, section 3.
"""

import ast
import functools
import importlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_PACKAGE = _ROOT / "src" / "bridgepool"

# Inside each package, its parts (subpackages, and modules beside them) in levels: each part may
# import those in the lines above it, and itself; no others in its own line.
LEVELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "bridgepool": (
        (
            "_backoff",
            "_errors",
            "_lazy",
            "_printable",
            "_refusal_log",
            "_secret",
            "_tcp",
            "_version",
        ),
        (
            "_snapshot",
            "_flights",
            "_options",
            "_services",
            "_network",
            "_alarm",
            "_shared_value",
            "_accepting",
        ),
        ("_generation", "_connection_limiter"),
        ("_ledger",),
        ("_singleflight", "_statistics"),
        ("_changes",),
        ("_bridge", "_keep_subscribed"),
        ("_build_scheduler", "_build_limiter"),
        ("_supervisor",),
        ("_lookup", "_reaper"),
        ("_pool", "http"),
        ("_reload",),
        ("",),  # the names that `import bridgepool` offers
        ("transports",),
        ("remote",),
        ("testing",),
        ("gateway",),
        ("__main__",),
    ),
    "bridgepool.gateway": (
        ("providers",),
        ("limits", "usage"),
        ("serving", "_protocol", "upstreams"),
        ("proxy",),
        ("metrics", "tracing", "_options"),
        ("_control_options",),
        ("control",),
        ("sources",),
        ("_opening", "_price_file", "_usage_sinks"),
        ("",),
        ("_process",),
        ("demo",),
        ("commands",),
    ),
    "bridgepool.gateway.control": (
        ("_errors", "_revisions"),
        ("_records", "_gateway_session", "_encryption", "database"),
        ("_documents", "_applied", "_key_usage", "_store_access", "_usage"),
        ("store",),
        (
            "operations",
            "_sessions",
            "_registration",
            "_key_renewal",
            "_refusal_audit",
            "_limit_shares",
        ),
        ("_gateway_service", "_memory", "_hub", "_embedded", "_first_keys", "_usage_retention"),
        ("api",),
        ("_metrics",),
        ("_process",),
        ("",),
    ),
}
# What others may use of these packages of `bridgepool.gateway.control`, each of them re-exports.
_CLOSED = ("database", "store", "api")
# Decide and record; no I/O, no clock, no scheduler.
_PURE = ("_snapshot", "_flights", "_generation", "_ledger")
_NOT_IN_THE_CORE = (
    "anyio", "cryptography", "cyclopts", "h11", "httpx2", "hypercorn", "hypothesis",
    "msgspec", "psycopg", "structlog", "truststore", "trio_websocket", "watchfiles",
)  # fmt: skip


def _module_name(path: Path) -> str:
    parts = path.relative_to(_PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_module_name(path): path for path in sorted(_PACKAGE.rglob("*.py"))}


@functools.cache
def _imports(name: str) -> frozenset[str]:
    """Return the modules that `name` imports as it runs, those in functions too."""
    return frozenset(_find_imports(name))


def _find_imports(name: str) -> Iterator[str]:
    tree = ast.parse(_MODULES[name].read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    package = name if _MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join(([*base] if node.level else []) + ([node.module or ""]))
            source = source.rstrip(".")
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in _MODULES else source


def _own_imports(name: str) -> set[str]:
    return {found for found in _imports(name) if found in _MODULES}


def _part(name: str, package: str) -> str:
    """Return the part of `package` that a module is in; empty for the package itself."""
    return name.removeprefix(package).lstrip(".").partition(".")[0]


def _within(names: Iterable[str], package: str) -> set[str]:
    return {name for name in names if f"{name}.".startswith(f"{package}.")}


def _allowed(part: str, package: str) -> set[str]:
    level_of = {part: level for level, parts in enumerate(LEVELS[package]) for part in parts}
    return {other for other, level in level_of.items() if level < level_of[part]} | {part}


@pytest.mark.parametrize("package", LEVELS)
def test_every_part_has_its_level(package: str) -> None:
    parts = {_part(name, package) for name in _within(_MODULES, package)}
    assert parts == {part for parts in LEVELS[package] for part in parts}


@pytest.mark.parametrize("name", _MODULES)
def test_imports_point_down(name: str) -> None:
    for package in LEVELS:
        if not _within([name], package):
            continue
        part = _part(name, package)
        imported = {_part(found, package) for found in _within(_own_imports(name), package)}
        assert imported <= _allowed(part, package)


@pytest.mark.parametrize("closed", _CLOSED)
def test_nobody_reaches_past_the_door_of_a_closed_package(closed: str) -> None:
    inside = f"bridgepool.gateway.control.{closed}."
    others = [n for n in _MODULES if not f"{n}.".startswith(inside)]
    reaching = {n for n in others if any(m.startswith(inside) for m in _own_imports(n))}
    assert reaching == set()


def test_there_is_no_cycle() -> None:
    order = TopologicalSorter({name: _own_imports(name) for name in _MODULES}).static_order()
    assert set(order) == set(_MODULES)


@pytest.mark.parametrize("part", _PURE)
def test_what_is_pure_neither_waits_nor_knows_trio(part: str) -> None:
    name = f"bridgepool.{part}"
    outside = {found.partition(".")[0] for found in _imports(name)} - {"bridgepool"}
    assert outside <= {"attrs", "collections", "enum", "math", "typing"}
    tree = ast.parse(_MODULES[name].read_text())
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
    assert not any(isinstance(node, waits) for node in ast.walk(tree))


def _modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_a_bare_import_brings_the_core_alone() -> None:
    loaded = _modules_after("import bridgepool")
    assert "trio" in loaded
    assert not loaded & set(_NOT_IN_THE_CORE)
    parts = {_part(name, "bridgepool") for name in loaded if name.startswith("bridgepool")}
    assert not parts & {"http", "gateway", "testing", "transports", "remote", "__main__"}


def test_a_websocket_brings_neither_http_nor_the_gateway() -> None:
    loaded = _modules_after("import bridgepool.transports.websocket")
    assert not {_part(name, "bridgepool") for name in loaded} & {"http", "gateway"}


@pytest.mark.parametrize("module", ["remote", "transports.websocket"])
def test_the_remote_side_brings_neither_http_nor_the_gateway(module: str) -> None:
    loaded = _modules_after(f"import bridgepool.{module}")
    assert f"bridgepool.{module}" in loaded
    parts = {_part(name, "bridgepool") for name in loaded if name.startswith("bridgepool")}
    assert not parts & {"http", "gateway", "testing"}


def test_the_test_kit_needs_only_hypothesis() -> None:
    loaded = _modules_after("import bridgepool.testing")
    assert loaded & set(_NOT_IN_THE_CORE) == {"hypothesis"}


@pytest.mark.parametrize("folder", ["src", "tests", "examples", "benchmarks", "tools"])
def test_no_module_is_longer_than_400_lines(folder: str) -> None:
    files = sorted((_ROOT / folder).rglob("*.py"))
    lengths = {str(path.relative_to(_ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def _rank(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions, each in the order of the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize(
    "name", [name for name, path in _MODULES.items() if path.name == "__init__.py"]
)
def test_public_names_are_listed_sorted_and_complete(name: str) -> None:
    package = importlib.import_module(name)
    listed: list[str] = list(getattr(package, "__all__", []))
    assert listed == sorted(listed, key=_rank)
    tree = ast.parse(_MODULES[name].read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module not in ("typing", "bridgepool._lazy")
        for alias in node.names
    }
    assert imported <= set(listed)
    assert all(hasattr(package, public) for public in listed)
