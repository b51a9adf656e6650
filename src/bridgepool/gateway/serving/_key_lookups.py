"""Look-ups of keys in a database, which those who try keys cannot load.

A key that was good here before is looked up at once. Any other waits first if its address owes a
delay for keys that were refused, and then for one of a few places, so that most of the database
stays for those who are known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import attrs
import trio

from bridgepool._secret import Secret
from bridgepool.gateway.serving._refused_keys import RefusedKeys

T = TypeVar("T")

_MAX_UNKNOWN: Final = 2  # look-ups at a time of keys that were not good here before
_MAX_REMEMBERED: Final = 10_000


@attrs.define(eq=False)
class KeyLookups:
    """The look-ups of keys of one kind."""

    refused: RefusedKeys
    _places: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(_MAX_UNKNOWN), init=False
    )
    # SHA-256 of the keys that were good, the longest unused first
    _good: dict[bytes, None] = attrs.field(factory=dict, init=False, repr=False)

    async def find(
        self,
        key: Secret,
        peer: str,
        look_up: Callable[[Secret], Awaitable[T | None]],
        note_refused: Callable[[str], Awaitable[None]],
        *,
        costs_nothing: bool = False,
    ) -> T | None:
        """Return what `look_up` finds; if that is None, after a while if many were refused.

        Args:
            key: The key.
            peer: Where it came from, as `host:port`.
            look_up: Asks the database; None if the key is unknown.
            note_refused: Called with `peer` if it is.
            costs_nothing: The database is not asked about this key.
        """
        began = trio.current_time()
        digest = hashlib.sha256(key.reveal().encode("utf-8", "surrogatepass")).digest()
        if costs_nothing or digest in self._good:
            found = await look_up(key)
        else:
            await trio.sleep(self.refused.delay_owed(peer, began))
            async with self._places:
                found = await look_up(key)
        self._good.pop(digest, None)
        if found is not None:
            self._good[digest] = None
            if len(self._good) > _MAX_REMEMBERED:
                del self._good[next(iter(self._good))]
            return found
        await note_refused(peer)
        now = trio.current_time()
        await trio.sleep(max(self.refused.refuse(peer, now) - (now - began), 0.0))
        return None
