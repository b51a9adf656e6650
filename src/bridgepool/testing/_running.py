"""How the kits run what they check: one Trio run each, and one error out of it."""

from collections.abc import Awaitable, Callable
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


def _first_of(kind: type[E], error: BaseException) -> E | None:
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (_first_of(kind, inner) for inner in error.exceptions)), None)
    return None


async def cancel_after(scope: trio.CancelScope, ticks: int) -> None:
    """Cancel so many scheduler steps from now."""
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()
