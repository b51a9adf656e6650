"""Finds one exception in the exception groups of nurseries."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def first_of(kind: type[E], error: BaseException) -> E | None:
    """Return the first exception of `kind` in `error`, or `error` itself if it is one."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (first_of(kind, inner) for inner in error.exceptions)), None)
    return None
