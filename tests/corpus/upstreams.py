"""Upstreams behind the gateway: a strict one, and careless ones, as small servers are.

Each records what it takes for messages, and answers with the tokens that it saw in them and with
all of their bytes: a byte of another exchange would show at the client.
"""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import attrs
import h11
import trio

from tests.corpus.cases import TOKEN, Case

_TOKEN = re.compile(rb"T[0-9]{6}T")


def tokens_in(data: bytes) -> set[bytes]:
    """Return the tokens of all exchanges whose bytes are in here."""
    return set(_TOKEN.findall(data))


def answers_in(data: bytes, methods: list[str]) -> tuple[list[tuple[int, bytes]], bytes]:
    """Parse answers with h11; return status and body of the complete ones, and what is left."""
    answers: list[tuple[int, bytes]] = []
    while data:
        method = methods[min(len(answers), len(methods) - 1)]
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        status, seen = 0, b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return answers, data
            if isinstance(event, h11.Response):
                status = event.status_code
                seen = b",".join(value for name, value in event.headers if name == b"x-seen")
        data = connection.trailing_data[0]
        answers.append((status, seen))
    return answers, b""


@attrs.define(eq=False)
class Upstream:
    """What an upstream received."""

    url: str = ""
    messages: list[bytes] = attrs.field(factory=list)
    """Complete messages."""
    violations: list[str] = attrs.field(factory=list)
    """What a strict upstream could not accept."""
    script: dict[bytes, Case] = attrs.field(factory=dict)
    """Raw answers by the token of their request, of a scripted upstream."""
    idle: trio.Event = attrs.field(factory=trio.Event)
    """Set by the test when an exchange is over."""
    sent: trio.Event = attrs.field(factory=trio.Event)
    """Set by the upstream when it has sent what it sends then."""

    async def send_idle(self) -> None:
        """Have the scripted upstream send what it sends after an exchange."""
        self.sent = trio.Event()
        self.idle.set()
        await self.sent.wait()

    def of(self, mark: bytes) -> list[bytes]:
        """Return the messages with this token."""
        return [message for message in self.messages if mark in message]

    def answer(self, message: bytes) -> tuple[bytes, bytes]:
        """Record a message; return a header with its tokens, and the body of the answer."""
        self.messages.append(message)
        return b",".join(sorted(tokens_in(message))), b"<" + message + b">"


OpenUpstream = Callable[[], AbstractAsyncContextManager[Upstream]]


