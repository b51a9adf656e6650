"""A name that resolves slowly takes no other name along, and nothing else that uses threads.

The look-ups are those of this process, slowed down for names of the tests: what the system's
resolver does when the name servers are silent.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import _tcp
from bridgepool._tcp import TcpConnector
from bridgepool.http import ConnectFailed, UpstreamLimits, open_upstream_client
from tests.garbage import cycles_left_by
from tests.ports import free_port

REAL = socket.getaddrinfo


@attrs.define(eq=False)
class Names:
    """Answers of the name servers, which a test can change."""

    answers: dict[str, list[str] | int] = attrs.field(factory=dict)
    """Addresses, or the number of an error."""
    silent: set[str] = attrs.field(factory=set)
    asked: list[str] = attrs.field(factory=list)
    _release: threading.Event = attrs.field(factory=threading.Event)

    def look_up(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags", 0) & socket.AI_NUMERICHOST or not str(host).endswith(".example"):
            return REAL(host, port, *args, **kwargs)
        self.asked.append(host)
        if host in self.silent:
            self._release.wait(30)
        answer = self.answers.get(host, socket.EAI_AGAIN)
        if isinstance(answer, int):
            raise socket.gaierror(answer, "the name servers say so")
        return [found for address in answer for found in REAL(address, port, *args, **kwargs)]

    def release(self) -> None:
        """Let the silent ones answer."""
        self.silent.clear()
        self._release.set()


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    yield names
    names.release()


@pytest.fixture
async def port(nursery: trio.Nursery) -> int:
    async def serve(stream: trio.SocketStream) -> None:
        async for data in stream:
            if data.endswith(b"\r\n\r\n"):
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    number: int = listener.socket.getsockname()[1]
    return number


async def test_one_dead_name_takes_no_other_look_up_and_no_thread_of_others(
    resolving: Names, port: int, nursery: trio.Nursery
) -> None:
    resolving.silent.add("dead.example")
    resolving.answers["good.example"] = ["127.0.0.1"]
    limits = UpstreamLimits(connect_timeout=3600)
    async with (
        open_upstream_client("http://dead.example", limits=limits) as dead,
        open_upstream_client(f"http://good.example:{port}") as good,
    ):

        async def ask_dead() -> None:
            async with dead.request(b"GET", b"/"):
                raise AssertionError("it has no address")

        async with trio.open_nursery() as requests:
            for _ in range(100):
                requests.start_soon(ask_dead)
            await wait_all_tasks_blocked()
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
            with trio.fail_after(10):
                async with good.request(b"GET", b"/") as response:
                    assert response.status == 200
                assert await trio.to_thread.run_sync(threading.get_ident)
            assert resolving.asked.count("dead.example") == 1
            requests.cancel_scope.cancel()


async def test_a_caller_that_leaves_does_not_end_the_look_up_of_the_others(
    resolving: Names, port: int
) -> None:
    resolving.silent.add("a.example")
    resolving.answers["a.example"] = ["127.0.0.1"]
    connector = TcpConnector("a.example", port)
    opened: list[trio.SocketStream] = []

    async def open_one(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            opened.append(await connector.open())

    async with trio.open_nursery() as nursery:
        first = await nursery.start(open_one)
        await nursery.start(open_one)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        resolving.release()
    [stream] = opened
    await stream.aclose()
    assert resolving.asked == ["a.example"]


async def test_the_last_good_addresses_are_used_while_a_name_does_not_resolve(
    resolving: Names, port: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    resolving.answers["a.example"] = ["127.0.0.1"]
    connector = TcpConnector("a.example", port)
    await (await connector.open()).aclose()
    resolving.answers["a.example"] = socket.EAI_AGAIN
    await (await connector.open()).aclose()
    while connector._running is not None:  # the clock jumps while a thread works
        await trio.lowlevel.checkpoint()
    resolving.silent.add("a.example")
    began = trio.current_time()
    for _ in range(3):
        await (await connector.open()).aclose()
    took = trio.current_time() - began
    assert _tcp._RESPONSE_TIMER <= took < 2 * _tcp._RESPONSE_TIMER, "only the first one waits"
    while len(resolving.asked) < 3:  # the clock jumped perhaps before the thread ran at all
        await trio.lowlevel.checkpoint()
    assert resolving.asked == ["a.example"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "name of an upstream cannot be looked up; using its last addresses"
    ]
    await trio.sleep(_tcp._MAX_AGE)
    with trio.move_on_after(60) as waiting:
        await connector.open()
    assert waiting.cancelled_caught, "not for ever"


async def test_a_name_that_is_gone_or_never_resolved_is_an_error(
    resolving: Names, port: int
) -> None:
    resolving.answers["a.example"] = ["127.0.0.1"]
    connector = TcpConnector("a.example", port)
    await (await connector.open()).aclose()
    resolving.answers["a.example"] = socket.EAI_NONAME
    with pytest.raises(OSError, match="its name cannot be looked up: the name servers say so"):
        await connector.open()
    async with open_upstream_client("http://new.example") as client:
        with pytest.raises(ConnectFailed, match="the name servers say so"):
            async with client.request(b"GET", b"/"):
                pass


async def test_the_next_look_up_brings_new_addresses(resolving: Names, port: int) -> None:
    resolving.answers["a.example"] = ["127.0.0.2", "127.0.0.3"]
    connector = TcpConnector("a.example", port)
    with pytest.raises(OSError, match="no address can be reached"):
        await connector.open()
    resolving.answers["a.example"] = ["127.0.0.2", "127.0.0.1"]
    stream = await connector.open()
    assert stream.socket.getpeername()[0] == "127.0.0.1"
    await stream.aclose()


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (["::1", "::2", "127.0.0.1"], ("::1", "127.0.0.1", "::2")),
        (["127.0.0.1", "127.0.0.2", "::1"], ("127.0.0.1", "::1", "127.0.0.2")),
        (["127.0.0.1", "127.0.0.1"], ("127.0.0.1",)),
    ],
)
def test_a_family_that_cannot_be_reached_costs_one_try(
    found: list[str], order: tuple[str, ...]
) -> None:
    assert _tcp._in_order(found) == order


@pytest.mark.parametrize(
    "answer", [socket.EAI_NONAME, ["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]], ids=str
)
async def test_a_connection_that_fails_leaves_nothing_to_the_garbage_collector(
    resolving: Names, answer: list[str] | int
) -> None:
    resolving.answers["bad.example"] = answer
    async with open_upstream_client(f"http://bad.example:{free_port()}") as client:

        async def ask() -> None:
            with suppress(ConnectFailed):
                async with client.request(b"GET", b"/"):
                    raise AssertionError("nothing listens there")

        assert await cycles_left_by(ask) == []
