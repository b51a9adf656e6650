"""Keep a subscription to an external source of changes open, whatever its connection does."""

import logging
from collections.abc import AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import NoReturn

import trio

from bridgepool._backoff import Backoff
from bridgepool._changes import ChangeBus

_log = logging.getLogger("bridgepool")


async def keep_subscribed(  # noqa: ASYNC114 -- calls started() itself
    open_subscription: Callable[[], AbstractAsyncContextManager[AsyncIterable[object]]],
    bus: ChangeBus,
    *,
    first_delay: float = 0.1,
    max_delay: float = 10.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Publish the events of a subscription on a bus, and open it again whenever it ends.

    A notice is published each time the subscription is open, since events before that may be
    lost, and for each of its events. Events themselves are dropped: subscribers read the state
    again. When the subscription raises or ends, it is left and opened again after a random delay.
    The limit of that delay doubles from `first_delay` to `max_delay`; it starts again at
    `first_delay` after a subscription that was open for `max_delay` seconds. ::

        with ChangeBus() as bus, bus.subscribe() as changes:
            nursery.start_soon(keep_subscribed, partial(listen, url), bus)
            await nursery.start(watch_providers, pool, reloader, changes)

    Args:
        open_subscription: Returns a new async context manager each time. It enters once events
            cannot be missed any more, and gives an async iterable of them, such as a
            `trio.abc.ReceiveChannel`. Any `Exception` it raises is an outage: it is logged, once
            for each outage as a warning.
        bus: Where notices are published.
        first_delay: Seconds before the first new attempt, at most.
        max_delay: Seconds between attempts, at most.
        task_status: `started()` is called when the subscription is open for the first time.

    Raises:
        ValueError: A delay is not positive, or `max_delay` is shorter than `first_delay`.
        trio.ClosedResourceError: The bus was closed.

    Cancellation: Leaves the subscription. Runs until it is cancelled or the bus is closed.
    """
    if not 0 < first_delay <= max_delay < inf:
        raise ValueError("delays must be positive, and first_delay at most max_delay")
    backoff = Backoff(first_delay, max_delay)
    has_started = is_outage = False
    while True:
        opened_at, problem = inf, "it ended"
        try:
            async with open_subscription() as events:
                opened_at = trio.current_time()
                bus.publish()
                if is_outage:
                    _log.info("change subscription opened again")
                is_outage = False
                if not has_started:
                    has_started = True
                    task_status.started()
                async for _ in events:
                    bus.publish()
        except* Exception as group:  # code that is not ours: whatever it raises is an outage
            problem = repr(_first_of(group))
        if bus._closed:
            raise trio.ClosedResourceError("the bus was closed")
        level = logging.DEBUG if is_outage else logging.WARNING
        _log.log(level, "change subscription lost: %s", problem)
        is_outage = True
        if trio.current_time() - opened_at >= max_delay:
            backoff.reset()
        await trio.sleep(backoff.next_delay())


def _first_of(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
