"""A request that is cancelled at any checkpoint leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto.events import AcceptConnection, Request
from wsproto.utilities import LocalProtocolError

from bridgepool.gateway import GatewaySettings, Outcome
from bridgepool.gateway.providers import Client, ClientRules, hash_key
from bridgepool.http import Exchange, UpstreamError, open_upstream_client, serve_http
from tests.gateway.proxy.dying import answer, start_dying
from tests.gateway.proxy.raw import raw_upstream, read_head
from tests.gateway.proxy.rig import Rig, open_rig, openai
from tests.gateway.proxy.test_recovery_storm import check_nothing_is_left
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
from tests.gateway.proxy.websockets.rig import BEARER, KEY, create, response

RULES = ClientRules(
    models=("gpt-5",), max_concurrent=1, tokens_per_minute=10**9, tokens_per_day=10**9
)
SETTINGS = GatewaySettings(min_reload_interval=0.001, max_concurrent=1, drain_timeout=0.05)
LIMITS = {"max_concurrent": 1, "breaker": True, "breaker_failures": 1000}


@attrs.define(eq=False)
class CancelAt(trio.abc.Instrument):
    """Cancels a scope at one of the checkpoints of a task and of its children.

    Either when the task waits there, or when it is about to go on.
    """

    at: int
    before_it_goes_on: bool
    count: int = 0
    _task: trio.lowlevel.Task | None = None
    _scope: trio.CancelScope | None = None

    async def run(self, handle: Callable[[Exchange], Awaitable[None]], exchange: Exchange) -> None:
        """Handle a request, unless it is cancelled before."""
        with trio.CancelScope() as self._scope:
            self._task = trio.lowlevel.current_task()
            await handle(exchange)
        self._task = None

    def _note(self, task: trio.lowlevel.Task | None) -> None:
        while task is not None and task is not self._task:
            task = None if task.parent_nursery is None else task.parent_nursery.parent_task
        if self._task is None or task is None or self._scope is None:
            return
        self.count += 1
        if self.count == self.at:
            self._scope.cancel()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        if not self.before_it_goes_on:
            self._note(task)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        if self.before_it_goes_on:
            self._note(task)


async def serve_cancelled(
    rig: Rig, instrument: CancelAt, ask: Callable[[str], Awaitable[None]]
) -> None:
    """Serve one request with the gateway of the rig, cancelled by the instrument."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
    trio.lowlevel.add_instrument(instrument)
    try:
        async with trio.open_nursery() as nursery:
            handle = partial(instrument.run, rig.gateway.handle)
            await nursery.start(partial(serve_http, handle, [listener]))
            with trio.fail_after(60):
                await ask(address)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    await wait_all_tasks_blocked()


def check_all_is_free(rig: Rig) -> None:
    check_nothing_is_left(rig)
    gateway = rig.gateway
    assert gateway.pool.statistics().leased == 0
    assert gateway.statistics().requests == 0
    assert gateway._uses.bodies.used == 0
    assert not gateway._uses.bodies._by_client
    scopes: list[Any] = list(gateway._uses.limiter.scopes.values())
    assert [scope.running for scope in scopes] == [0] * len(scopes)
    assert gateway._sockets.total == 0
    assert not gateway._sockets._of_client
    for entry in gateway._runtimes.in_force.entries():
        if entry.runtime is not None:
            used = entry.runtime.client.statistics()
            assert (used.in_use, used.waiting) == (0, 0)


async def at_each_checkpoint(
    rig: Rig, ask: Callable[[str], Awaitable[None]], *, before_it_goes_on: bool, least: int
) -> None:
    """Cancel the request at its first checkpoint, the second, and so on, until it ends before."""
    at, ended = 1, False
    while not ended:
        records = len(rig.records)
        instrument = CancelAt(at, before_it_goes_on)
        await serve_cancelled(rig, instrument, ask)
        ended = instrument.count < at
        assert len(rig.records) == records + 1
        check_all_is_free(rig)
        at += 1
    assert at > least
    assert rig.gateway.statistics().ended[Outcome.FAILED] == 0


async def stream_events(stream: trio.SocketStream) -> None:
    """Answer with a stream of a few events."""
    with suppress(AssertionError, trio.BrokenResourceError):
        while True:
            data = await read_head(stream)
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            while len(body) < length:
                piece = await stream.receive_some()
                assert piece
                body += piece
            await stream.send_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            for number in range(3):
                await stream.send_all(b"b\r\ndata: {%03d}\n\r\n" % number)
                await trio.sleep(0.0005)
            await stream.send_all(b"0\r\n\r\n")


@pytest.mark.parametrize("before_it_goes_on", [False, True])
async def test_a_streamed_request_with_failover(
    nursery: trio.Nursery, before_it_goes_on: bool
) -> None:
    failing = await start_dying(nursery)
    good = await raw_upstream(nursery, stream_events)
    body = b'{"model": "gpt-5", "stream": true, "input": "%s"}' % (b"x" * 200_000)

    async def ask(address: str) -> None:
        failing.answers.clear()
        failing.answers.extend([answer(503)] * 20)
        async with open_upstream_client(f"http://{address}") as client:
            with suppress(UpstreamError):
                async with client.request(
                    b"POST", b"/ai/v1/chat/completions", tuple(BEARER), body
                ) as found:
                    while await found.receive_some():
                        pass

    async with open_rig(
        openai(failing.url, "ai", fallback=["other"], **LIMITS),
        openai(good, "other", **LIMITS),
        nursery=nursery,
        settings=SETTINGS,
    ) as rig:
        rig.set_clients(Client(id="ada", key_hashes=(hash_key(KEY),), rules=RULES))
        await at_each_checkpoint(rig, ask, before_it_goes_on=before_it_goes_on, least=20)
        assert rig.records[-1].status == 200


@pytest.mark.parametrize("before_it_goes_on", [False, True])
async def test_a_websocket(nursery: trio.Nursery, before_it_goes_on: bool) -> None:
    async def serve(socket: Socket, _: Request) -> None:
        usage = {"input_tokens": 1, "output_tokens": 1}
        with suppress(AssertionError, trio.BrokenResourceError):
            while True:
                await socket.receive()
                await socket.send_text(response("response.created", 1, "in_progress"))
                await socket.send_text(response("response.completed", 1, "completed", usage=usage))

    async def ask(address: str) -> None:
        with suppress(AssertionError, trio.BrokenResourceError, LocalProtocolError):
            async with connect_socket(address, headers=BEARER) as (socket, opened):
                assert isinstance(opened, AcceptConnection)
                for message in (create("gpt-5"), create("o3"), create("gpt-5", input="x" * 70_000)):
                    await socket.send_text(message)
                    for _ in range(1 if "o3" in message else 2):
                        await socket.receive()

    upstream = await start_upstream(nursery, serve)
    async with open_rig(
        openai(upstream.url, "ai", **LIMITS), nursery=nursery, settings=SETTINGS
    ) as rig:
        rig.set_clients(Client(id="ada", key_hashes=(hash_key(KEY),), rules=RULES))
        await at_each_checkpoint(rig, ask, before_it_goes_on=before_it_goes_on, least=20)
        assert rig.records[-1].status == 101
        assert rig.records[-1].outcome is Outcome.CLIENT_GONE
