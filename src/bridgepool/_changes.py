"""The in-memory change bus: notify any number of subscribers that something changed.

Theory of operation. A notice carries no data, so two pending ones are the same as one: each
subscription is a single flag. Publishing raises every flag and wakes a waiting receiver; it never
waits itself, and a busy subscriber finds its flag raised when it comes back. The receiver lowers
the flag when it runs, so a cancelled receiver loses no notice. The bus holds its subscriptions
weakly: nobody can receive from one that nobody holds.
"""

import weakref
from typing import final

import attrs
import trio

from ._services import require_run
from ._statistics import JSON, as_json


@attrs.frozen
class ChangeBusStatistics:
    """Statistics of a `ChangeBus`."""

    subscribers: int
    """Subscriptions that are open and still referenced."""

    def as_dict(self) -> dict[str, JSON]:
        """Return all fields as `json.dumps` takes them."""
        return as_json(self)


@final
class ChangeSubscription(trio.abc.ReceiveChannel[None]):
    """One subscriber's notices; made by `ChangeBus.subscribe`.

    A received ``None`` means that something changed since the one before it was received, or
    since the subscription was made. Several tasks may receive; each notice goes to one of them.
    """

    __slots__ = ("__weakref__", "_changed", "_closed", "_ended", "_run", "_waiting")

    def __init__(self) -> None:
        self._changed = False
        # the bus was closed: a pending notice is the last
        self._ended = False
        # this end was closed
        self._closed = False
        self._waiting = trio.lowlevel.ParkingLot()
        # where those who wait are
        self._run: trio.lowlevel.TrioToken | None = None

    async def receive(self) -> None:
        """Wait until something has changed.

        Raises:
            trio.EndOfChannel: The bus was closed, and every notice has been received.
            trio.ClosedResourceError: This subscription was closed.

        Cancellation:
            A cancelled receive takes no notice.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while not self._changed or self._closed:
            if self._closed:
                raise trio.ClosedResourceError
            if self._ended:
                raise trio.EndOfChannel
            self._run = trio.lowlevel.current_trio_token()
            await self._waiting.park()
            waited = True
        self._changed = False
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def close(self) -> None:
        """Stop receiving: the bus forgets this subscription. May be called again."""
        self._require_run()
        self._closed = True
        self._waiting.unpark_all()

    async def aclose(self) -> None:
        """Close, and checkpoint; see `close`."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> "ChangeSubscription":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _require_run(self) -> None:
        if self._run is not None and self._waiting:
            require_run(self._run)

    def _notify(self) -> None:
        self._changed = True
        self._waiting.unpark()

    def _end(self) -> None:
        self._ended = True
        self._waiting.unpark_all()


@final
class ChangeBus:
    """Level-triggered notices from any number of publishers to any number of subscribers.

    For one Trio run; from other threads publish with ``trio.from_thread.run_sync``. It is a
    context manager that closes it.
    """

    __slots__ = ("_closed", "_subscriptions")

    def __init__(self) -> None:
        self._closed = False
        self._subscriptions: weakref.WeakSet[ChangeSubscription] = weakref.WeakSet()

    def publish(self) -> None:
        """Notify every subscriber that something changed. Never blocks, however slow they are.

        Raises:
            trio.ClosedResourceError: The bus was closed.
            RuntimeError: This is another thread, or another Trio run, than that of a subscriber
                who waits. Nobody is notified.
        """
        if self._closed:
            raise trio.ClosedResourceError
        found = self._open()
        for subscription in found:
            subscription._require_run()
        for subscription in found:
            subscription._notify()

    def subscribe(self) -> ChangeSubscription:
        """Open a subscription. It begins without a notice and sees every later change.

        Subscribe before you first read the state that the notices are about, so that no change
        falls between the two.

        Resource handling:
            Close it to be forgotten at once; one that is merely dropped is forgotten too.

        Raises:
            trio.ClosedResourceError: The bus was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        subscription = ChangeSubscription()
        self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End every subscription, once its pending notice has been received."""
        self._closed = True
        for subscription in self._open():
            subscription._end()

    def statistics(self) -> ChangeBusStatistics:
        """Count the subscribers. Not a checkpoint."""
        return ChangeBusStatistics(len(self._open()))

    def _open(self) -> list[ChangeSubscription]:
        found = [subscription for subscription in self._subscriptions if not subscription._closed]
        if len(found) < len(self._subscriptions):
            self._subscriptions = weakref.WeakSet(found)
        return found

    def __enter__(self) -> "ChangeBus":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
