"""A nursery for background services that keeps out of its user's way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery out of which the body's own exception comes unchanged, never in a group.

    The tasks in it must not raise, and must end by themselves once the body has ended: whoever
    opens it tells them so in a `finally` inside the block. Leaving waits for them.
    """
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except BaseException as error:  # noqa: ASYNC103 -- raised again below, past the nursery
            raised = error
    if raised is not None:
        try:
            raise raised
        finally:
            del raised  # its traceback refers to this frame
