"""The body of a request to an upstream: what it may be, and the task that sends a long one."""

import math
from typing import Protocol, TypeAlias

import attrs
import trio

from bridgepool.http._errors import UpstreamCut
from bridgepool.http._headers import forward_trailers
from bridgepool.http._messages import Headers
from bridgepool.http._upstream_link import UpstreamLink
from bridgepool.http._upstream_links import UpstreamLimits

_PIECE = 65536  # bytes of a long `bytes` body that are sent at once
_CLOSE_GRACE = 1.0  # seconds for a body's `receive_some` to obey its cancellation


class ReceivesBody(Protocol):
    """A request body that is read piece by piece.

    Where it has an attribute `trailers`, that is read after its end.
    """

    async def receive_some(self) -> bytes | bytearray:
        """Return the next piece, empty at the end."""
        ...


UpstreamBody: TypeAlias = ReceivesBody | bytes | None


@attrs.define(eq=False)
class Pieces:
    """A long `bytes` body as one that is read piece by piece."""

    _data: bytes
    _start: int = 0

    async def receive_some(self) -> bytes:
        """Return the next piece."""
        await trio.lowlevel.checkpoint()
        piece = self._data[self._start : self._start + _PIECE]
        self._start += len(piece)
        return piece


@attrs.define(eq=False)
class Upload:
    """Sends a body in a task of its own; see the theory of operation of `upstream_call`."""

    _link: UpstreamLink
    _body: ReceivesBody
    _limits: UpstreamLimits
    _waits: bool  # for 100 (Continue)
    _go_ahead: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _done: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Be the task."""
        try:
            with self._scope:
                if self._waits:
                    with trio.move_on_after(self._limits.expect_timeout):
                        await self._go_ahead.wait()
                await self._send()
        except UpstreamCut:
            self._link.spoiled = True  # the reader learns why, or finds an answer
        except Exception as error:  # the body is not our code: its error goes to the reader
            await self._link.abort(error)
        finally:
            self._done.set()

    async def _send(self) -> None:
        link, wire = self._link, self._link.wire
        while piece := await self._body.receive_some():
            await self._write(wire.send_data(bytes(piece)))
        trailers: Headers = getattr(self._body, "trailers", ())
        await self._write(wire.send_end(forward_trailers(trailers)))
        if link.read_due == math.inf:
            link.read_due = trio.current_time() + self._limits.head_timeout

    async def _write(self, data: bytes) -> None:
        if data:
            self._link.write_due = trio.current_time() + self._limits.write_timeout
            await self._link.send(data)
            self._link.write_due = math.inf

    def go_ahead(self) -> None:
        """Be told that the upstream asks for the body."""
        self._go_ahead.set()

    def stop(self) -> None:
        """Send no more; whatever was not sent by now spoils the link."""
        if not self._done.is_set():
            self._scope.cancel()
            self._link.spoiled = True

    async def wait_stopped(self) -> None:
        """Stop, and wait until nobody reads the body any more."""
        self.stop()
        with trio.move_on_after(_CLOSE_GRACE, shield=True):
            await self._done.wait()
