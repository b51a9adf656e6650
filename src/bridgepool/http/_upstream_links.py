"""What an upstream client keeps: its limits, its links, and the time."""

import math
from collections.abc import Callable

import attrs
import trio

from bridgepool._network import Dial, describe_failure
from bridgepool.http._connections import ConnectionPool
from bridgepool.http._errors import ConnectFailed, PoolFull, UpstreamTimeout
from bridgepool.http._limits import MessageLimits
from bridgepool.http._upstream_link import UpstreamLink
from bridgepool.http._wire import ClientWire


@attrs.frozen(kw_only=True)
class UpstreamLimits:
    """The limits of an upstream client; times in seconds, `math.inf` for none.

    All but the first three times are kept by one timekeeper task to a twentieth of the
    shortest of them, at no cost to the single request. For an exact deadline on a whole
    request use `trio.fail_after`.

    Args:
        max_connections: Most connections at once, idle ones included.
        max_waiting: Most requests that wait for a connection; `PoolFull` beyond.
        wait_timeout: How long a request waits for a connection; then `PoolFull`.
        connect_timeout: For name, TCP and TLS together.
        expect_timeout: How long to wait for 100 (Continue) before the body is sent all the
            same (RFC 9110 section 10.1.1).
        head_timeout: From the request's last byte to the end of the answer's head.
        read_timeout: The longest silence in an answer's body, while it is being read.
        write_timeout: The longest time in which the upstream takes no byte of a body.
        idle_expiry: How long an unused connection is kept.
        max_target_bytes: Part of what the wire asks for; requests are ours, so not checked.
        max_header_bytes: Largest head or trailer section of an answer.
        max_header_count: Most fields in either.
        max_body_bytes: Largest body of an answer.
    """

    max_connections: int = 1000
    max_waiting: int = 1000
    wait_timeout: float = 30.0
    connect_timeout: float = 10.0
    expect_timeout: float = 1.0
    head_timeout: float = 600.0
    read_timeout: float = 300.0
    write_timeout: float = 60.0
    idle_expiry: float = 60.0
    max_target_bytes: int = 65536
    max_header_bytes: int = 65536
    max_header_count: int = 128
    max_body_bytes: float = math.inf


@attrs.frozen
class UpstreamStatistics:
    """What an upstream client holds now, and has done since it was opened."""

    in_use: int
    """Connections that carry a request, or are being opened for one."""
    idle: int
    """Kept connections that wait for a request."""
    waiting: int
    """Requests that wait for a connection."""
    opened: int
    """Connections opened."""
    reused: int
    """Requests that began on a kept connection."""
    found_dead: int
    """Kept connections that turned out closed before anything was sent on them."""
    retried: int
    """Requests repeated because their kept connection ended without a byte of an answer."""
    expired: int
    """Kept connections closed because nobody used them."""
    timed_out: int
    """Connections closed because their upstream was silent for too long."""


