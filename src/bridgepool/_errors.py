"""Every exception of the core: one small tree, with fields besides the text.

Where Trio has a fitting exception, ours derives from it too, so that code written against
Trio's own conventions needs no change: a closed pool is a `trio.ClosedResourceError`, a
build that took too long a `trio.TooSlowError`.
"""

from collections.abc import Hashable, Iterable
from typing import ClassVar

import trio


class BridgePoolError(Exception):
    """The base of bridgepool's own exceptions."""

    status_hint: ClassVar[int] = 500
    """The HTTP status that fits when a server has to show this error to its client."""


class BuildError(BridgePoolError):
    """The build that you waited for failed; its own exception is the `__cause__`.

    You get it from an acquire whose bridge could not be built from the providers in force.
    The failure is not cached: the next acquire builds again. You get `BuildTimeoutError`
    instead when the build did not end in time, and `PoolClosedError` when the pool was left.
    """

    status_hint = 502

    def __init__(self, key: Hashable, generation: Hashable, reason: str = "failed") -> None:
        super().__init__(key, generation, reason)
        self.key = key
        """The key that was being built."""
        self.generation = generation
        """The generation it was built for; in a singleflight, the version."""
        self.reason = reason
        """What went wrong, in a short phrase."""

    def __str__(self) -> str:
        why = ""
        if self.__cause__ is not None:
            cause = innermost(self.__cause__)  # the text of a group does not say what was wrong
            why = f": {type(cause).__name__}: {cause}"
        return f"build of {self.key!r} for generation {self.generation} {self.reason}{why}"


class BuildTimeoutError(BuildError, trio.TooSlowError):
    """The build that you waited for was cancelled after its `build_timeout`.

    Raise the pool's `build_timeout` if builds are slow by nature.
    """

    status_hint = 504

    def __init__(self, key: Hashable, generation: Hashable, reason: str = "timed out") -> None:
        super().__init__(key, generation, reason)


class CircularWaitError(BridgePoolError):
    """A build or a run would wait for itself, directly or through others, and so never end.

    Raised at once, inside the build, by the `acquire` or `do` that would close the circle; those
    who wait for that build get a `BuildError` with this as its cause, unless the build handles
    it. Raised too when builds wait for one that the pool's `max_live` leaves no place for. A task
    that a build starts belongs to it until the build has ended.
    """

    def __init__(self, chain: Iterable[Hashable], reason: str = "") -> None:
        super().__init__(chain, reason)
        self.chain: tuple[Hashable, ...] = tuple(chain)
        """The keys of the builds, each waiting for the next; the last is the first again."""
        self.reason = reason
        """Why one of them waits, if it is not for the build itself."""

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"builds wait for each other: {' -> '.join(map(repr, self.chain))}{why}"


class PoolClosedError(BridgePoolError, trio.ClosedResourceError):
    """The `async with` block of the pool or the singleflight has been left, or is being left.

    Raised to new and to waiting callers; leases that are held stay valid.
    """

    status_hint = 503


class ReloadError(BridgePoolError):
    """A reloader could not get a usable snapshot; the providers in force stay.

    Raise it from your own `ProviderReloader.reload` with a message that an operator can act
    on. It must not hold secrets: it is logged and shown in `ReloadStatus`.
    """

    status_hint = 503


def innermost(error: BaseException) -> BaseException:
    """Return the one error inside the groups that nurseries made of it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
