"""The control plane's end: sessions of gateways, answered from a `ProviderBackend`.

Theory of operation. One task follows the backend. When its revisions move, it ends the sessions
whose key was revoked and marks the others, however often; the task of each marked session sends
it the latest. So a slow gateway delays neither another gateway nor the end of a session.

The providers are read and encoded once for all sessions, see `SharedReading`.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any, Final

import attrs
import trio

from bridgepool._services import open_service_nursery
from bridgepool._version import __version__
from bridgepool.remote._admission import Admitted, admit
from bridgepool.remote._answers import ReadingFailedError, SharedReading
from bridgepool.remote._backend import ProviderBackend, SessionInfo
from bridgepool.remote._codec import MAX_FRAME_BYTES, Encoded
from bridgepool.remote._errors import RemoteError
from bridgepool.remote._messages import (
    Acknowledge,
    Acknowledged,
    Authorization,
    Authorize,
    Changed,
    GetProviders,
    Goodbye,
    Hello,
    ProviderSet,
    Revisions,
    WatchProviders,
    Welcome,
)
from bridgepool.remote._rpc import Method, RpcPeer, open_rpc
from bridgepool.remote._versions import PROTOCOL
from bridgepool.transports._handshake import Handshake, Refused, WebSocketLimits

_log = logging.getLogger("bridgepool.remote")
_SOFTWARE: Final = f"bridgepool/{__version__}"
_KEY_REVOKED: Final = Goodbye(
    "key_revoked", "this gateway key was revoked; have a new one made for this gateway"
)
_NO_HELLO: Final = Goodbye("hello_timeout", "no hello came in time")
_SHUTTING_DOWN: Final = Goodbye("shutting_down", "the control plane stops; connect again")
_DEFAULT_LIMITS: Final = WebSocketLimits()
Listener = trio.abc.Listener[trio.abc.Stream]
_AUTHORIZATIONS: Final = 64  # questions about clients that the backend is asked at a time


@attrs.define(eq=False)
class ProviderService:
    """Serves gateways from one backend. See `open_provider_service`."""

    backend: ProviderBackend
    """The owner of the providers."""
    _hello_timeout: float
    _goodbye_timeout: float
    _max_message_bytes: int
    _reading: SharedReading = attrs.field(init=False)
    _asking: trio.CapacityLimiter = attrs.field(init=False)
    _sessions: set["_Session"] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._reading = SharedReading(self.backend, self._max_message_bytes)
        self._asking = trio.CapacityLimiter(_AUTHORIZATIONS)

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._sessions)

    async def admit(self, handshake: Handshake) -> Admitted | Refused:
        """Let a gateway in, or say why not; for `serve_websockets`."""
        return await admit(handshake, self.backend)

    async def serve(self, channel: trio.abc.Channel[bytes], admitted: Admitted) -> None:
        """Serve one gateway until either end is gone; for `serve_websockets`."""
        session = _Session(self, admitted)
        self._sessions.add(session)
        try:
            # Not before it is among the sessions, so that a revocation finds it here or there.
            if self.backend.is_live(admitted.identity.key_id):
                await session.run(channel)
        finally:
            self._sessions.discard(session)
            session.closed()

    async def _follow(self, changes: trio.abc.ReceiveChannel[None]) -> None:
        async for _ in changes:
            for session in tuple(self._sessions):
                session.check()


@attrs.define(eq=False)
class _Session:
    """One session; made when the gateway was admitted."""

    service: ProviderService
    admitted: Admitted
    id: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    rpc: RpcPeer | None = attrs.field(default=None, init=False)
    info: SessionInfo | None = attrs.field(default=None, init=False)  # since the hello
    watching: WatchProviders | None = attrs.field(default=None, init=False)
    told: Revisions | None = attrs.field(default=None, init=False)  # in the last notice
    marked: trio.Event = attrs.field(factory=trio.Event, init=False)  # something may have changed
    running: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    goodbye: Goodbye | None = attrs.field(default=None, init=False)  # why it is ended from here

    @property
    def backend(self) -> ProviderBackend:
        return self.service.backend

    def check(self) -> None:
        """End the session if its key was revoked; otherwise mark it to be told the latest."""
        if self.backend.is_live(self.admitted.identity.key_id):
            self.marked.set()
        else:
            self.end(_KEY_REVOKED)

    def wants_providers(self) -> bool:
        """Tell whether the next notice is to bring providers."""
        told = self.told
        return (
            told is not None
            and self.watching is not None
            and self.watching.send
            and told.providers != self.backend.revisions.providers
        )

    def end(self, goodbye: Goodbye) -> None:
        """End the session from this side."""
        self.goodbye = self.goodbye or goodbye
        self.running.cancel()

    def closed(self) -> None:
        """Note that it has ended."""
        if self.info is not None:
            self.backend.session_closed(self.id)

    async def run(self, channel: trio.abc.Channel[bytes]) -> None:
        """Talk until one end ends it."""
        self.running.deadline = trio.current_time() + self.service._hello_timeout
        methods: Mapping[str, Method[Any]] = {
            "hello": Method(Hello, self.hello),
            "get_providers": Method(GetProviders, self.get_providers),
            "watch_providers": Method(WatchProviders, self.watch_providers),
            "authorize": Method(Authorize, self.authorize),
            "acknowledge": Method(Acknowledge, self.acknowledge),
        }
        limit = self.service._max_message_bytes
        async with open_rpc(channel, methods=methods, max_frame_bytes=limit) as rpc:
            self.rpc = rpc
            async with open_service_nursery() as nursery:
                nursery.start_soon(self.tell, rpc)
                with self.running:
                    await rpc.wait_lost()
                nursery.cancel_scope.cancel()
            if self.running.cancelled_caught:
                goodbye = self.goodbye or _NO_HELLO
                _log.info("session ended: %s", goodbye.reason, extra={"session": self.id})
                with trio.move_on_after(self.service._goodbye_timeout):
                    await rpc.say_goodbye(goodbye.code, goodbye.reason)
                # Who does not take it gets no more time, however patient the channel is.
                await trio.aclose_forcefully(channel)

    async def tell(self, rpc: RpcPeer) -> None:
        """Send notices of what has changed, until cancelled or the connection is lost."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await self.marked.wait()
                self.marked = trio.Event()
                await self.tell_once(rpc)

    async def tell_once(self, rpc: RpcPeer) -> None:
        revisions = self.backend.revisions
        if self.watching is None or self.goodbye or revisions == self.told:
            return
        notice: Changed | Encoded = Changed(revisions)
        if self.wants_providers():
            try:
                reading = await self.service._reading.get()
                notice, revisions = reading.notice, reading.revisions
            except ReadingFailedError:
                pass  # it asks, and is told then
            if self.goodbye:
                return
        self.told = revisions
        await rpc.notify("changed", notice)

    # -- what the gateway calls

    async def hello(self, hello: Hello) -> Welcome:
        """Begin the session."""
        await trio.lowlevel.checkpoint()
        if self.info is not None:
            raise RemoteError("hello_twice", "this session has begun already")
        self.info = SessionInfo(
            id=self.id,
            identity=self.admitted.identity,
            gateway=hello.gateway,
            instance=hello.instance,
            software=hello.software,
            protocol=str(self.admitted.protocol),
        )
        self.running.deadline = inf
        self.backend.session_opened(self.info)
        return Welcome(
            session=self.id,
            software=_SOFTWARE,
            protocol=str(PROTOCOL),
            revisions=self.backend.revisions,
        )

    async def get_providers(self, asked: GetProviders) -> ProviderSet | Encoded:
        """Answer with all providers, or that they are those that the gateway knows."""
        self._after_hello()
        try:
            reading = await self.service._reading.get()
        except ReadingFailedError as error:
            raise _unavailable(str(error)) from None
        self._refuse_if_ended()  # its key may have been revoked meanwhile
        if asked.known == reading.revisions.providers:
            return ProviderSet(reading.revisions, None)
        return reading.answer

    async def watch_providers(self, asked: WatchProviders) -> Revisions:
        """Send notices from now on."""
        self._after_hello()
        await trio.lowlevel.checkpoint()
        self.watching, self.told = asked, self.backend.revisions
        return self.told

    async def authorize(self, asked: Authorize) -> Authorization:
        """Answer whose key it is."""
        self._after_hello()
        # From before the look: so the answer is never said to be newer than it is.
        revisions = self.backend.revisions
        try:
            async with self.service._asking:
                caller = await self.backend.authorize(asked.token)
        except Exception as error:  # the backend's: this call is answered, and the session goes on
            _log.error("a client's key could not be looked up: %s", type(error).__name__)
            raise _unavailable("keys cannot be looked up now; ask again later") from None
        if caller is None:
            return Authorization(revisions=revisions)
        return Authorization(client_id=caller.client_id, key_id=caller.key_id, revisions=revisions)

    async def acknowledge(self, receipt: Acknowledge) -> Acknowledged:
        """Take a receipt."""
        await trio.lowlevel.checkpoint()
        self._after_hello()
        revision = self.backend.revisions.revision
        if receipt.revision > revision:
            facts = {
                "session": self.id,
                "gateway": self.admitted.identity.name,
                "gateway_revision": receipt.revision,
                "store_revision": revision,
            }
            _log.warning("gateway is ahead of the store", extra=facts)
        self.backend.acknowledged(self.id, receipt)
        return Acknowledged()

    def _after_hello(self) -> None:
        if self.info is None:
            raise RemoteError("hello_first", "the first call of a session is hello")
        self._refuse_if_ended()

    def _refuse_if_ended(self) -> None:
        if self.goodbye is not None:
            raise RemoteError(self.goodbye.code, self.goodbye.reason)


