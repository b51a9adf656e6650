from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import trio

from tests.examples.support import EXAMPLES, running


async def echo(name: bytes, stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(name + b" heard " + data)


async def start_echo(nursery: trio.Nursery, name: bytes) -> str:
    serve = partial(trio.serve_tcp, partial(echo, name), host="127.0.0.1")
    listeners: list[trio.SocketListener] = await nursery.start(serve, 0)
    return f"127.0.0.1:{listeners[0].socket.getsockname()[1]}\n"


async def say(stream: trio.SocketStream, word: bytes) -> bytes:
    with trio.fail_after(60):
        await stream.send_all(word)
        return bytes(await stream.receive_some())


async def test_a_connection_stays_on_its_upstream_while_new_ones_go_to_the_next(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north, south = await start_echo(nursery, b"north"), await start_echo(nursery, b"south")
    upstreams = tmp_path / "upstreams.txt"
    upstreams.write_text(north)
    async with running("embed_pool.py", "0", str(upstreams)) as proxy:
        port = int(await proxy.said("listening on port "))
        first = await trio.open_tcp_stream("127.0.0.1", port)
        assert await say(first, b"one") == b"north heard one"

        upstreams.write_text("no port\n")
        proxy.process.send_signal(signal.SIGHUP)  # a bad edit: nothing is said, nothing changes
        assert await say(first, b"two") == b"north heard two"
        upstreams.write_text(south)
        proxy.process.send_signal(signal.SIGHUP)
        await proxy.said("applied")

        second = await trio.open_tcp_stream("127.0.0.1", port)
        assert await say(second, b"three") == b"south heard three"
        assert await say(first, b"four") == b"north heard four"
        await first.send_eof()
        assert await first.receive_some() == b""  # an end goes through as an end
        await first.aclose()
        await second.aclose()


async def test_an_upstream_that_is_not_there_costs_its_connection_only(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north, nobody = await start_echo(nursery, b"north"), "127.0.0.1:1\n"
    upstreams = tmp_path / "upstreams.txt"
    upstreams.write_text(nobody)
    async with running("embed_pool.py", "0", str(upstreams)) as proxy:
        port = int(await proxy.said("listening on port "))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await stream.receive_some() == b""
        await proxy.said("connection lost:")
        upstreams.write_text(north)
        proxy.process.send_signal(signal.SIGHUP)
        await proxy.said("applied")
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await say(stream, b"one") == b"north heard one"


def test_embedding_a_pool_takes_less_than_sixty_lines() -> None:
    assert len((EXAMPLES / "embed_pool.py").read_text().splitlines()) < 60