@asynccontextmanager
async def _served(
    serve: Callable[[Upstream, trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[Upstream]:
    upstream = Upstream()

    async def one(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # the gateway has hung up on it
            async with stream:
                await serve(upstream, stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, one, 0, host="127.0.0.1"))
        upstream.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        yield upstream
        nursery.cancel_scope.cancel()


async def _strict(upstream: Upstream, stream: trio.SocketStream) -> None:
    """Parse with h11, which is not ours; whatever it rejects is a violation."""
    connection = h11.Connection(h11.SERVER)
    parts: list[bytes] = []
    head = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if connection.their_state is not h11.ERROR or stream_ended(connection):
                return
            upstream.violations.append(f"{error}: {connection.trailing_data[0]!r}")
            return
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                await stream.send_all(connection.send(_continue()) or b"")
            data = await stream.receive_some()
            if not data:
                return  # perhaps in the middle of a message: it is not complete
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event.method
            parts = [event.method, event.target, *(n + b": " + v for n, v in event.headers)]
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            parts += [n + b": " + v for n, v in event.headers]
            marks, body = upstream.answer(b"\n".join(parts))
            fields = [(b"x-seen", marks), (b"content-length", b"%d" % len(body))]
            raw = connection.send(h11.Response(status_code=200, headers=fields)) or b""
            if head != b"HEAD":
                raw += connection.send(h11.Data(body)) or b""
            raw += connection.send(h11.EndOfMessage()) or b""
            await stream.send_all(raw)
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()
        else:
            return


def _continue() -> h11.InformationalResponse:
    return h11.InformationalResponse(status_code=100, headers=[])


def stream_ended(connection: h11.Connection) -> bool:
    """Return whether the peer has closed, which is no violation."""
    return connection.trailing_data[1]


@attrs.define(eq=False)
class Careless:
    """Reads lines and `Content-Length`, and nothing else; only of some methods.

    What it leaves unread it takes for the next request, and it sends a body also in answer to HEAD.
    It does both only when more bytes come: at the worst moment, when somebody else waits for an
    answer on this connection.
    """

    stream: trio.SocketStream
    buffer: bytes = b""
    late: bytes = b""  # to be sent when more bytes come

    async def receive(self) -> bool:
        """Receive more; False at the end."""
        piece = await self.stream.receive_some()
        if piece and self.late:
            await self.stream.send_all(self.late)
            self.late = b""
        self.buffer += piece
        return bool(piece)

    async def message(self) -> bytes | None:
        """Return what it takes for the next message."""
        if self.buffer and not await self.receive():
            return None
        while not (ends := [found.end() for found in re.finditer(rb"\n\r?\n", self.buffer)]):
            if not await self.receive():
                return None
        head, self.buffer = self.buffer[: ends[0]], self.buffer[ends[0] :]
        length = _careless_length(head) if head.startswith((b"POST", b"PUT")) else 0
        coded = b"transfer-encoding: chunked" in head.lower()
        while len(self.buffer) < length or (coded and not self.buffer.endswith(b"\r\n\r\n")):
            if not await self.receive():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return head + body


async def _scripted(upstream: Upstream, stream: trio.SocketStream) -> None:
    """Give the answers of the corpus: `upstream.script` has one for the token of a request."""
    careless = Careless(stream)
    while (message := await careless.message()) is not None:
        [mark] = tokens_in(message)
        case = upstream.script.get(mark)
        if case is None:
            marks, body = upstream.answer(message)
            head = b"HTTP/1.1 200 OK\r\nx-seen: %b\r\ncontent-length: %d\r\n\r\n"
            await stream.send_all(head % (marks, len(body)) + body)
            continue
        careless.late = case.late.replace(TOKEN, mark)
        await stream.send_all(case.marked(mark))
        if not case.complete:
            return
        if case.idle:
            await upstream.idle.wait()
            upstream.idle = trio.Event()
            try:
                await stream.send_all(case.idle.replace(TOKEN, mark))
            finally:
                upstream.sent.set()


async def _careless(upstream: Upstream, stream: trio.SocketStream) -> None:
    careless = Careless(stream)
    while (message := await careless.message()) is not None:
        marks, body = upstream.answer(message)
        head = b"HTTP/1.1 200 OK\r\nx-seen: %b\r\ncontent-length: %d\r\n\r\n"
        head %= marks, len(body)
        if message.startswith(b"HEAD"):
            careless.late, body = body, b""
        await stream.send_all(head + body)
        if b"\nconnection: close" in message.lower():
            return


def _careless_length(head: bytes) -> int:
    for line in head.split(b"\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower().replace(b"_", b"-") == b"content-length":
            with suppress(ValueError):
                return int(value)  # also of "+2" and "0_2"
    return 0


class _Handler(http.server.BaseHTTPRequestHandler):
    """The standard library's server, used as its documentation shows."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 10
    raw_requestline: bytes
    upstream: Upstream

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0)) if self.command == "POST" else 0
        message = self.raw_requestline + self.headers.as_bytes() + self.rfile.read(length)
        marks, body = self.upstream.answer(message)
        self.send_response(200)
        self.send_header("X-Seen", marks.decode())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)  # also in answer to HEAD

    do_GET = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815 -- names of the base class

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """The gateway has hung up on it."""


@asynccontextmanager
async def open_standard() -> AsyncIterator[Upstream]:
    """Open the standard library's `http.server`."""
    upstream = Upstream()
    handler = type("Handler", (_Handler,), {"upstream": upstream})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        upstream.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield upstream
        finally:
            server.shutdown()
            server.block_on_close = False
            thread.join()


UPSTREAMS: dict[str, OpenUpstream] = {
    "strict": partial(_served, _strict),
    "careless": partial(_served, _careless),
    "http.server": open_standard,
}
"""What the raw requests go to."""
open_scripted: OpenUpstream = partial(_served, _scripted)
