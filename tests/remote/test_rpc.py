"""Calls and notices between two ends of a memory channel."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bridgepool.remote import _codec as codec
from bridgepool.remote import _rpc as rpc
from bridgepool.remote._errors import ConnectionLostError, InvalidMessageError, RemoteError
from bridgepool.remote._messages import (
    Acknowledge,
    Cancel,
    Goodbye,
    Hello,
    RejectedRow,
    RowSet,
    Watch,
)
from bridgepool.remote._rpc import Method, NoticeHandler, RpcPeer, open_rpc
from bridgepool.transports.memory import MemoryChannel, open_memory_channel_pair


async def _same(params: Acknowledge) -> object:
    return RowSet(params.revision, 0)


@asynccontextmanager
async def _pair(
    methods: Mapping[str, Method[Any]], notices: Mapping[str, NoticeHandler[Any]] | None = None
) -> AsyncIterator[tuple[RpcPeer, RpcPeer]]:
    left, right = open_memory_channel_pair()
    with trio.fail_after(60):
        async with (
            open_rpc(left) as here,
            open_rpc(right, methods=methods, notices=notices) as there,
        ):
            yield here, there


@asynccontextmanager
async def _raw(methods: Mapping[str, Method[Any]]) -> AsyncIterator[tuple[MemoryChannel, RpcPeer]]:
    """One end as bytes."""
    left, right = open_memory_channel_pair()
    with trio.fail_after(60):
        async with open_rpc(right, methods=methods) as there:
            yield left, there


async def test_many_calls_at_once_get_each_their_own_answer() -> None:
    gate, waiting = trio.Event(), 0
    got: dict[int, int] = {}

    async def answer(params: Acknowledge) -> object:
        nonlocal waiting
        waiting += 1
        await gate.wait()
        return await _same(params)

    async with _pair({"m": Method(Acknowledge, answer)}) as (here, _):

        async def call(number: int) -> None:
            got[number] = (await here.call("m", Acknowledge(number), RowSet)).revision or 0

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(call, number)
            await wait_all_tasks_blocked()
            assert waiting == rpc.MAX_CALLS_IN_FLIGHT
            gate.set()
    assert got == {number: number for number in range(100)}


async def test_a_callers_cancellation_cancels_the_handler_over_there() -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def answer(_: Acknowledge) -> object:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    methods = {"m": Method(Acknowledge, answer), "n": Method(Acknowledge, _same)}
    async with _pair(methods) as (here, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.call, "m", Acknowledge(1), Watch)
            await started.wait()
            nursery.cancel_scope.cancel()
        await cancelled.wait()
        assert (await here.call("n", Acknowledge(5), RowSet)).revision == 5


async def test_an_unexpected_exception_is_logged_there_and_told_as_internal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: Acknowledge) -> object:
        raise ValueError("not for callers")

    async def refuse(_: Acknowledge) -> object:
        raise RemoteError("busy", "later")

    methods = {
        "fail": Method(Acknowledge, fail),
        "refuse": Method(Acknowledge, refuse),
        "odd": Method(Acknowledge, _same),
    }
    async with _pair(methods) as (here, _):
        with pytest.raises(RemoteError, match="internal") as failed:
            await here.call("fail", Acknowledge(1), Watch)
        assert "callers" not in str(failed.value)
        with pytest.raises(RemoteError, match=r"later \(busy\)"):
            await here.call("refuse", Acknowledge(1), Watch)
        with pytest.raises(RemoteError, match="unknown_method"):
            await here.call("other", Acknowledge(1), Watch)
        with pytest.raises(RemoteError, match="invalid_params"):
            await here.call("odd", Goodbye("a", "b"), Watch)
        with pytest.raises(InvalidMessageError, match="Hello"):
            await here.call("odd", Acknowledge(1), Hello)
    assert [record.getMessage() for record in caplog.records] == ["handler of fail raised"]


async def test_notices_come_in_order_and_unknown_ones_are_ignored() -> None:
    got: list[int] = []
    seen = trio.Event()

    def changed(notice: RowSet) -> None:
        got.append(notice.revision or 0)
        if len(got) == 50:
            seen.set()

    async with _pair({}, {"changed": NoticeHandler(RowSet, changed)}) as (here, _):
        for number in range(50):
            await here.notify("other", Cancel(1))
            await here.notify("changed", RowSet(number, 0))
        await seen.wait()
    assert got == list(range(50))


async def test_every_caller_learns_of_a_lost_connection_by_an_error_of_its_own() -> None:
    async def forever(_: Acknowledge) -> object:
        await trio.sleep_forever()

    left, right = open_memory_channel_pair()
    caught: list[ConnectionLostError] = []
    methods = {"m": Method(Acknowledge, forever)}
    with trio.fail_after(60):
        async with open_rpc(left) as here, open_rpc(right, methods=methods) as there:

            async def call() -> None:
                try:
                    await here.call("m", Acknowledge(1), Watch)
                except ConnectionLostError as error:
                    caught.append(error)

            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(call)
                await wait_all_tasks_blocked()
                left.break_link()
            assert (await there.wait_lost()).code == "broken"
            with pytest.raises(ConnectionLostError):
                await here.notify("n", Cancel(1))
    assert len({id(error) for error in caught}) == 100


async def test_a_goodbye_is_told_with_its_reason() -> None:
    async with _pair({}) as (here, there):
        await there.send_goodbye("key_revoked", "the key was revoked")
        why = await here.wait_lost()
        assert (why.code, why.reason, why.by_peer) == ("key_revoked", "the key was revoked", True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed_frame"),
        (b"\x91\x03", "malformed_frame"),
        (b"\x91" * 100_000, "malformed_frame"),
        (b"\xc6" + bytes(17 << 20), "frame_too_large"),
    ],
)
async def test_a_frame_that_is_none_ends_the_connection_and_both_sides_know_why(
    data: bytes, code: str
) -> None:
    left, right = open_memory_channel_pair(max_message_bytes=32 << 20)
    with trio.fail_after(60):
        async with open_rpc(right) as there:
            await left.send(data)
            frame = codec.decode_frame(await left.receive())
            assert isinstance(frame, codec.Notice)
            assert codec.decode(frame.params[0], Goodbye).code == code
            with pytest.raises(trio.EndOfChannel):
                await left.receive()
            assert (await there.wait_lost()).code == code


async def test_who_calls_more_than_it_may_is_disconnected() -> None:
    async def forever(_: Acknowledge) -> object:
        await trio.sleep_forever()

    async with _raw({"m": Method(Acknowledge, forever)}) as (left, there):
        for number in range(rpc.MAX_CALLS_IN_FLIGHT + 1):
            await left.send(codec.encode_request(number, "m", Acknowledge(1)))
        assert (await there.wait_lost()).code == "too_many_calls"


async def test_an_id_in_use_is_a_violation_and_a_late_answer_is_not() -> None:
    async def forever(_: Acknowledge) -> object:
        await trio.sleep_forever()

    async with _raw({"m": Method(Acknowledge, forever)}) as (left, there):
        await left.send(codec.encode_result(9, Watch()))
        for _ in range(2):
            await left.send(codec.encode_request(1, "m", Acknowledge(1)))
        assert (await there.wait_lost()).code == "duplicate_id"


async def test_the_bodys_exception_comes_out_as_it_is_and_handlers_are_cancelled() -> None:
    async def forever(_: Acknowledge) -> object:
        await trio.sleep_forever()

    with pytest.raises(KeyError, match="mine"):  # noqa: PT012 -- the block is what is tested
        async with _pair({"m": Method(Acknowledge, forever)}) as (here, _):
            with trio.move_on_after(0):
                await here.call("m", Acknowledge(1, (RejectedRow("a", "b"),)), Watch)
            raise KeyError("mine")


async def test_leaving_does_not_wait_for_who_does_not_read(autojump_clock: object) -> None:
    left, right = open_memory_channel_pair()
    async with open_rpc(right) as there:
        with trio.move_on_after(1):
            while True:
                await there.notify("n", Cancel(1))
        before = trio.current_time()
        await there.send_goodbye("shutting_down", "the end")
        assert trio.current_time() - before <= 4
    with pytest.raises(trio.ClosedResourceError):
        await there.notify("n", Cancel(1))
    await left.aclose()
