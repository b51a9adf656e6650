"""Public names: listed, documented, and complete in what their signatures name."""

import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

_ROOT = Path(__file__).parent.parent
_SOURCE = _ROOT / "src"
# The packages and modules that users import from; each is documented by name in docs/reference.
PUBLIC = (
    "bridgepool",
    "bridgepool.gateway",
    "bridgepool.gateway.control",
    "bridgepool.gateway.providers",
    "bridgepool.http",
    "bridgepool.http.asgi",
    "bridgepool.remote",
    "bridgepool.testing",
    "bridgepool.transports",
    "bridgepool.transports.memory",
    "bridgepool.transports.websocket",
)
_PAGES = {path: path.read_text() for path in sorted((_ROOT / "docs/reference").glob("*.md"))}
_DIRECTIVE = re.compile(r"^\.\. auto\w+:: ([\w.]+)", re.M)
_CURRENT = re.compile(r"^\.\. (?:current|auto)module:: ([\w.]+)", re.M)
_WHOLE = re.compile(r"^\.\. automodule:: ([\w.]+)\n(?:   .*\n)*?   :members:\n", re.M)


def _listed(name: str) -> list[str]:
    return list(importlib.import_module(name).__all__)


def _documented() -> set[str]:
    """Return the full names that the reference pages show."""
    found = set()
    for text in _PAGES.values():
        for module in _WHOLE.findall(text):
            if module in PUBLIC:
                found |= {f"{module}.{name}" for name in _listed(module)}
        current = ""
        for line in text.splitlines():
            if switch := _CURRENT.match(line):
                current = switch[1]
            elif shown := _DIRECTIVE.match(line):
                found |= {shown[1], f"{current}.{shown[1]}"}
    return found


def _find(name: str) -> object:
    """Return what a full name of a reference page stands for; None if it is not public."""
    package, _, last = name.rpartition(".")
    return getattr(importlib.import_module(package), last, None) if package in PUBLIC else None


def _public_objects() -> dict[int, str]:
    """Return what can be imported by a public name: the object's id -> that name."""
    return {
        id(getattr(importlib.import_module(package), name)): f"{package}.{name}"
        for package in PUBLIC
        for name in _listed(package)
    }


def _members(owner: type) -> Iterator[tuple[str, object]]:
    """Yield the public functions of a class, and those that make its instances."""
    for name, member in vars(owner).items():
        if name.startswith("_") and name not in ("__init__", "__enter__", "__aenter__"):
            continue
        function = member
        if isinstance(member, property):
            function = member.fget
        elif isinstance(member, (classmethod, staticmethod)):
            function = member.__func__
        if inspect.isfunction(function):
            yield name, function


def _is_made_by_users(owner: type) -> bool:
    """Tell whether its constructor is public: the reference shows the others as `Name()`."""
    pattern = re.compile(rf"^\.\. autoclass:: (?:[\w.]+\.)?{owner.__name__}\(\)$", re.M)
    return not any(pattern.search(text) for text in _PAGES.values())


def _signatures(public: object) -> Iterator[object]:
    """Yield the types that the signatures of a public name are made of."""
    if isinstance(public, type):
        for name, function in _members(public):
            if name == "__init__" and not _is_made_by_users(public):
                continue
            yield from _hints(function, public)
        if attrs.has(public):
            fields = {
                field.name for field in attrs.fields(public) if not field.name.startswith("_")
            }
            hints = _hints_by_name(public, public)
            yield from (hint for name, hint in hints.items() if name in fields)
    elif inspect.isfunction(public):
        yield from _hints(public, public)
    else:
        yield public  # an alias


def _hints_by_name(of: object, public: object) -> dict[str, object]:
    names: dict[str, object] = {}
    for kind in reversed(getattr(public, "__mro__", (public,))):  # a base has names of its own
        names |= vars(sys.modules[getattr(kind, "__module__", "builtins")])
    return typing.get_type_hints(of, names, include_extras=True)


def _hints(of: object, public: object) -> Iterator[object]:
    yield from _hints_by_name(inspect.unwrap(of), public).values()  # type: ignore[arg-type]


def _parts(hint: object) -> Iterator[object]:
    """Yield every class that a hint is made of."""
    if isinstance(hint, (list, tuple)):
        for part in hint:
            yield from _parts(part)
        return
    origin = typing.get_origin(hint)
    if origin is not None:
        yield from _parts(origin)
        yield from _parts(typing.get_args(hint))
    elif isinstance(hint, typing.TypeVar):
        yield from _parts([hint.__bound__, *hint.__constraints__])
    elif isinstance(hint, types.UnionType):
        yield from _parts(hint.__args__)
    elif isinstance(hint, type):
        yield hint


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_in_the_reference(package: str) -> None:
    documented = _documented()
    # A name that two packages offer is shown on the page of one of them.
    shown = {id(_find(name)) for name in documented if _find(name) is not None}
    module = importlib.import_module(package)
    missing = [name for name in _listed(package) if id(getattr(module, name)) not in shown]
    assert [name for name in missing if name != "__version__"] == []


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_has_a_docstring(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    named = {name: getattr(module, name) for name in _listed(package)}
    things = {n: v for n, v in named.items() if isinstance(v, (type, types.FunctionType))}
    assert [name for name, thing in things.items() if not thing.__doc__] == []


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in PUBLIC for name in _listed(package)]
)
def test_what_a_public_signature_names_is_public(package: str, name: str) -> None:
    public = _public_objects()
    hints = _signatures(getattr(importlib.import_module(package), name))
    ours = {
        part
        for hint in hints
        for part in _parts(hint)
        if getattr(part, "__module__", "").partition(".")[0] == "bridgepool"
    }
    assert {part.__qualname__ for part in ours if id(part) not in public} == set()  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_module_is_private_by_name_or_documented(package: str) -> None:
    folder = _SOURCE / package.replace(".", "/")
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    public = {f"{package}.{name}" for name in modules if not name.startswith("_")}
    shown = {name for text in _PAGES.values() for name in re.findall(r"bridgepool[\w.]*", text)}
    assert public <= shown
