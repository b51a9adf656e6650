"""The in-memory change bus: tell any number of subscribers that something changed.

Theory of operation. A notice carries no data, so two that nobody has looked at are the same as
one: each subscription is a single flag. To publish is to raise every flag and wake whoever
waits; it never waits itself, and a subscriber that is busy finds its flag raised when it comes
back. A flag is lowered by the task that takes the notice, when it runs, so a cancelled receiver
loses none. A watcher that does nothing but wait for the next one is given it in the step that
publishes it. The bus knows its subscriptions weakly: one that nobody holds can be received from
by nobody.
"""

import weakref
from collections.abc import Callable
from typing import final

import attrs
import trio


@attrs.frozen
class ChangeBusStatistics:
    """A look at a `ChangeBus`."""

    subscribers: int
    """Subscriptions that are open and still held by somebody."""


@final
class ChangeSubscription(trio.abc.ReceiveChannel[None]):
    """One subscriber's notices; made by `ChangeBus.subscribe`.

    A received ``None`` says that something changed since the one before it was received, or
    since the subscription was made. Several tasks may receive; each notice goes to one of them.
    """

    __slots__ = ("__weakref__", "_changed", "_closed", "_ended", "_taker", "_waiting")

    def __init__(self) -> None:
        self._changed = False
        self._ended = False  # the bus was closed: what is pending is the last
        self._closed = False  # this end was closed
        self._taker: Callable[[], None] | None = None
        self._waiting = trio.lowlevel.ParkingLot()

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
            await self._waiting.park()
            waited = True
        self._changed = False
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def close(self) -> None:
        """Stop receiving: the bus forgets this subscription. May be called again."""
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

    def _receive_at_once(self, taker: Callable[[], None] | None) -> None:
        """Have `taker` called with each notice that the one task which receives waits for.

        It saves that task's turn; the notice does not come to it then. Must not raise. None ends
        it.
        """
        self._taker = taker

    def _notify(self) -> None:
        if self._taker is not None and not self._changed and len(self._waiting) == 1:
            self._taker()
            return
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
        # A `WeakSet` costs five times as much to look through, and most have one subscriber.
        self._subscriptions: dict[weakref.ref[ChangeSubscription], None] = {}

    def publish(self) -> None:
        """Tell every subscriber that something changed. Never blocks, whoever is slow.

        Raises:
            trio.ClosedResourceError: The bus was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        for subscription in self._open():
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
        self._subscriptions[weakref.ref(subscription, self._forget)] = None
        return subscription

    def close(self) -> None:
        """End every subscription, once its pending notice has been received."""
        self._closed = True
        for subscription in self._open():
            subscription._end()

    def statistics(self) -> ChangeBusStatistics:
        """Return how many listen."""
        return ChangeBusStatistics(len(self._open()))

    def _open(self) -> list[ChangeSubscription]:
        found = []
        for ref in tuple(self._subscriptions):  # one may be dropped meanwhile
            subscription = ref()
            if subscription is None or subscription._closed:
                self._forget(ref)
            else:
                found.append(subscription)
        return found

    def _forget(self, ref: "weakref.ref[ChangeSubscription]") -> None:
        self._subscriptions.pop(ref, None)

    def __enter__(self) -> "ChangeBus":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
