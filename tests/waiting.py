"""Waiting for what no event reports."""

from __future__ import annotations

from collections.abc import Callable

import trio


async def wait_until(condition: Callable[[], object]) -> None:
    """Look until a condition holds. Where there is an event, wait for that instead."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 -- see above
            await trio.sleep(0.001)
