"""The nursery of background services, and the check that this is Trio."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery out of which the body's own exception comes unchanged, never in a group.

    The tasks in it must not raise, and must end by themselves once the body has ended: stop them in
    a `finally` inside the block. Leaving waits for them.

    Raises:
        RuntimeError: The caller is not a Trio task.
    """
    require_trio()
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:  # noqa: ASYNC103 -- raised again below, past the nursery
                raised = error
        if raised is not None:
            raise raised
    finally:
        del raised  # its traceback refers to this frame


@asynccontextmanager
async def open_background_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a service nursery whose tasks are cancelled when the body has ended."""
    async with open_service_nursery() as nursery:
        try:
            yield nursery
        finally:
            nursery.cancel_scope.cancel()


def require_trio() -> None:
    """Raise a `RuntimeError` that says what to do, unless the caller is a Trio task."""
    if trio.lowlevel.in_trio_task():
        return
    try:
        sys.modules["asyncio"].get_running_loop()  # not imported for this: it takes a while
    except (KeyError, RuntimeError):
        raise RuntimeError("bridgepool runs on Trio: start your program with trio.run") from None
    raise RuntimeError(
        "this is asyncio; bridgepool runs on Trio: start your program with trio.run, or keep "
        "asyncio and run Trio beside it, as docs/howto/asyncio.md shows"
    )


def require_run(run: trio.lowlevel.TrioToken) -> None:
    """Raise a `RuntimeError` in another run or thread, whose tasks cannot be woken from here."""
    try:
        is_own = trio.lowlevel.current_trio_token() is run
    except RuntimeError:
        is_own = False
    if not is_own:
        raise RuntimeError(
            "this is another Trio run, or another thread, than the one that opened this: call it "
            "there, with trio.from_thread.run or trio.from_thread.run_sync"
        )