def _unavailable(message: str) -> RemoteError:
    return RemoteError("unavailable", message)


@asynccontextmanager
async def open_provider_service(
    backend: ProviderBackend,
    *,
    hello_timeout: float = 10.0,
    goodbye_timeout: float = 0.5,
    max_message_bytes: int = MAX_FRAME_BYTES,
) -> AsyncIterator[ProviderService]:
    """Open a service of one backend, for channels of your own; else use `serve_providers`.

    Args:
        backend: The owner of the providers.
        hello_timeout: Seconds after which a session without a hello is ended.
        goodbye_timeout: Seconds that a gateway has to take the reason why its session is ended.
        max_message_bytes: The largest message that the channels take.

    Resource handling:
        Leaving the block ends all sessions with a goodbye, and waits for nobody: the tasks that
        run `ProviderService.serve` are the caller's.
    """
    with backend.subscribe() as changes:
        service = ProviderService(backend, hello_timeout, goodbye_timeout, max_message_bytes)
        async with open_service_nursery() as nursery:
            nursery.start_soon(service._follow, changes)
            try:
                yield service
            finally:
                for session in tuple(service._sessions):
                    session.end(_SHUTTING_DOWN)
                nursery.cancel_scope.cancel()


async def serve_providers(  # noqa: ASYNC114, ASYNC128 -- serve_websockets calls started()
    backend: ProviderBackend,
    listeners: Sequence[Listener],
    *,
    limits: WebSocketLimits = _DEFAULT_LIMITS,
    task_status: trio.TaskStatus[Sequence[Listener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve gateways over websockets, until cancelled.

    ::

        listeners = await nursery.start(serve_providers, backend, await trio.open_tcp_listeners(0))

    A gateway's key and version are checked in the handshake. Its session lives until one end
    closes it, the connection is lost, or its key is revoked: then it is ended within a second,
    and both ends know why.

    Args:
        backend: The owner of the providers, such as a `MemoryBackend`.
        listeners: Where gateways connect; closed in the end.
        limits: Of the connections; give both ends the same.
        task_status: For `nursery.start`.
    """
    from bridgepool.transports.websocket import serve_websockets  # needs the extra

    async with open_provider_service(
        backend, max_message_bytes=limits.max_message_bytes
    ) as service:
        await serve_websockets(
            service.serve, listeners, admit=service.admit, limits=limits, task_status=task_status
        )
