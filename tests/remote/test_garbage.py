"""What calls and sessions leave to the garbage collector: nothing, however they end."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.remote._errors import RemoteError
from bridgepool.remote._messages import Acknowledge, RowSet
from bridgepool.remote._rpc import Method, NoticeHandler, open_rpc
from bridgepool.transports.memory import open_memory_channel_pair
from tests.garbage import cycles_left_by
from tests.remote.rig import Plane, follow, open_plane, row


async def answer(params: Acknowledge) -> RowSet:
    await trio.lowlevel.checkpoint()
    match params.revision:
        case 1:
            raise RemoteError("of_a_test", "of a test")
        case 2:
            raise ValueError("of a test")
        case 3:
            await trio.sleep_forever()
    return RowSet(params.revision, 0)


def take(params: Acknowledge) -> None:
    if params.revision:
        raise ValueError("of a test")


@pytest.mark.parametrize("number", [0, 1, 2, 3])
async def test_a_call_leaves_nothing_to_the_garbage_collector(
    number: int, autojump_clock: MockClock
) -> None:
    left, right = open_memory_channel_pair()
    methods = {"m": Method(Acknowledge, answer)}
    notices = {"n": NoticeHandler(Acknowledge, take)}
    async with open_rpc(left) as here, open_rpc(right, methods=methods, notices=notices):

        async def call() -> None:
            with suppress(RemoteError), trio.move_on_after(1):
                await here.call("m", Acknowledge(number), RowSet)
            await here.notify("n", Acknowledge(number))
            await wait_all_tasks_blocked()

        assert await cycles_left_by(call) == []


async def leave(plane: Plane) -> None:
    async with follow(plane) as remote:
        plane.owner.set_rows([row(plane.owner.revision)])
        await remote.reload()


async def be_cut(plane: Plane) -> None:
    async with follow(plane):
        plane.cut()
        await wait_all_tasks_blocked()


async def be_revoked(plane: Plane) -> None:
    async with follow(plane):
        keys = plane.owner.keys
        [identity] = keys.values()
        plane.owner.revoke(identity.key_id)
        await wait_all_tasks_blocked()
        plane.owner.keys = keys


@pytest.mark.parametrize("use", [leave, be_cut, be_revoked])
async def test_a_session_leaves_nothing_to_the_garbage_collector(
    use: Callable[[Plane], Awaitable[None]], autojump_clock: MockClock
) -> None:
    async with open_plane() as plane:

        async def use_once() -> None:
            await use(plane)
            await wait_all_tasks_blocked()

        assert await cycles_left_by(use_once) == []
