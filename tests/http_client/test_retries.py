import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bridgepool.http import ConnectFailed, UpstreamCut
from tests.http_client.support import OK, Peer, answer_all, client_of, client_of_sockets, read_all


async def answer_then_close_on_next(peer: Peer) -> None:
    """Respond to one request; read the next and close without a response."""
    await peer.read_head()
    await peer.send(OK)
    await peer.read_head()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
async def test_an_idempotent_request_is_repeated_once_when_a_kept_connection_dies(
    method: bytes,
) -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            await peer.send(OK.removesuffix(b"ok") if head.startswith(b"HEAD") else OK)

    async with client_of(answer_then_close_on_next, script) as (client, upstream):
        await read_all(client)
        async with client.request(method, b"/") as response:
            assert response.status == 200
        assert upstream.dialled == 2
        statistics = client.statistics()
        kept = method != b"HEAD"
        assert (statistics.retried, statistics.in_use, statistics.idle) == (1, 0, kept)


async def test_a_repeated_request_sends_its_short_body_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        assert await peer.read_exactly(4) == b"body"
        await peer.send(OK)

    async with client_of(answer_then_close_on_next, script) as (client, _):
        await read_all(client)
        async with client.request(b"PUT", b"/", (), b"body") as response:
            assert await response.receive_some() == b"ok"


async def test_a_post_is_never_sent_twice() -> None:
    async with client_of(answer_then_close_on_next, answer_all) as (client, upstream):
        await read_all(client)
        with pytest.raises(UpstreamCut):
            async with client.request(b"POST", b"/", (), b"charge my card"):
                raise AssertionError
        assert upstream.dialled == 1
        assert client.statistics().in_use == client.statistics().idle == 0


async def test_a_partly_sent_body_is_never_sent_twice() -> None:
    send, receive = trio.testing.memory_stream_one_way_pair()
    async with client_of(answer_then_close_on_next, answer_all) as (client, upstream):
        await read_all(client)
        await send.send_all(b"part")
        with pytest.raises(UpstreamCut):
            async with client.request(b"PUT", b"/", (), receive):
                raise AssertionError
        assert upstream.dialled == 1


async def test_a_new_connection_that_dies_is_not_tried_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()

    async with client_of(script) as (client, upstream):
        with pytest.raises(UpstreamCut):
            await read_all(client)
        assert upstream.dialled == 1


async def test_a_request_is_repeated_no_more_than_once() -> None:
    async def die(peer: Peer) -> None:
        await peer.read_head()

    async with client_of(answer_then_close_on_next, die) as (client, upstream):
        await read_all(client)
        with pytest.raises(UpstreamCut):
            await read_all(client)
        assert upstream.dialled == 2
        assert client.statistics().in_use == client.statistics().idle == 0


async def test_a_request_whose_response_has_begun_is_not_repeated() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await peer.read_head()
        await peer.send(b"HTTP/1.1 2")

    async with client_of(script, answer_all) as (client, upstream):
        await read_all(client)
        with pytest.raises(UpstreamCut):
            await read_all(client)
        assert upstream.dialled == 1


async def test_when_the_new_connection_cannot_be_opened_nothing_is_left_behind() -> None:
    async def refuse() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError("refused")

    async with client_of(answer_then_close_on_next) as (client, upstream):
        await read_all(client)
        client._pool._dial = refuse
        with pytest.raises(ConnectFailed):
            await read_all(client)
        await wait_all_tasks_blocked()
        assert upstream.open == 0
        assert client.statistics().in_use == client.statistics().idle == 0


async def test_a_kept_connection_that_was_closed_meanwhile_is_not_used_even_for_a_post() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await close.wait()
        await peer.stream.aclose()
        closed.set()

    close, closed = trio.Event(), trio.Event()
    async with client_of_sockets(script, answer_all) as client:
        await read_all(client)
        close.set()
        await closed.wait()
        async with client.request(b"POST", b"/", (), b"body") as response:
            assert await response.receive_some() == b"ok"
        statistics = client.statistics()
        assert (statistics.found_dead, statistics.retried, statistics.opened) == (1, 0, 2)
        assert (statistics.in_use, statistics.idle) == (0, 1)


async def test_a_live_connection_is_found_behind_a_dead_one() -> None:
    async def dies(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await close.wait()
        await peer.stream.aclose()
        closed.set()

    close, closed = trio.Event(), trio.Event()
    async with client_of_sockets(answer_all, dies) as client:
        async with client.request(b"GET", b"/") as first, client.request(b"GET", b"/") as second:
            assert await first.receive_some() == b"ok"
            assert await second.receive_some() == b"ok"
        close.set()
        await closed.wait()
        assert await read_all(client) == b"ok"
        statistics = client.statistics()
        assert (statistics.opened, statistics.found_dead, statistics.idle) == (2, 1, 1)
