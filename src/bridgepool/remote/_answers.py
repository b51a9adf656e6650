"""One reading of the providers for all sessions, encoded once."""

import logging
from typing import Final

import attrs
import trio

from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote._backend import ProviderBackend
from bridgepool.remote._codec import Encoded, encode
from bridgepool.remote._messages import Changed, ProviderSet, Revisions

_log = logging.getLogger("bridgepool.remote")


_ENVELOPE: Final = 64  # bytes of a frame besides the message in it, at most


class ReadingFailedError(Exception):
    """There are no providers to be sent; the text tells gateways why."""


@attrs.frozen
class Reading:
    """The providers at one moment."""

    revisions: Revisions
    answer: Encoded
    """As a `ProviderSet`."""
    notice: Encoded
    """As a `Changed` with the providers."""
    problem: str | None = None
    """Why neither of them can be sent."""


@attrs.define(eq=False)
class _Flight:
    """A reading under way."""

    done: trio.Event = attrs.field(factory=trio.Event)
    failed: bool = False


@attrs.define(eq=False)
class SharedReading:
    """Keeps the latest reading; one is made at a time, for all who ask meanwhile."""

    _backend: ProviderBackend
    _max_bytes: int  # of a frame
    _latest: Reading | None = attrs.field(default=None, init=False)
    _flight: _Flight | None = attrs.field(default=None, init=False)

    async def get(self) -> Reading:
        """Return a reading that is not older than the backend's revisions as they are now.

        Raises:
            ReadingFailedError: There is none.
        """
        asked = self._backend.revisions.revision
        while self._latest is None or self._latest.revisions.revision < asked:
            flight = self._flight
            if flight is None:
                return await self._read()
            await flight.done.wait()
            if flight.failed:
                raise _unreadable()
        return _checked(self._latest)

    async def _read(self) -> Reading:
        flight = self._flight = _Flight()
        try:
            self._latest = self._encode(*await self._backend.provider_rows())
        except Exception:  # the backend's: the sessions go on without an answer
            _log.exception("the providers could not be read")
            flight.failed = True
            raise _unreadable() from None
        finally:
            # When the reader was cancelled, the next one who waits becomes it.
            self._flight = None
            flight.done.set()
        return _checked(self._latest)

    def _encode(self, revisions: Revisions, rows: tuple[ProviderRow, ...]) -> Reading:
        answer = encode(ProviderSet(revisions, rows))
        notice = encode(Changed(revisions, rows))
        problem = None
        size = memoryview(notice.raw).nbytes + _ENVELOPE
        if size > self._max_bytes:
            problem = (
                f"the providers are too large to be sent: {size} bytes, and {self._max_bytes} at "
                "most; make them fewer or smaller"
            )
            _log.error("%s", problem, extra={"revision": revisions.revision})
        return Reading(revisions, answer, notice, problem)


def _unreadable() -> ReadingFailedError:
    return ReadingFailedError("the providers cannot be read now; ask again later")


def _checked(reading: Reading) -> Reading:
    if reading.problem is not None:
        raise ReadingFailedError(reading.problem)
    return reading