@attrs.define(eq=False)
class LinkKeeper:
    """Gives links to requests and takes them back; every link it made is in `_links`."""

    _name: str  # of the upstream, for messages
    _dial: Dial
    _new_wire: Callable[[MessageLimits], ClientWire]
    limits: UpstreamLimits
    _pool: ConnectionPool[UpstreamLink]
    _links: set[UpstreamLink] = attrs.field(factory=set)  # open ones: taken or idle
    _first_link: trio.Event = attrs.field(factory=trio.Event)  # wakes a timekeeper without links
    _opened: int = 0
    _reused: int = 0
    _found_dead: int = 0
    _retried: int = 0
    _expired: int = 0
    _timed_out: int = 0

    async def take(self) -> UpstreamLink:
        """Take a live link, from the pool or newly opened.

        Raises:
            PoolFull: None came free in time, or too many wait already.
            ConnectFailed: A new one could not be opened.
            UpstreamTimeout: Nor in `connect_timeout`.
            trio.ClosedResourceError: The client is closed.
        """
        pool = self._pool
        link = await (pool.take() if pool.has_room else self._wait_for_place())
        try:
            while link is not None and link.is_dead:
                self._found_dead += 1
                await self._close(link)
                link = pool.replace()
            if link is None:
                return await self._open()
        except BaseException:
            pool.release()
            raise
        self._reused += 1
        return link

    async def _wait_for_place(self) -> UpstreamLink | None:
        with trio.move_on_after(self.limits.wait_timeout):
            return await self._pool.take()
        raise PoolFull(f"no connection to {self._name} came free in {self.limits.wait_timeout} s")

    async def _open(self) -> UpstreamLink:
        with trio.move_on_after(self.limits.connect_timeout) as scope:
            try:
                stream = await self._dial()
            except (OSError, trio.BrokenResourceError) as error:
                raise ConnectFailed(
                    f"cannot connect to {self._name}: {describe_failure(error)}"
                ) from error
        if scope.cancelled_caught:
            raise UpstreamTimeout(
                f"could not connect to {self._name} within {self.limits.connect_timeout} s"
            )
        if self._pool.closed:
            await trio.aclose_forcefully(stream)
            raise trio.ClosedResourceError("this client is closed")
        link = UpstreamLink(stream, self._new_wire(self.limits))
        self._opened += 1
        self._links.add(link)
        self._first_link.set()
        return link

    async def reopen(self, dead: UpstreamLink) -> UpstreamLink:
        """Open a new link in the place of one that died, which is closed."""
        self._retried += 1
        await self._close(dead)
        return await self._open()

    def keep(self, link: UpstreamLink) -> bool:
        """Take back a link whose exchange is complete; false when it must be discarded."""
        if not link.start_next():
            return False
        link.read_due = trio.current_time() + self.limits.idle_expiry
        link.write_due = math.inf
        return self._pool.keep(link)

    async def discard(self, link: UpstreamLink) -> None:
        """Close a link and give its place back, whatever happens meanwhile."""
        try:
            await self._close(link)
        finally:
            self._pool.release()

    async def _close(self, link: UpstreamLink) -> None:
        self._links.discard(link)
        await link.aclose()

    async def keep_time(self) -> None:
        """Close what is overdue, for as long as the client is open."""
        limits = self.limits
        times = limits.head_timeout, limits.read_timeout, limits.write_timeout, limits.idle_expiry
        shortest = min(times)
        if shortest == math.inf:
            return
        while True:
            while not self._links:
                self._first_link = trio.Event()
                await self._first_link.wait()
            # A due time set from now on lies at least `shortest` ahead, so none is missed.
            now = trio.current_time()
            first = min(link.due for link in self._links)
            await trio.sleep_until(max(min(first, now + shortest), now + shortest / 20))
            await self._close_overdue(trio.current_time())

    async def _close_overdue(self, now: float) -> None:
        expired = self._pool.expire(now)
        self._expired += len(expired)
        silent = [link for link in self._links if link.due <= now and link not in expired]
        self._timed_out += len(silent)
        for link in silent:  # all at once, before anything is awaited
            what = "stopped in the middle of" if link.heard else "gave no answer to"
            link.failure = link.failure or UpstreamTimeout(f"{self._name} {what} a request")
        for link in expired:
            await self._close(link)
        for link in silent:
            await link.aclose()

    async def aclose(self) -> None:
        """Close every link; requests that still run get `trio.ClosedResourceError`."""
        self._pool.drain()
        with trio.move_on_after(1, shield=True):
            # All together: each close takes a turn of the scheduler, and hundreds in a row
            # would take longer than a busy program can wait.
            async with trio.open_nursery() as closing:
                for link in self._links:
                    closing.start_soon(
                        link.abort, trio.ClosedResourceError("this client is closed")
                    )
        self._links.clear()

    def statistics(self) -> UpstreamStatistics:
        """Return the counters."""
        return UpstreamStatistics(
            in_use=self._pool.taken,
            idle=self._pool.idle,
            waiting=self._pool.waiting,
            opened=self._opened,
            reused=self._reused,
            found_dead=self._found_dead,
            retried=self._retried,
            expired=self._expired,
            timed_out=self._timed_out,
        )
