"""The follower's end: providers of an owner, followed live, whatever the connection does.

Theory of operation. One task, owned by the block, keeps a session:

    connect ─▶ hello, services, watch ─▶ give a notice ─▶ serve until it is lost ─┐
       ▲                                                                            │
       └── a random wait, doubled each time; only a session that lasted ────────────┘
           `steady_after` seconds makes the waits short again

A reload uses the session that there is, or fails at once when there is none; the notice of the
next session makes a watcher reload. What was received outlives a session: the last good forms of
the rows, the latest receipt (sent again in each session).

What a session knows of the rows ends with it: the first reload of each session gets all of them.
So an owner whose source was replaced meanwhile, and came to the same revision by other changes,
cannot be mistaken for the one before.
"""

import logging
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Final, Generic, TypeVar

import attrs
import trio

from bridgepool._backoff import Backoff, shorten
from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._errors import ReloadError, innermost
from bridgepool._services import open_background_nursery, open_service_nursery
from bridgepool._snapshot import ProviderSnapshot
from bridgepool._version import __version__
from bridgepool.remote._connector import Connect
from bridgepool.remote._errors import (
    InvalidMessageError,
    RemoteError,
    UnsendableError,
)
from bridgepool.remote._follower_session import (
    LEAVE_TIMEOUT,
    FollowerSession,
    open_follower_session,
)
from bridgepool.remote._messages import Acknowledge, Hello, RejectedRow, RowSet
from bridgepool.remote._rows import RowFormat, RowTable, require_row_format
from bridgepool.remote._session import Service, wanted
from bridgepool.remote._status import RemoteLimits, RemoteStatus, refusal
from bridgepool.transports._errors import ConnectError, HandshakeRefusedError
from bridgepool.transports._handshake import Refused

P = TypeVar("P")

_log = logging.getLogger("bridgepool.remote")
_DEFAULT_LIMITS: Final = RemoteLimits()
# How a session ends, or does not come about, when nothing is wrong with this program.
_EXPECTED_ERRORS: Final = (
    ConnectError,
    RemoteError,
    InvalidMessageError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
)
_SOFTWARE: Final = f"bridgepool/{__version__}"


