import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.http import (
    PoolFull,
    UpstreamClient,
    UpstreamError,
    UpstreamLimits,
    open_upstream_client,
)
from tests.http_client.support import (
    OK,
    Peer,
    Pieces,
    Script,
    answer_all,
    cancel_at_every_step,
    client_of,
    read_all,
)

Run = Callable[[UpstreamClient], Awaitable[object]]


async def send_apart(peer: Peer, data: bytes) -> None:
    await peer.send(data)
    for _ in range(3):  # let the reader take it before the next one comes
        await trio.lowlevel.checkpoint()


async def in_pieces(peer: Peer) -> None:
    """Answer slowly, in many pieces, after an interim answer."""
    while await peer.read_head():
        for piece in (b"HTTP/1.1 102 x\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"content-len"):
            await send_apart(peer, piece)
        for piece in (b"gth: 4\r\n\r\n", b"o", b"k", b"ok"):
            await send_apart(peer, piece)


async def takes_body(peer: Peer) -> None:
    while head := await peer.read_head():
        if b"chunked" in head:
            await peer.read_until(b"0\r\n\r\n")
        await peer.send(OK)


async def dies_on_second(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(OK)
    await peer.read_head()


async def upload(client: UpstreamClient) -> bytes:
    async with client.request(b"POST", b"/", (), Pieces(b"a", b"b", b"c")) as response:
        return await response.receive_some()


async def upload_short(client: UpstreamClient) -> bytes:
    headers = ((b"content-length", b"3"),)
    async with client.request(b"PUT", b"/", headers, Pieces(b"a", b"b", b"c")) as response:
        return await response.receive_some()


async def leave_unread(client: UpstreamClient) -> None:
    async with client.request(b"GET", b"/"):
        pass


async def repeat(client: UpstreamClient) -> None:
    await read_all(client)
    await read_all(client)


@pytest.mark.parametrize(
    ("run", "scripts"),
    [
        (read_all, (in_pieces,)),
        (upload, (takes_body,)),
        (upload_short, (answer_all,)),
        (leave_unread, (in_pieces,)),
        (repeat, (dies_on_second, in_pieces)),
    ],
)
async def test_cancelled_at_any_point_a_request_leaves_no_slot_and_no_connection_behind(
    run: Run, scripts: tuple[Script, ...]
) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with client_of(*scripts, limits=UpstreamLimits(max_connections=1)) as (client, up):
            yield lambda: run(client)
            await wait_all_tasks_blocked()
            statistics = client.statistics()
            assert statistics.in_use == statistics.waiting == 0
            assert up.open == statistics.idle  # an idle one is whole: it serves the next request
            if statistics.idle:
                assert (await read_all(client)).startswith(b"ok")

    assert await cancel_at_every_step(world) > 2


async def test_a_request_cancelled_while_waiting_takes_no_slot() -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[Callable[[], Awaitable[object]]]:
        limits = UpstreamLimits(max_connections=1)
        async with client_of(answer_all, limits=limits) as (client, _):
            async with trio.open_nursery() as nursery:
                holder = client.request(b"GET", b"/")
                await holder.__aenter__()

                async def leave() -> None:
                    await wait_all_tasks_blocked()
                    await holder.__aexit__(None, None, None)

                nursery.start_soon(leave)
                yield lambda: read_all(client)
            assert client.statistics().in_use == client.statistics().waiting == 0
            assert await read_all(client) == b"ok"

    assert await cancel_at_every_step(world) >= 2


async def test_a_request_waits_for_a_slot_and_gets_the_connection_that_is_freed() -> None:
    async with client_of(answer_all, limits=UpstreamLimits(max_connections=1)) as (client, up):
        async with trio.open_nursery() as nursery, client.request(b"GET", b"/") as response:
            nursery.start_soon(read_all, client)
            await wait_all_tasks_blocked()
            assert client.statistics().waiting == 1
            assert await response.receive_some() == b"ok"
        assert up.dialled == 1


async def test_a_request_that_waits_too_long_or_finds_too_many_waiting_is_refused(
    autojump_clock: MockClock,
) -> None:
    limits = UpstreamLimits(max_connections=1, max_waiting=1, wait_timeout=5)
    async with client_of(answer_all, limits=limits) as (client, _):
        async with client.request(b"GET", b"/"), trio.open_nursery() as nursery:

            async def wait_in_vain() -> None:
                with pytest.raises(PoolFull):
                    await read_all(client)
                assert trio.current_time() == pytest.approx(5)

            nursery.start_soon(wait_in_vain)
            await wait_all_tasks_blocked()
            with pytest.raises(PoolFull):
                await read_all(client)
            assert trio.current_time() < 1
        assert await read_all(client) == b"ok"


async def test_closing_the_client_ends_running_and_waiting_requests() -> None:
    ended: list[str] = []

    async def silent(peer: Peer) -> None:
        await peer.wait_closed()
        ended.append("upstream")

    async def ask(client: UpstreamClient) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await read_all(client)
        ended.append("request")

    limits = UpstreamLimits(max_connections=1)
    async with trio.open_nursery() as nursery, client_of(silent, limits=limits) as (client, _):
        nursery.start_soon(ask, client)
        nursery.start_soon(ask, client)
        await wait_all_tasks_blocked()
        assert (client.statistics().in_use, client.statistics().waiting) == (1, 1)
        # `client_of` leaves the client first, and only then ends the upstream.
    assert sorted(ended)[:2] == ["request", "request"]
    with pytest.raises(trio.ClosedResourceError):
        await read_all(client)
    statistics = client.statistics()
    assert statistics.in_use == statistics.idle == statistics.waiting == 0


async def test_a_connection_that_is_opened_after_the_client_was_closed_is_closed() -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def dial() -> trio.abc.Stream:
        await connected.wait()
        return ours

    async def ask(client: UpstreamClient) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await read_all(client)

    connected = trio.Event()
    async with trio.open_nursery() as nursery:
        async with open_upstream_client("http://upstream", dial=dial) as client:
            nursery.start_soon(ask, client)  # noqa: ASYNC111 -- outliving it is what is tested
            await wait_all_tasks_blocked()
        connected.set()
    assert await theirs.receive_some() == b""


async def test_an_error_in_the_client_block_is_raised_unchanged() -> None:
    for error in (ValueError("mine"), KeyboardInterrupt()):
        with pytest.RaisesGroup(type(error)):  # of the nursery that runs the upstream, not ours
            async with client_of(answer_all) as (client, _):
                await read_all(client)
                raise error


async def churn(seed: int) -> None:
    """25 tasks on 10 slots, each cancelled after a random time, over a flaky upstream."""
    rng = random.Random(seed)
    served = 0

    async def script(peer: Peer) -> None:
        while await peer.read_head():
            await trio.sleep(rng.uniform(0, 4))
            match rng.randrange(8):
                case 0:
                    return
                case 1:
                    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
                    return
                case 2:
                    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
                    await trio.sleep(rng.uniform(0, 4))
                    await peer.send(b"ok")
                case _:
                    await peer.send(OK)

    async def ask_often() -> None:
        nonlocal served
        for _ in range(10):
            with trio.move_on_after(rng.uniform(0, 8)):
                try:
                    if rng.random() < 0.3:
                        await upload_short(client)
                    else:
                        await read_all(client)
                    served += 1
                except UpstreamError:
                    pass

    limits = UpstreamLimits(max_connections=10, idle_expiry=3, head_timeout=3)
    async with client_of(script, limits=limits) as (client, _):
        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(ask_often)
        await wait_all_tasks_blocked()
        statistics = client.statistics()
        assert statistics.in_use == statistics.waiting == 0
        assert statistics.idle <= 10
        assert served > 0
        async with trio.open_nursery() as nursery:  # every slot can be taken again
            release = trio.Event()

            async def hold() -> None:
                link = await client._pool.take(None)
                await release.wait()
                await client._pool.discard(link)

            for _ in range(10):
                nursery.start_soon(hold)
            await wait_all_tasks_blocked()
            assert (client.statistics().in_use, client.statistics().waiting) == (10, 0)
            release.set()
        await wait_all_tasks_blocked()
        assert len(client._pool._open_connections) == 0


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_after_any_churn_of_cancelled_requests_all_slots_are_free(seed: int) -> None:
    trio.run(churn, seed, clock=MockClock(autojump_threshold=0))
