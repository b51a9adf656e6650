"""The two steps of a shutdown, and what it logs."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from bridgepool.gateway.serving._listening import Address
from bridgepool.gateway.serving._shutdown import Shutdown, shutdown_delay

LOCAL, OTHER = Address("127.0.0.1", 80), Address("0.0.0.0", 80)


def test_only_addresses_that_others_reach_have_a_delay() -> None:
    assert shutdown_delay(None, [LOCAL]) == 0
    assert shutdown_delay(None, [LOCAL, OTHER]) == 10
    assert shutdown_delay(0.0, [OTHER]) == 0
    assert shutdown_delay(3.0, [LOCAL]) == 3


async def test_what_is_left_is_logged_every_30_seconds(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shutdown = Shutdown(5, 600)
    shutdown.begin()
    with trio.move_on_after(4.9):
        await shutdown.run(logging.getLogger("x"), dict)
    assert not shutdown.graceful.begun
    with trio.move_on_after(5 + 65):
        await shutdown.run(logging.getLogger("x"), lambda: {"requests": 3})
    assert shutdown.graceful.begun
    lines = [(record.getMessage(), vars(record)["requests"]) for record in caplog.records]
    assert lines == [("still draining", 3)] * 2
    assert not shutdown.timed_out
    await trio.sleep(600)
    assert shutdown.timed_out
