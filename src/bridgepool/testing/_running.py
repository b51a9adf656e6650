"""How the kits run what they check: one Trio run each, and one error out of it."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

E = TypeVar("E", bound=BaseException)


def run_check(
    main: Callable[[], Awaitable[object]], clock: trio.abc.Clock, broken: type[BaseException]
) -> None:
    """Run `main`; of a group that a nursery made, raise the first error of the kind `broken`."""
    try:
        trio.run(main, clock=clock)
    except BaseExceptionGroup as group:
        raise _first_of(broken, group) or group from None


@contextmanager
def naming(part: str, broken: type[AssertionError]) -> Iterator[None]:
    """Turn what the code under test raises unexpectedly into a `broken` that names the part."""
    try:
        yield
    except Exception as error:
        found = _first_of(broken, error)
        if found is not None:
            raise found from found.__cause__
        first = _first_of(Exception, error)
        raise broken(f"{part}: {first!r}") from first


def _first_of(kind: type[E], error: BaseException) -> E | None:
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (_first_of(kind, inner) for inner in error.exceptions)), None)
    return error if isinstance(error, kind) else None


async def cancel_after(scope: trio.CancelScope, ticks: int) -> None:
    """Cancel so many scheduler steps from now."""
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()
