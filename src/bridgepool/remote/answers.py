"""One reading of the providers for all sessions, encoded once."""

import logging

import attrs
import trio

from bridgepool.remote.backend import ProviderBackend
from bridgepool.remote.codec import Encoded, encode
from bridgepool.remote.messages import Changed, ProviderSet, Revisions

_log = logging.getLogger("bridgepool.remote")


class ReadingFailedError(Exception):
    """The backend could not read its providers; its log tells why."""


@attrs.frozen
class Reading:
    """The providers at one moment."""

    revisions: Revisions
    answer: Encoded
    """As a `ProviderSet`."""
    notice: Encoded
    """As a `Changed` with the providers."""


@attrs.define(eq=False)
class _Flight:
    """A reading under way."""

    done: trio.Event = attrs.field(factory=trio.Event)
    failed: bool = False


@attrs.define(eq=False)
class SharedReading:
    """Keeps the latest reading; one is made at a time, for all who ask meanwhile."""

    _backend: ProviderBackend
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
                raise ReadingFailedError
        return self._latest

    async def _read(self) -> Reading:
        flight = self._flight = _Flight()
        try:
            revisions, rows = await self._backend.provider_rows()
            answer = encode(ProviderSet(revisions, rows))
            self._latest = Reading(revisions, answer, encode(Changed(revisions, rows)))
            return self._latest
        except Exception:  # the backend's: the sessions go on without an answer
            _log.exception("the providers could not be read")
            flight.failed = True
            raise ReadingFailedError from None
        finally:
            # When the reader was cancelled, the next one who waits becomes it.
            self._flight = None
            flight.done.set()
