"""What a request leaves to the garbage collector: nothing, however it ends."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from bridgepool.http import UpstreamClient, UpstreamError, UpstreamLimits
from tests.garbage import cycles_left_by
from tests.http_client.support import OK, Peer, Pieces, Script, answer_all, client_of, read_all

LONG = b"x" * 100_000
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"


async def answer_in_chunks(peer: Peer) -> None:
    while await peer.read_head():
        await peer.send(CHUNKS)
        await peer.send(b"0\r\n\r\n")


async def take_a_long_body(peer: Peer) -> None:
    await peer.read_head()
    await peer.read_exactly(len(LONG))
    await peer.send(OK)


async def fall_silent(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(CHUNKS)
    await peer.wait_closed()


async def cut(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(CHUNKS)


async def send_nonsense(peer: Peer) -> None:
    await peer.read_head()
    await peer.send(b"nonsense\r\n\r\n")


class Failing:
    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        raise UpstreamError("of a test")


async def upload(client: UpstreamClient) -> None:
    async with client.request(b"POST", b"/", (), LONG) as response:
        await response.receive_some()


async def upload_pieces(client: UpstreamClient) -> None:
    async with client.request(b"POST", b"/", (), Pieces(LONG)) as response:
        await response.receive_some()


async def upload_what_fails(client: UpstreamClient) -> None:
    async with client.request(b"POST", b"/", (), Failing()):
        raise AssertionError


async def leave_early(client: UpstreamClient) -> None:
    async with client.request(b"GET", b"/"):
        pass


async def be_cancelled(client: UpstreamClient) -> None:
    with trio.move_on_after(1):
        await read_all(client)


@pytest.mark.parametrize(
    ("script", "use"),
    [
        (answer_all, read_all),
        (answer_in_chunks, read_all),
        (take_a_long_body, upload),
        (take_a_long_body, upload_pieces),
        (answer_all, upload_what_fails),
        (fall_silent, read_all),
        (fall_silent, upload),
        (fall_silent, leave_early),
        (fall_silent, be_cancelled),
        (Peer.wait_closed, read_all),
        (Peer.wait_closed, upload),
        (cut, read_all),
        (send_nonsense, read_all),
    ],
)
async def test_a_request_leaves_nothing_to_the_garbage_collector(
    script: Script,
    use: Callable[[UpstreamClient], Awaitable[object]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = UpstreamLimits(head_timeout=10, read_timeout=10)
    async with client_of(script, limits=limits) as (client, _):

        async def request() -> None:
            with suppress(UpstreamError):
                await use(client)

        assert await cycles_left_by(request) == []
