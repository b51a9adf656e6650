"""What a public signature of the HTTP packages names is public as well."""

import inspect
import types
import typing
from collections.abc import Iterator

import pytest

import bridgepool.http
import bridgepool.http.asgi

_PACKAGES = (bridgepool.http, bridgepool.http.asgi)
_PUBLIC = {id(getattr(package, name)) for package in _PACKAGES for name in package.__all__}


def _hints_of(thing: object) -> Iterator[object]:
    """Yield each type in the public signatures of a function, class, property or method."""
    if isinstance(thing, property):
        thing = thing.fget
    if isinstance(thing, type):
        hints = typing.get_type_hints(thing)
        yield from (hint for name, hint in hints.items() if not name.startswith("_"))
        for name, member in vars(thing).items():
            if not name.startswith("_"):
                yield from _hints_of(member)
    elif inspect.isroutine(thing):
        hints = typing.get_type_hints(thing)
        yield from (hint for name, hint in hints.items() if not name.startswith("_"))


def _classes_in(hint: object) -> Iterator[type]:
    if isinstance(hint, (list, tuple)):
        for part in hint:
            yield from _classes_in(part)
    elif isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        yield hint
    for part in typing.get_args(hint):
        yield from _classes_in(part)


@pytest.mark.parametrize("package", _PACKAGES)
def test_what_a_public_signature_names_is_public(package: types.ModuleType) -> None:
    named = {
        found
        for name in package.__all__
        for hint in _hints_of(getattr(package, name))
        for found in _classes_in(hint)
        if found.__module__.startswith("bridgepool")
    }
    assert named
    assert {found.__qualname__ for found in named if id(found) not in _PUBLIC} == set()
