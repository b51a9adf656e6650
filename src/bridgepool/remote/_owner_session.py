"""One session, as the owner has it: what the follower calls, and the notices that it is sent."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from math import inf
from typing import Any, Final, Literal, Protocol, TypeAlias

import attrs
import trio

from bridgepool._services import open_service_nursery
from bridgepool._version import __version__
from bridgepool.remote import _codec as codec
from bridgepool.remote._errors import FOLLOWER_ENDED, ConnectionLostError, RemoteError
from bridgepool.remote._messages import (
    Acknowledge,
    GetRows,
    Goodbye,
    Hello,
    RowSet,
    Watch,
    Welcome,
)
from bridgepool.remote._owner_rows import EncodedRows, OwnerRows
from bridgepool.remote._rpc import Method, NoticeHandler, RpcPeer, open_rpc
from bridgepool.remote._session import Identity, Seen, Service, ServiceSession, SessionInfo, choose
from bridgepool.remote._versions import PROTOCOL, ProtocolVersion

_log = logging.getLogger("bridgepool.remote")
_SOFTWARE: Final = f"bridgepool/{__version__}"
_KEY_REVOKED: Final = Goodbye("key_revoked", "this key was revoked; have a new one made")
_NO_HELLO: Final = Goodbye("hello_timeout", "no hello came in time")


@attrs.frozen
class Admitted:
    """A follower that may begin a session."""

    identity: Identity
    protocol: ProtocolVersion = PROTOCOL
    """The version that it speaks."""
    peer: str = ""
    """Its address, for logs."""


SessionEnd: TypeAlias = Literal["left", "lost", "revoked"]
"""How a session ended. ``left``: the follower reported that it has ended. ``lost``: the connection
was lost, or a third party closed it, or the owner ended it, so the follower is expected back.
``revoked``: its key was revoked."""


class SessionObserver(Protocol):
    """Is notified of sessions and their receipts; implement it yourself. Must be fast."""

    def session_opened(self, session: SessionInfo) -> None:
        """Note that a follower has begun a session."""
        ...

    def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
        """Note the receipt of a revision; the latest of a session is what holds."""
        ...

    def session_closed(self, session_id: str, end: SessionEnd) -> None:
        """Note that a session has ended, and how."""
        ...


@attrs.frozen(kw_only=True)
class OwnerOptions:
    """What all sessions of an owner have in common."""

    services: Mapping[str, Service]
    """What is offered on each session, by name."""
    hello_timeout: float
    goodbye_timeout: float
    max_message_bytes: int
    owner: str
    """What log lines and refusals call this end."""
    follower: str
    """The same for the other end."""


@attrs.define(eq=False)
class OwnerSession:
    """One session; made when the follower was admitted.

    It reads the rows in force, and reports what becomes of it to its observer. It knows no other
    session, nor who has it.
    """

    _rows: OwnerRows[Any]
    _observer: SessionObserver
    _options: OwnerOptions
    admitted: Admitted
    id: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    rpc: RpcPeer | None = attrs.field(default=None, init=False)
    nursery: trio.Nursery | None = attrs.field(default=None, init=False)
    info: SessionInfo | None = attrs.field(default=None, init=False)  # since the hello
    watch: Watch | None = attrs.field(default=None, init=False)
    sent: RowSet | None = attrs.field(default=None, init=False)  # in the last notice; no rows
    running: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    was_ahead: bool = attrs.field(default=False, init=False)  # the follower, at some time
    goodbye: Goodbye | None = attrs.field(default=None, init=False)  # why it is ended from here
    loss: ConnectionLostError | None = attrs.field(default=None, init=False)

    def publish_changed(self) -> None:
        """Send what is in force, if it is new to the follower."""
        if self.rpc is not None and self.watch is not None and self.goodbye is None:
            # What is in force now, not when it is sent: services may be told of the next one first.
            self.rpc.publish_later("changed", partial(self.changed, self._rows.current))

    def changed(self, current: EncodedRows | None) -> bytes | None:
        """Make the frame of a notice, if there is something new to be sent."""
        if current is None or self.watch is None or self.goodbye is not None:
            return None
        sent, self.sent = self.sent, current.without_rows
        if sent == self.sent:
            return None
        is_other = sent is None or sent.set != self.sent.set
        if self.watch.send and is_other and current.problem is None:
            return codec.encode_notice("changed", current.whole)
        return codec.encode_notice("changed", current.without_rows)  # it asks for the rows

    def end(self, goodbye: Goodbye) -> None:
        """End the session from this side."""
        self.goodbye = self.goodbye or goodbye
        self.running.cancel()

    def revoke(self) -> None:
        """End the session, since its key was revoked."""
        self.end(_KEY_REVOKED)

    def _end(self) -> SessionEnd:
        if self.goodbye is _KEY_REVOKED:
            return "revoked"
        loss = self.loss
        # A close alone tells nothing: a proxy in between may make one.
        is_said = loss is not None and loss.by_peer and loss.code == FOLLOWER_ENDED
        return "left" if is_said else "lost"

    async def run(self, channel: trio.abc.Channel[bytes]) -> None:
        """Talk until one end ends it."""
        try:
            await self._talk(channel)
        finally:
            if self.info is not None:
                self._observer.session_closed(self.id, self._end())

    async def _talk(self, channel: trio.abc.Channel[bytes]) -> None:
        self.running.deadline = trio.current_time() + self._options.hello_timeout
        methods: dict[str, Method[Any]] = {
            "hello": Method(Hello, self.hello),
            "get_rows": Method(GetRows, self.get_rows),
            "watch": Method(Watch, self.start_watch),
        }
        limit = self._options.max_message_bytes
        notices = {"acknowledge": NoticeHandler(Acknowledge, self.acknowledge)}
        async with open_rpc(
            channel, methods=methods, notices=notices, max_frame_bytes=limit
        ) as rpc:
            self.rpc = rpc
            async with open_service_nursery() as self.nursery:
                with self.running:
                    self.loss = await rpc.wait_lost()
                self.nursery.cancel_scope.cancel()
            if self.running.cancelled_caught:
                goodbye = self.goodbye or _NO_HELLO
                _log.info("session ended: %s", goodbye.reason, extra={"session": self.id})
                with trio.move_on_after(self._options.goodbye_timeout):
                    await rpc.send_goodbye(goodbye.code, goodbye.reason)
                # A follower that does not take it gets no more time, however long the channel's.
                await trio.aclose_forcefully(channel)

    async def _hold(  # noqa: ASYNC114 -- the linter has no list of ours
        self, services: Iterable[Service], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Have services open until cancelled."""
        if self.rpc is None:
            raise AssertionError("there was no hello")
        async with AsyncExitStack() as stack:
            for service in services:
                session = ServiceSession(self.id, self.info, service.name, self.rpc)
                await stack.enter_async_context(service.open(session))
            task_status.started()
            await trio.sleep_forever()

    # -- what the follower calls

    async def hello(self, hello: Hello) -> Welcome:
        """Begin the session."""
        await trio.lowlevel.checkpoint()
        if self.info is not None:
            raise RemoteError("hello_twice", "this session has begun already")
        services = choose(self._options.services, hello.services)
        await self._rows.wait_caught_up(Seen(hello.revision, hello.epoch))
        self._refuse_if_ended()
        if self.info is not None:
            raise RemoteError("hello_twice", "this session has begun already")
        self.info = SessionInfo(
            id=self.id,
            identity=self.admitted.identity,
            name=hello.name,
            instance=hello.instance,
            software=hello.software,
            protocol=str(self.admitted.protocol),
        )
        self.running.deadline = inf
        current = self._rows.current
        if current is not None and hello.epoch == current.snapshot.epoch:
            self._warn_if_ahead(hello.revision)
        self._observer.session_opened(self.info)
        if services and self.nursery is not None:
            await self.nursery.start(self._hold, services)
        return Welcome(
            session=self.id,
            software=_SOFTWARE,
            protocol=str(PROTOCOL),
            services={service.name: str(service.version) for service in services},
        )

    async def get_rows(self, asked: GetRows) -> RowSet | codec.Encoded:
        """Answer with all rows, or that they are those that the follower knows."""
        self._after_hello()
        current = await self._rows.wait_first()
        self._refuse_if_ended()  # its key may have been revoked meanwhile
        if current.problem is not None:
            raise RemoteError("unavailable", current.problem)
        return current.without_rows if asked.known == current.without_rows.set else current.whole

    async def start_watch(self, asked: Watch) -> RowSet:
        """Send notices from now on."""
        self._after_hello()
        await trio.lowlevel.checkpoint()
        current = self._rows.current
        self.watch = asked
        self.sent = RowSet(None, 0) if current is None else current.without_rows
        return self.sent

    def acknowledge(self, receipt: Acknowledge) -> None:
        """Take a receipt."""
        if self.info is None or self.goodbye is not None:
            return
        current = self._rows.current
        if current is not None and receipt.epoch in (None, current.snapshot.epoch):
            self._warn_if_ahead(receipt.revision)
        self._observer.acknowledged(self.id, receipt)

    def _warn_if_ahead(self, reported: int | None) -> None:
        """Log, once, that the follower keeps what it has: it has a later revision than is sent."""
        revision = self._rows.revision
        if reported is None or revision is None or reported <= revision or self.was_ahead:
            return
        self.was_ahead = True
        facts = {
            "session": self.id,
            "reported_by": self.admitted.identity.name,
            "reported_revision": reported,
            "own_revision": revision,
        }
        _log.warning("%s is ahead", self._options.follower, extra=facts)

    def _after_hello(self) -> None:
        if self.info is None:
            raise RemoteError("hello_first", "the first call of a session is hello")
        self._refuse_if_ended()

    def _refuse_if_ended(self) -> None:
        if self.goodbye is not None:
            raise RemoteError(self.goodbye.code, self.goodbye.reason)
