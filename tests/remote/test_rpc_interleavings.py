"""Whatever two ends do to each other at once, each call ends once, and nothing is left behind."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from bridgepool.remote import _codec as codec
from bridgepool.remote._errors import ConnectionLostError, RemoteError
from bridgepool.remote._messages import Acknowledge, Cancel, Goodbye, RowSet
from bridgepool.remote._rpc import MAX_CALLS_IN_FLIGHT, Method, NoticeHandler, RpcPeer, open_rpc
from bridgepool.transports.memory import MemoryChannel, open_memory_channel_pair

_SMALL = 2000  # bytes of a frame
_EXPECTED = {"crash": "internal", "refuse": "busy", "large": "too_large", "none": "unknown_method"}
_ENDLESS = ("forever", "stubborn")


@attrs.define(eq=False)
class _Late(trio.abc.Channel[bytes]):
    """A send returns later than its message arrives, as it does over sockets."""

    inner: MemoryChannel
    delay: float

    async def send(self, value: bytes) -> None:
        await self.inner.send(value)
        await trio.sleep(self.delay)

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.define(eq=False)
class _World:
    """Two ends, what was called, and how it ended."""

    running: int = 0  # handlers
    noticed: list[int] = attrs.field(factory=list)
    outcomes: dict[int, list[str]] = attrs.field(factory=dict)
    may_end: bool = False  # something ended the connection

    def methods(self) -> dict[str, Method[Any]]:
        return {
            name: Method(Acknowledge, partial(self.handle, name))
            for name in ("quick", "slow", "crash", "refuse", "large", *_ENDLESS)
        }

    async def handle(self, name: str, params: Acknowledge) -> object:
        self.running += 1
        try:
            if name != "quick":
                await trio.sleep(params.revision % 3)
            if name == "crash":
                raise ValueError("planted")
            if name == "refuse":
                raise RemoteError("busy", "later")
            if name == "large":
                return Goodbye("x", "y" * _SMALL)
            if name in _ENDLESS:
                await trio.sleep_forever()
            return RowSet(params.revision, 0)
        finally:
            if name == "stubborn":
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)
            self.running -= 1

    async def call(self, peer: RpcPeer, number: int, name: str, patience: float) -> None:
        ended = self.outcomes.setdefault(number, [])
        with trio.move_on_after(patience) as scope:
            try:
                got = await peer.call(name, Acknowledge(number), RowSet)
            except RemoteError as error:
                ended.append(error.code)
            except (ConnectionLostError, trio.ClosedResourceError):
                ended.append("lost")
            else:
                ended.append(f"result {got.revision}")
        if scope.cancelled_caught:
            ended.append("given up")

    def check(self, number: int, name: str) -> None:
        (how,) = self.outcomes[number]
        expected = _EXPECTED.get(name, f"result {number}")
        assert how in {expected, "given up", "lost"}, (name, how)
        assert name not in _ENDLESS or how in {"given up", "lost"}
        assert how != "lost" or self.may_end


@asynccontextmanager
async def _ends(
    world: _World, delays: tuple[float, float]
) -> AsyncIterator[tuple[tuple[RpcPeer, ...], Any]]:
    left, right = open_memory_channel_pair()

    def noticed(params: Cancel) -> None:
        world.noticed.append(params.id)

    notices = {"n": NoticeHandler(Cancel, noticed)}
    args: dict[str, Any] = {"notices": notices, "max_frame_bytes": _SMALL}
    async with (
        open_rpc(_Late(left, delays[0]), methods=world.methods(), **args) as here,
        open_rpc(_Late(right, delays[1]), methods=world.methods(), **args) as there,
    ):
        yield (here, there), left


def _is_idle(peer: RpcPeer) -> bool:
    return (
        not peer._calls
        and not peer._handlers
        and peer._unanswered == 0
        and not peer._outbox
        and peer._places.value == MAX_CALLS_IN_FLIGHT
    )


_calls = st.tuples(
    st.just("call"),
    st.sampled_from(["slow", "quick", *_ENDLESS, *_EXPECTED]),
    st.sampled_from([1, 1, 3, MAX_CALLS_IN_FLIGHT, MAX_CALLS_IN_FLIGHT + 9]),  # so many at once
    st.sampled_from([0, 0.001, 0.5, 1.5, 1000]),  # the callers' patience
)
_steps = st.one_of(
    _calls,
    _calls,
    st.tuples(st.just("notice"), st.just(""), st.integers(1, 40), st.just(0.0)),
    st.tuples(st.just("wait"), st.just(""), st.just(1), st.sampled_from([0.0, 0.01, 1.0])),
)
_ending = st.sampled_from(["none", "none", "goodbye", "cut", "close", "leave"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), _steps), max_size=10),
    _ending,
    st.tuples(*[st.sampled_from([0.0, 0.0001, 0.01])] * 2),
)
@example([(0, ("call", "quick", 200, 1000))], "none", (0.0, 0.01))
@example([(1, ("call", "slow", 90, 1000))], "goodbye", (0.0, 0.0))
@example(  # a call that came in the moment in which the writer found the end
    [
        (0, ("call", "slow", 2, 0)),
        (0, ("wait", "", 1, 0.01)),
        (0, ("call", "forever", 64, 0.001)),
        (1, ("notice", "", 14, 0.0)),
    ],
    "cut",
    (0.0, 0.0),
)
@example([(0, ("call", "stubborn", 64, 0.1)), (0, ("call", "slow", 64, 1000))], "none", (0.0, 0.0))
def test_each_call_ends_once_with_its_own_answer_and_nothing_is_left(
    steps: list[tuple[int, tuple[str, str, int, float]]], ending: str, delays: tuple[float, float]
) -> None:
    logging.disable(logging.CRITICAL)  # handlers that raise are logged, by the thousand here
    try:
        trio.run(_play, steps, ending, delays, clock=MockClock(autojump_threshold=0))
    finally:
        logging.disable(logging.NOTSET)


async def _play(
    steps: list[tuple[int, tuple[str, str, int, float]]], ending: str, delays: tuple[float, float]
) -> None:
    world = _World()
    called: list[str] = []
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.fail_after(100_000):
        async with _ends(world, delays) as (peers, link), trio.open_nursery() as nursery:
            notices = 0
            for side, (kind, name, count, seconds) in steps:
                if kind == "wait":
                    await trio.sleep(seconds)
                for _ in range(count):
                    if kind == "call":
                        patience = min(seconds, 5) if name in _ENDLESS else seconds
                        nursery.start_soon(world.call, peers[side], len(called), name, patience)
                        called.append(name)
                    elif kind == "notice":
                        await peers[side].notify("n", Cancel(notices))
                        notices += 1
            if ending == "none":
                await _all_is_well(world, peers, called, notices)
            else:
                world.may_end = True
                await _end(ending, peers, link)
                await trio.sleep(5)
                assert world.running == 0  # handlers end with the connection, not with the block
                assert all(world.outcomes.get(number) for number in range(len(called)))
        assert world.running == 0
    for number, name in enumerate(called):
        world.check(number, name)
    assert all(not peer._calls and not peer._handlers for peer in peers)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def _end(ending: str, peers: tuple[RpcPeer, ...], link: MemoryChannel) -> None:
    if ending == "goodbye":
        await peers[0].send_goodbye("shutting_down", "the end")
    elif ending == "cut":
        link.break_link()
    elif ending == "close":
        await link.aclose()
    if ending != "leave":
        for peer in peers:
            await peer.wait_lost()
    else:  # as one does who leaves the block, while the callers are still there
        peers[0]._left = True
        peers[0]._end(ConnectionLostError("closed", "this side left"))


async def _all_is_well(
    world: _World, peers: tuple[RpcPeer, ...], called: list[str], notices: int
) -> None:
    """All calls end, handlers that nobody waits for too, and the connection lives on."""
    await trio.sleep(5000)
    assert world.running == 0
    assert [_is_idle(peer) for peer in peers] == [True, True]
    assert len(world.outcomes) == len(called)
    assert sorted(world.noticed) == list(range(notices))
    for peer in peers:
        assert (await peer.call("quick", Acknowledge(7), RowSet)).revision == 7


async def test_ids_begin_again_and_skip_those_in_use(autojump_clock: object) -> None:
    world = _World()
    async with _ends(world, (0.0, 0.0)) as (peers, _), trio.open_nursery() as nursery:
        here = peers[0]
        for _ in range(2):
            here._next_id = codec.MAX_CALL_ID
            nursery.start_soon(world.call, here, len(world.outcomes), "forever", 9)
            await trio.sleep(1)
        assert set(here._calls) == {codec.MAX_CALL_ID, 0}
        here._next_id = codec.MAX_CALL_ID
        assert (await here.call("slow", Acknowledge(5), RowSet)).revision == 5
        assert here._next_id == 2


async def test_a_group_raised_while_cancelled_is_the_handlers_failure_and_is_answered(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("planted")

    async def handle(_: Acknowledge) -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)
        raise AssertionError("not reached")

    left, right = open_memory_channel_pair()
    methods = {"m": Method(Acknowledge, handle)}
    with trio.fail_after(30):
        async with open_rpc(left) as here, open_rpc(right, methods=methods) as there:
            with trio.move_on_after(1):
                await here.call("m", Acknowledge(1), RowSet)
            await trio.sleep(1)
            assert [record.getMessage() for record in caplog.records] == ["handler of m raised"]
            assert _is_idle(here)
            assert _is_idle(there)