@attrs.define(eq=False)
class RemoteProviders(Generic[P]):
    """The providers of an owner; a `ProviderReloader`. See `open_remote_providers`."""

    changes: ChangeSubscription
    """Notices for `watch_providers`: at each change, and at the beginning of each session."""
    status: RemoteStatus
    """The state of the connection."""
    _hello: Hello
    _limits: RemoteLimits
    _bus: ChangeBus
    _services: tuple[Service, ...]
    _table: RowTable[bytes, P]
    _seen: ProviderSnapshot[P] | None  # the latest; of `_table`, once there was a reload
    _owner: str  # what log lines and errors call it
    _session: FollowerSession | None = attrs.field(default=None, init=False)
    _receipt: Acknowledge | None = attrs.field(default=None, init=False)
    # the task that sends receipts waits in it, until its deadline, which is when to send the next
    _receipt_due: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _tried: trio.Event = attrs.field(factory=trio.Event, init=False)  # to connect, once at least
    _refused_first: trio.Event = attrs.field(factory=trio.Event, init=False)
    _hurried: trio.Event = attrs.field(factory=trio.Event, init=False)  # by `reconnect`
    _began: float = attrs.field(default=-inf, init=False)  # the present session, or the last one
    _first_refusal: Refused | None = attrs.field(default=None, init=False)
    # Shielded, so that a session ends with its services and a goodbye also when everything is
    # cancelled at once. `_leave` ends it.
    _keeping: trio.CancelScope = attrs.field(
        factory=lambda: trio.CancelScope(shield=True), init=False
    )
    _serving: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)  # the session
    _leaving: bool = attrs.field(default=False, init=False)
    # the last problem in the log, and how many sessions there had been
    _logged: tuple[str, int] = attrs.field(default=("", 0), init=False)

    async def reload(self) -> ProviderSnapshot[P]:
        """Return the providers as the owner has them.

        What it sent along with its last notice is returned without asking, once; so a reload
        is at least as new as the last notice that was received. A checkpoint. It waits for the
        end of the first attempt to connect, whether or not it succeeds.

        Its revision is that of the owner's source. It may be lower than before, when another owner
        answers that is behind: a pool refuses it, and `watch_providers` asks again later. With
        another epoch the owner's source went back, and the revision does not compare.

        Raises:
            ReloadError: There is no session, or it was lost meanwhile, or the owner has no answer
                now; says which.

        Cancellation:
            Changes nothing, and cancels the call at the owner.
        """
        await trio.lowlevel.checkpoint()
        await self._tried.wait()
        session = self._session
        if session is None:
            raise ReloadError(f"the {self._owner} cannot be asked: {self.status}")
        fresh = session.take_sent() or await session.get_rows()
        table, revision = self._table, fresh.revision
        if fresh.rows is not None:
            table = await table.updated_in_turns(
                (row.id, row.name or row.id, bytes(row.body)) for row in fresh.rows
            )
            session.known = fresh.set
        snapshot = ProviderSnapshot(
            table.providers, revision, fresh.epoch, allow_empty=fresh.allow_empty
        )
        if self._seen is None or not snapshot.older_than(self._seen):
            if table.rejected and table.rejected != self._table.rejected:
                first, count = table.rejected[0], len(table.rejected)
                _log.warning("rows rejected: %d; that of %r: %s", count, first.name, first.reason)
            self._table, self._seen = table, snapshot
        return snapshot

    @property
    def rejected(self) -> tuple[RejectedRow, ...]:
        """The rows of the last reload that could not be used, and why.

        The provider that was last made from such a row stays in its place.
        """
        return self._table.rejected

    def acknowledge(
        self, revision: int, rejected: Sequence[RejectedRow] = (), *, epoch: str | None = None
    ) -> None:
        """Send the owner a receipt: this revision is in force. Not async, never fails.

        The latest receipt is what counts: it is sent as soon as there is a session, and again
        in each new one.

        Args:
            revision: What is in force.
            rejected: The providers of it that are not in force as the owner has them.
            epoch: Of the revision: that of its snapshot.
        """
        self._receipt = Acknowledge(revision, tuple(rejected), epoch)
        if self._receipt_due.deadline == inf:
            delay = shorten(self._limits.receipt_delay, 0.5)
            self._receipt_due.deadline = trio.current_time() + delay

    def reconnect(self) -> None:
        """End the wait for the next attempt to connect, if there is one. Not async, never fails.

        For a program that ends soon and has something to send; the next waits begin short again.
        """
        if not self.status.connected:
            self._hurried.set()

    async def wait_refused(self) -> Refused:
        """Wait until this follower is refused before it ever had a session.

        For a program that ends then, with the reason. Once there has been a session, a refusal
        is an outage like any other: what is in force stays, and a later attempt may succeed. A
        checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while self._first_refusal is None:
            await self._refused_first.wait()
        return self._first_refusal

    async def _run(self, connect: Connect) -> None:
        """Connect whenever no session is open, until `_leave` (runs as a task)."""
        with self._keeping:
            await self._keep(connect)

    def _leave(self) -> None:
        """End the session, or the tries to get one."""
        self._leaving = True
        if self._session is None:
            self._keeping.cancel()
        else:
            self._keeping.deadline = trio.current_time() + LEAVE_TIMEOUT
            self._serving.cancel()

    async def _keep(self, connect: Connect) -> None:
        limits, status = self._limits, self.status
        backoff = Backoff(limits.first_delay, limits.max_delay)
        while True:
            status.attempts += 1
            sessions = status.sessions
            try:
                await self._have_session(connect)
            except Exception as error:  # a `connect` that is not ours must not end this task
                self._note_failure(error)
            self._tried.set()
            if self._leaving:
                return
            if status.sessions > sessions and status.since - self._began >= limits.steady_after:
                backoff.reset()
            if status.refused is not None:
                delay = shorten(limits.refused_delay, 0.5)
            else:
                delay = backoff.next_delay()
            with trio.move_on_after(delay):
                await self._hurried.wait()
                self._hurried = trio.Event()
                backoff.reset()

    async def _have_session(self, connect: Connect) -> None:
        """Connect, and serve until this follower leaves, or the session is lost; then raise why."""
        timeout = self._limits.connect_timeout
        with trio.CancelScope(deadline=trio.current_time() + timeout) as scope:
            async with (
                connect() as channel,
                open_follower_session(
                    channel, self._introduce(), self._services, self._note_changed, self._owner
                ) as session,
            ):
                scope.deadline = inf
                self._note_begin(session)
                try:
                    await self._serve(session)
                finally:
                    self._note_end()
        if scope.cancelled_caught:
            self._note_problem(f"no session within {timeout:g} s")

    def _introduce(self) -> Hello:
        seen = self._seen
        if seen is None:
            return self._hello
        return attrs.evolve(self._hello, revision=seen.revision, epoch=seen.epoch)

    async def _serve(self, session: FollowerSession) -> None:
        """Send receipts until this follower leaves, or the session is lost; then raise why."""
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._send_receipts, session)
            # No checkpoint since `_session` was set: `_leave` cancels this scope, no older one.
            with trio.CancelScope() as self._serving:
                raise await session.rpc.wait_lost()

    async def _send_receipts(self, session: FollowerSession) -> None:
        sent = None
        while True:
            if (receipt := self._receipt) is None or receipt == sent:
                with trio.CancelScope() as self._receipt_due:
                    await trio.sleep_forever()
                continue
            sent = receipt
            try:
                await session.acknowledge(receipt)
            except UnsendableError as error:
                _log.warning("receipt not sent: %s", error)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the loss is reported where it is waited for

    def _note_begin(self, session: FollowerSession) -> None:
        self._session, self._began = session, trio.current_time()
        self._tried.set()
        welcome = session.welcome
        self.status._note_session(welcome.session, welcome.software, welcome.protocol)
        self.status.revision = session.revision
        facts = {"session": welcome.session, "software": welcome.software}
        _log.info("connected to the %s", self._owner, extra=facts)
        self._bus.publish()

    def _note_changed(self, changed: RowSet) -> None:
        self.status.revision = changed.revision
        self._bus.publish()

    def _note_end(self) -> None:
        self._session = None
        self.status._note_end()

    def _note_failure(self, raised: Exception) -> None:
        error = innermost(raised)  # a nursery in `connect` puts a group around it
        if isinstance(error, HandshakeRefusedError):
            self._note_refused(error)
        elif isinstance(error, _EXPECTED_ERRORS):
            self._note_problem(str(error) or type(error).__name__)
        else:
            _log.error(
                "connection to the %s failed by an unexpected exception",
                self._owner,
                exc_info=raised,
            )
            self._note_problem(f"unexpected {type(error).__name__}; its traceback is in the log")

    def _note_refused(self, error: HandshakeRefusedError) -> None:
        refused = refusal(error)
        if refused is None:
            self._note_problem(str(error))
            return
        if refused != self.status.refused:
            _log.error("refused by the %s: %s", self._owner, refused.reason)
        self.status._note_error(f"refused ({refused.code}): {refused.reason}", refused)
        if not self.status.ever_connected and self._first_refusal is None:
            self._first_refusal = refused
            self._refused_first.set()

    def _note_problem(self, problem: str) -> None:
        # The same problem is logged once in an outage, not at each try.
        logged, self._logged = self._logged, (problem, self.status.sessions)
        is_new = logged != self._logged
        _log.log(
            logging.WARNING if is_new else logging.DEBUG,
            "connection to the %s failed: %s",
            self._owner,
            problem,
        )
        self.status._note_error(problem)


@asynccontextmanager
async def open_remote_providers(
    connect: Connect,
    rows: RowFormat[P],
    *,
    name: str,
    instance: str | None = None,
    services: Iterable[Service] = (),
    seen: ProviderSnapshot[P] | None = None,
    limits: RemoteLimits = _DEFAULT_LIMITS,
    owner_name: str = "owner",
) -> AsyncIterator[RemoteProviders[P]]:
    """Follow the providers of an owner, for as long as the block lasts.

    It returns at once: the first notice comes when there is a session, and a `reload` before it
    fails and says that there is none. ::

        connect = websocket_connector("wss://control.example.com", key)
        async with open_remote_providers(connect, RowFormat.of(Upstream), name="front") as remote:
            await nursery.start(watch_providers, pool, remote, remote.changes)

    Args:
        connect: Opens a connection; called again after each loss. What it raises is an outage,
            but for a `HandshakeRefusedError` that refuses.
        rows: How providers are read from rows.
        name: The name of this follower.
        instance: Identifies its process; random by default.
        services: What else is asked for on each session; without one of them there is none.
        seen: What the owner sent last, before this program was started; such as from a file. The
            owner receives its revision and epoch.
        limits: Durations of the connection and of its retries.
        owner_name: What log lines and errors call the owner, for operators of your application who
            know it by another name.

    Resource handling:
        Leaving the block ends the session within two seconds, whatever the network does, also when
        the block is cancelled. First the services are closed, which may still call the owner, for
        all but half a second of that; then the owner gets a goodbye. What the block raises comes
        out as it is.

    Raises:
        TypeError: `rows` is not a `RowFormat`, or `connect` is not callable.
    """
    require_row_format(rows, "open_remote_providers")
    if not callable(connect):
        raise TypeError("connect is not callable: pass what websocket_connector returns")
    services = tuple(services)
    hello = Hello(
        name=name,
        instance=instance or secrets.token_hex(8),
        software=_SOFTWARE,
        services=wanted(services),
    )
    table = RowTable[bytes, P](rows.read, rows.kept, rows.substituted)
    with ChangeBus() as bus, bus.subscribe() as changes:
        async with open_service_nursery() as nursery:
            remote = RemoteProviders(
                changes, RemoteStatus(), hello, limits, bus, services, table, seen, owner_name
            )
            nursery.start_soon(remote._run, connect)
            try:
                yield remote
            finally:
                remote._leave()
