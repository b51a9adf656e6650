"""Request bodies kept for another attempt: how long a body may be, and how much all of them.

A body of known length up to 64 kB is read whole and sent with the head, as the upstream client
would do it; it is in memory until the response begins in any case. What a longer one has sent is
kept beside it, as far as the provider's `max_replay_bytes` and the gateway's budget allow. Beyond
either, what was kept is dropped, and the body can be sent only once.
"""

from __future__ import annotations

from typing import Protocol

import attrs
import trio

from bridgepool.http import Headers


@attrs.define(eq=False)
class ReplayBudget:
    """How many bytes of bodies a gateway keeps for another attempt, at most."""

    limit: int
    used: int = 0
    """Bytes that are kept now."""
    _by_client: dict[str, int] = attrs.field(factory=dict, init=False)  # of `reserve_for`

    def reserve(self, size: int) -> bool:
        """Reserve some bytes; False if that would exceed the limit."""
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        """Return reserved bytes."""
        self.used -= size

    def reserve_for(self, client: str, size: int) -> bool:
        """Reserve bytes for one client, which may have half of all, so that none has it all."""
        held = self._by_client.get(client, 0) + size
        if held > self.limit // 2 or not self.reserve(size):
            return False
        self._by_client[client] = held
        return True

    def release_for(self, client: str, size: int) -> None:
        """Return bytes that were reserved for a client."""
        if not size:
            return
        self.release(size)
        self._by_client[client] -= size
        if not self._by_client[client]:
            del self._by_client[client]


class ReadsBody(Protocol):
    """A body as it comes from the client."""

    @property
    def trailers(self) -> Headers:
        """The fields after it; complete at its end."""
        ...

    async def receive_some(self) -> bytes:
        """Return the next piece; empty at the end."""
        ...


@attrs.define(eq=False)
class KeptBody:
    """A body that is sent while it is received, and kept meanwhile to be sent again.

    Args:
        body: the client's.
        limit: the most bytes to keep.
        budget: what all bodies together may keep.
    """

    _body: ReadsBody
    _limit: int
    _budget: ReplayBudget
    _kept: list[bytes] | None = attrs.field(factory=list)  # None: it can be sent only once
    _size: int = 0
    _ended: bool = False

    @property
    def can_replay(self) -> bool:
        """Whether all that was received is still kept."""
        return self._kept is not None

    @property
    def trailers(self) -> Headers:
        """The fields after the body."""
        return self._body.trailers

    def attempt(self) -> ReplayedBody:
        """Return the body for an attempt, from its beginning."""
        return ReplayedBody(self, tuple(self._kept or ()))

    async def receive_some(self) -> bytes:
        """Return the next piece that was not received yet, and keep it."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return b""
        piece = await self._body.receive_some()
        self._ended = not piece
        if piece and self._kept is not None:
            if self._size + len(piece) <= self._limit and self._budget.reserve(len(piece)):
                self._kept.append(piece)
                self._size += len(piece)
            else:
                self.forget()
        return piece

    def forget(self) -> None:
        """Drop what was kept: there is no other attempt. May be called again."""
        self._budget.release(self._size)
        self._kept, self._size = None, 0


@attrs.define(eq=False)
class ReplayedBody:
    """A kept body as one attempt sends it: what was kept, then what comes."""

    _body: KeptBody
    _again: tuple[bytes, ...]
    _sent: int = 0

    @property
    def trailers(self) -> Headers:
        """The fields after the body."""
        return self._body.trailers

    async def receive_some(self) -> bytes:
        """Return the next piece; empty at the end."""
        if self._sent < len(self._again):
            await trio.lowlevel.checkpoint()
            self._sent += 1
            return self._again[self._sent - 1]
        return await self._body.receive_some()
