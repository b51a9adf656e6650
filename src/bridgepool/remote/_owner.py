"""The owner's end: rows for any number of followers, and their receipts.

Theory of operation. The service follows its source as a pool does, with `watch_providers`: each
snapshot is encoded once, as the answer and the notice of all sessions, and each session is marked
(`RpcPeer.publish_later`). A session sends the latest when its connection takes it; so a follower
that is slow holds up nobody, nor the end of a session that is to end.

Three modules: `_owner_rows` has the rows in force, and knows no session. `_owner_session` is one
session: it reads those rows, and reports what becomes of it. This one has all sessions.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Generic, TypeVar

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._errors import ReloadError
from bridgepool._pool import Replacement
from bridgepool._refusal_log import RefusalLog
from bridgepool._reload import ProviderReloader, watch_providers
from bridgepool._services import open_background_nursery
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.remote import _codec as codec
from bridgepool.remote._errors import UnsendableError
from bridgepool.remote._messages import Acknowledge, Goodbye
from bridgepool.remote._owner_rows import CatchUp, OwnerRows
from bridgepool.remote._owner_session import (
    Admitted,
    OwnerOptions,
    OwnerSession,
    SessionEnd,
    SessionObserver,
)
from bridgepool.remote._rows import RowFormat, require_row_format
from bridgepool.remote._session import Identity, Service, SessionInfo
from bridgepool.remote._versions import check_version
from bridgepool.transports._handshake import Handshake, Refused, WebSocketLimits
from bridgepool.transports.memory import open_memory_channel_pair

P = TypeVar("P")

_log = logging.getLogger("bridgepool.remote")
_SHUTTING_DOWN: Final = Goodbye("shutting_down", "shutting down; connect again")
_UNAVAILABLE: Final = Refused(
    503, "unavailable", "keys cannot be looked up at the moment; try again later"
)
_NOTICES_AT_A_TIME: Final = 10
# Between two reloads of the source: the followers have spacings of their own.
_MIN_INTERVAL: Final = 0.001

Listener = trio.abc.Listener[trio.abc.Stream]
Admit = Callable[[Handshake], Awaitable[Identity | Refused]]
"""Admits or refuses a follower by its handshake: mostly by its ``bearer``."""


@attrs.define(eq=False)
class _SessionRecord:
    """The sessions that have begun, as they report it themselves: a `SessionObserver`."""

    _observer: SessionObserver | None  # that of the application
    sessions: dict[str, SessionInfo] = attrs.field(factory=dict, init=False)
    receipts: dict[str, Acknowledge] = attrs.field(factory=dict, init=False)
    changes: ChangeBus = attrs.field(factory=ChangeBus, init=False)

    def session_opened(self, session: SessionInfo) -> None:
        self.sessions[session.id] = session
        if self._observer is not None:
            self._observer.session_opened(session)
        self.changes.publish()

    def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
        self.receipts[session_id] = receipt
        if self._observer is not None:
            self._observer.acknowledged(session_id, receipt)
        self.changes.publish()

    def session_closed(self, session_id: str, end: SessionEnd) -> None:
        self.sessions.pop(session_id)
        self.receipts.pop(session_id, None)
        if self._observer is not None:
            self._observer.session_closed(session_id, end)
        self.changes.publish()


@attrs.define(eq=False)
class RemoteService(Generic[P]):
    """Serves followers from one source. See `open_remote_service`."""

    _rows: OwnerRows[P]
    _admit: Admit
    _is_live: Callable[[Identity], bool]
    _record: _SessionRecord
    _options: OwnerOptions
    _open: set[OwnerSession] = attrs.field(factory=set, init=False)  # also before their hello
    _refusals: dict[str, RefusalLog] = attrs.field(factory=dict, init=False)  # by their code

    @property
    def sessions(self) -> Mapping[str, SessionInfo]:
        """The sessions that have begun, by their ids."""
        return self._record.sessions

    @property
    def receipts(self) -> Mapping[str, Acknowledge]:
        """The latest receipt of each session that has sent one."""
        return self._record.receipts

    @property
    def revision(self) -> int | None:
        """The revision of what is sent now."""
        return self._rows.revision

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that `sessions` or `receipts` changed."""
        return self._record.changes.subscribe()

    async def admit(self, handshake: Handshake) -> Admitted | Refused:
        """Admit a follower, or return the reason why not; for `serve_websockets`.

        Refusals are logged, at most once a minute for each code.
        """
        outcome = await self._decide(handshake)
        if isinstance(outcome, Refused):
            log = self._refusals.setdefault(outcome.code, RefusalLog(_log))
            log.warning(
                trio.current_time(),
                "%s refused",
                self._options.follower,
                peer=handshake.peer,
                code=outcome.code,
                reason=outcome.reason,
            )
        return outcome

    async def _decide(self, handshake: Handshake) -> Admitted | Refused:
        owner, follower = self._options.owner, self._options.follower
        version = check_version(handshake.query.get("version"), owner=owner, follower=follower)
        if isinstance(version, Refused):
            return version
        try:
            identity = await self._admit(handshake)
        except Exception:  # the owner's: this handshake is answered, and the server goes on
            _log.exception("look-up of a %s's key failed", self._options.follower)
            return _UNAVAILABLE
        if isinstance(identity, Refused):
            return identity
        # A forgotten `return` must not let anybody in.
        if not isinstance(identity, Identity):
            kind = type(identity).__name__
            _log.error("admit must return an Identity or Refused, not a %s", kind)
            return _UNAVAILABLE
        return Admitted(identity, version, handshake.peer)

    async def serve(self, channel: trio.abc.Channel[bytes], admitted: Admitted) -> None:
        """Serve one follower until either end is gone; for `serve_websockets`.

        A transport of your own calls it, too, for followers that it has authenticated itself.
        """
        session = OwnerSession(self._rows, self._record, self._options, admitted)
        self._open.add(session)
        try:
            # Not before it is among the sessions, so that a revocation finds it here or there.
            self._end_if_revoked(session)
            await session.run(channel)
        finally:
            self._open.discard(session)

    async def serve_listeners(  # noqa: ASYNC114, ASYNC128 -- serve_websockets calls started()
        self,
        listeners: Sequence[Listener],
        *,
        limits: WebSocketLimits | None = None,
        task_status: trio.TaskStatus[Sequence[Listener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve followers over websockets, until cancelled.

        ::

            listeners = await trio.open_tcp_listeners(0)
            await nursery.start(service.serve_listeners, listeners)

        Version and key are checked in the handshake. A session lives until one end closes it, the
        connection is lost, or its key is revoked: then it is ended within a second, and both
        ends are given the reason.

        Args:
            listeners: Where followers connect; closed in the end.
            limits: Of the connections; give both ends the same.
            task_status: For `nursery.start`.
        """
        from bridgepool.transports.websocket import serve_websockets  # needs the extra

        limits = limits or WebSocketLimits(max_message_bytes=self._options.max_message_bytes)
        await serve_websockets(
            self.serve, listeners, admit=self.admit, limits=limits, task_status=task_status
        )

    @asynccontextmanager
    async def connect(self, identity: Identity) -> AsyncIterator[trio.abc.Channel[bytes]]:
        """Connect a follower in this process, over a channel in memory.

        ::

            connect = partial(service.connect, Identity("local"))
            async with open_remote_providers(connect, rows, name="local") as remote:
                ...

        Raises:
            TypeError: It is not an `Identity`.
        """
        if not isinstance(identity, Identity):
            raise TypeError(f"connect needs an Identity, not a {type(identity).__name__}")
        near, far = open_memory_channel_pair(max_message_bytes=self._options.max_message_bytes)
        async with near, open_background_nursery() as nursery:
            admitted = Admitted(identity, peer="memory")
            nursery.start_soon(self.serve, far, admitted)  # noqa: ASYNC113 -- the channel waits
            yield near

    def replace_providers(self, snapshot: ProviderSnapshot[P]) -> Replacement:
        """Put a snapshot in force: mark all sessions to be sent it. Not async.

        Raises:
            ReloadError: A provider cannot be sent.
        """
        try:
            replacement = self._rows.replace(snapshot)
        except UnsendableError as error:
            raise ReloadError(str(error)) from error
        for session in tuple(self._open):
            self._end_if_revoked(session)
        return replacement

    def _end_if_revoked(self, session: OwnerSession) -> None:
        if not self._is_live(session.admitted.identity):
            session.revoke()

    async def _notify_sessions(self, replaced: ChangeSubscription) -> None:
        """Mark all sessions to be sent a notice after each replacement, until cancelled."""
        async for _ in replaced:
            for number, session in enumerate(tuple(self._open), 1):
                session.publish_changed()
                if not number % _NOTICES_AT_A_TIME:  # the first need not wait for the last
                    await trio.lowlevel.checkpoint()


def _always(identity: Identity) -> bool:
    return True


@asynccontextmanager
async def open_remote_service(
    rows: RowFormat[P],
    source: ProviderReloader[P],
    changes: trio.abc.ReceiveChannel[object],
    *,
    admit: Admit,
    is_live: Callable[[Identity], bool] = _always,
    catch_up: CatchUp | None = None,
    services: Iterable[Service] = (),
    observer: SessionObserver | None = None,
    hello_timeout: float = 10.0,
    goodbye_timeout: float = 0.5,
    max_message_bytes: int = codec.MAX_FRAME_BYTES,
    owner_name: str = "owner",
    follower_name: str = "follower",
) -> AsyncIterator[RemoteService[P]]:
    """Open a service that sends the providers of a source to followers, and their changes.

    ::

        source = MemoryReloader(ProviderSnapshot([...]))
        async with open_remote_service(
            RowFormat.of(Upstream), source, source.subscribe(), admit=admit
        ) as service:
            await nursery.start(service.serve_listeners, await trio.open_tcp_listeners(0))

    Args:
        rows: How providers are sent.
        source: Where they come from: a `MemoryReloader`, say.
        changes: Notices that the source changed. It is not closed.
        admit: Admits or refuses a follower. When it raises, or returns anything else, the
            follower is asked to retry later, and this is logged as an error.
        is_live: Returns whether the key of a session is still valid. Called when a session begins
            and after each reload; a session for which it returns False is ended. Must be fast.
        catch_up: Called when a follower that begins a session has seen a later revision than that
            which is sent here, or one of another epoch. The follower is welcomed when what it
            returns is sent; if it raises, the follower is asked to retry later.
        services: What else is offered on each session.
        observer: Is notified of sessions and receipts.
        hello_timeout: Seconds after which a session without a hello is ended.
        goodbye_timeout: Seconds that a follower has to take the reason why its session is ended.
        max_message_bytes: The largest message that the channels take.
        owner_name: What log lines and refusals call this end, for operators of your application
            who know it by another name.
        follower_name: The same for a follower.

    Resource handling:
        Leaving the block ends all sessions with a goodbye, and waits for none of them: the tasks
        that run `RemoteService.serve` are the caller's.

    Raises:
        TypeError: `rows` is not a `RowFormat`.
    """
    require_row_format(rows, "open_remote_service")
    options = OwnerOptions(
        services={each.name: each for each in services},
        hello_timeout=hello_timeout,
        goodbye_timeout=goodbye_timeout,
        max_message_bytes=max_message_bytes,
        owner=owner_name,
        follower=follower_name,
    )
    current = OwnerRows(rows, catch_up, max_message_bytes, follower_name)
    service = RemoteService(current, admit, is_live, _SessionRecord(observer), options)
    async with open_background_nursery() as nursery:
        nursery.start_soon(service._notify_sessions, current.subscribe())
        nursery.start_soon(
            partial(watch_providers, service, source, changes, min_interval=_MIN_INTERVAL)
        )
        try:
            yield service
        finally:
            for session in tuple(service._open):
                session.end(_SHUTTING_DOWN)
