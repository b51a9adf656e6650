"""Finds the cycles of objects that some use of the library leaves to the garbage collector.

Such a cycle keeps its memory until the collector runs, and makes it run more often. Most are made
by an exception that is kept where a frame of its own traceback can reach it.
"""

import gc
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

_TIMES = 5


async def cycles_left_by(use: Callable[[], Awaitable[object]]) -> list[str]:
    """Call `use` several times; describe the cycles through the library that each call leaves."""
    await use()  # what only the first call leaves does not grow
    with _garbage_kept():
        for _ in range(_TIMES):
            await use()
        gc.collect()
        found = Counter(map(_describe, _cycles(gc.garbage)))
    return [cycle for cycle, times in found.items() if times >= _TIMES]


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Keep in `gc.garbage` what the collector finds, and nothing that others have left."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _cycles(objects: list[object]) -> Iterator[list[object]]:
    """Find a cycle for each object of the library that is on one; most only hang from one."""
    edges = {id(each): gc.get_referents(each) for each in objects}
    found: set[int] = set()
    for each in objects:
        if _is_ours(each) and id(each) not in found and (cycle := _cycle_of(each, edges)):
            found.update(map(id, cycle))
            yield cycle


def _cycle_of(start: object, edges: Mapping[int, list[object]]) -> list[object]:
    """Return the shortest way from an object back to itself; empty if there is none."""
    paths = [[start]]
    seen: set[int] = set()
    for path in paths:  # it grows
        for to in edges[id(path[-1])]:
            if to is start:
                return path
            if id(to) in edges and id(to) not in seen:
                seen.add(id(to))
                paths.append([*path, to])
    return []


def _is_ours(value: object) -> bool:
    code = _code_of(value)
    if code is not None:
        return "/src/bridgepool/" in code.co_filename
    return type(value).__module__.startswith("bridgepool.")


def _describe(cycle: list[object]) -> str:
    """Name what the cycle leads through, but for what only connects two others."""
    names = [
        type(each).__qualname__ if (code := _code_of(each)) is None else code.co_qualname
        for each in cycle
        if not isinstance(each, dict | list | tuple | types.CellType | types.TracebackType)
    ]
    first = names.index(min(names))  # wherever the search began
    return " > ".join([*names[first:], *names[:first]])


def _code_of(value: object) -> types.CodeType | None:
    """Return the code of a frame, a function, a coroutine or a generator."""
    for name in ("f_code", "__code__", "cr_code", "gi_code", "ag_code"):
        code = getattr(value, name, None)
        if isinstance(code, types.CodeType):
            return code
    return None
