"""The gateway's end: providers from a control plane, followed live, whatever the connection does.

Theory of operation. One task, owned by the block, keeps a session:

    connect ─▶ hello ─▶ watch ─▶ give a notice ─▶ serve until it is lost ─┐
       ▲                                                                  │
       └── a random wait, doubled each time; only a session that lasted ──┘
           `steady_after` seconds makes the waits short again

Whoever reloads uses the session that there is, or is told at once that there is none; the notice
of the next one makes a watcher reload. Nothing that was heard is lost with a session: the last
good forms of the rows, the answers about clients, the latest receipt (sent anew in each session).

What a session remembers of the providers ends with it: the first reload of each session gets all
of them. So a control plane whose store was replaced meanwhile, and came to the same revision by
other changes, cannot be mistaken for the one before.
"""

import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from math import inf
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import attrs
import trio

from bridgepool._backoff import Backoff, shorten
from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._errors import ReloadError
from bridgepool._secret import Secret
from bridgepool._services import open_service_nursery
from bridgepool._singleflight import open_singleflight
from bridgepool._snapshot import ProviderSnapshot
from bridgepool._version import __version__
from bridgepool.gateway.providers import Caller, Provider
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote._authorization import AuthorizationCache, KnownClient
from bridgepool.remote._errors import InvalidMessageError, RemoteError, UnsendableError
from bridgepool.remote._messages import (
    Acknowledge,
    Authorization,
    Changed,
    Hello,
    Rejection,
)
from bridgepool.remote._rows import ProviderTable, TableBuilder
from bridgepool.remote._session import ClientSession, open_client_session
from bridgepool.remote._status import Refusal, RemoteLimits, RemoteStatus
from bridgepool.remote._versions import PROTOCOL
from bridgepool.transports._errors import ConnectError, HandshakeRefusedError
from bridgepool.transports._handshake import WebSocketLimits

Connect = Callable[[], AbstractAsyncContextManager[trio.abc.Channel[bytes]]]
"""Opens a connection to the control plane, such as what `websocket_connector` returns."""

_log = logging.getLogger("bridgepool.remote")
_AT_ONCE: Final = 50  # rows that are checked without a pause; some 10 µs each
_DEFAULT_LIMITS: Final = RemoteLimits()
# How a session ends, or does not come about, when nothing is wrong with this program.
_TROUBLE: Final = (
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
class RemoteProviders:
    """The providers of a control plane; a `ProviderReloader`. See `open_remote_providers`."""

    changes: ChangeSubscription
    """Notices for `watch_providers`: at each change, and at the beginning of each session."""
    status: RemoteStatus
    """How the connection is."""
    _hello: Hello
    _limits: RemoteLimits
    _bus: ChangeBus
    _authorizations: AuthorizationCache = attrs.field(init=False)
    _session: ClientSession | None = attrs.field(default=None, init=False)
    _table: ProviderTable = attrs.field(factory=ProviderTable, init=False)
    _revision: int | None = attrs.field(default=None, init=False)  # of `_table`
    _receipt: Acknowledge | None = attrs.field(default=None, init=False)
    # in it whoever sends receipts waits for one; until its deadline, which is when to send it
    _receipt_due: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _refused_first: trio.Event = attrs.field(factory=trio.Event, init=False)
    _began: float = attrs.field(default=-inf, init=False)  # the present session, or the last one
    _first_refusal: Refusal | None = attrs.field(default=None, init=False)
    _told: tuple[str, int] = attrs.field(default=("", 0), init=False)  # in the log, of trouble

    async def reload(self) -> ProviderSnapshot[Provider]:
        """Return the providers as the control plane has them.

        What it sent along with its last notice is returned without asking, once; so a reload
        is at least as new as the last notice that was received. That is no checkpoint, unless
        many rows are new.

        Its revision is the control plane's, also when only clients or gateway keys changed. It
        may be lower than before, when another control plane answers that is behind: a pool
        refuses it, and `watch_providers` asks again later.

        Raises:
            ReloadError: There is no session, or it was lost meanwhile, or the control plane
                has no answer now; says which.

        Cancellation:
            Changes nothing, and tells the control plane that nobody waits for the answer.
        """
        session = self._session
        if session is None:
            problem = f"the control plane cannot be asked: {self.status}"
            await trio.lowlevel.checkpoint()
            raise ReloadError(problem)
        fresh = session.take_sent()
        if fresh is None:
            fresh = await session.get_providers()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        revision = fresh.revisions.revision
        table = self._table
        if fresh.rows is not None:
            table = await _updated(table, fresh.rows)
            session.known = fresh.revisions.providers
        if self._revision is None or revision >= self._revision:
            self._table, self._revision = table, revision
        return ProviderSnapshot(table.providers, revision)

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """The rows of the last reload that could not be used, and why.

        The provider that was last made from such a row stays in its place.
        """
        return self._table.rejected

    @property
    def has_clients(self) -> bool:
        """True: the control plane knows the clients, and an empty list lets nobody in."""
        return True

    async def authorize(self, token: bytes) -> Caller | None:
        """Return whose key this is; None when it is nobody's.

        Not a checkpoint when a fresh answer is at hand. See `AuthorizationLimits`.

        Args:
            token: The key as the client sent it; any bytes.

        Raises:
            AuthorizationUnavailableError: It is not known here, and cannot be asked now.
        """
        return await self._authorizations.authorize(token)

    def known_clients(self) -> tuple[KnownClient, ...]:
        """Return the clients' keys that are remembered, by hash, to be kept over a restart."""
        return self._authorizations.known_clients()

    def count_client_changes(self) -> int:
        """Return how often `known_clients` has got other clients; cheap."""
        return self._authorizations.changes

    def remember_clients(self, clients: Iterable[KnownClient]) -> None:
        """Take what `known_clients` gave before a restart: served while nobody can be asked."""
        self._authorizations.remember(clients)

    def acknowledge(self, revision: int, rejected: Sequence[Rejection] = ()) -> None:
        """Tell the control plane that this revision is served now. Not async, never fails.

        The latest receipt is what counts: it is sent as soon as there is a session, and again
        in each new one.

        Args:
            revision: What is in force.
            rejected: The providers of it that are not served as the control plane has them.
        """
        self._receipt = Acknowledge(revision, tuple(rejected))
        if self._receipt_due.deadline == inf:
            delay = shorten(self._limits.receipt_delay, 0.5)
            self._receipt_due.deadline = trio.current_time() + delay

    async def wait_refused(self) -> Refusal:
        """Wait until this gateway is refused before it ever had a session.

        For a program that ends then, with the reason. Once there has been a session, a refusal
        is an outage like any other: what is in force stays, and the next tries may succeed.
        """
        while self._first_refusal is None:
            await self._refused_first.wait()
        return self._first_refusal

    async def _keep(self, connect: Connect) -> None:
        """Have a session whenever one can be had, until cancelled."""
        limits, status = self._limits, self.status
        backoff = Backoff(limits.first_delay, limits.max_delay)
        while True:
            status.attempts += 1
            sessions = status.sessions
            try:
                await self._have_session(connect)
            except HandshakeRefusedError as error:
                self._note_refused(error)
            except _TROUBLE as error:
                self._note_trouble(str(error) or type(error).__name__)
            except Exception as error:  # a `connect` that is not ours must not end this task
                _log.exception("no session, by an unexpected exception")
                self._note_trouble(
                    f"unexpected {type(error).__name__}; its traceback is in the log"
                )
            if status.sessions > sessions and status.since - self._began >= limits.steady_after:
                backoff.reset()
            if status.refused is not None:
                await trio.sleep(shorten(limits.refused_delay, 0.5))
            else:
                await trio.sleep(backoff.next_delay())

    async def _have_session(self, connect: Connect) -> None:
        """Connect, and serve until the session is lost; return or raise why."""
        timeout = self._limits.connect_timeout
        with trio.CancelScope(deadline=trio.current_time() + timeout) as scope:
            async with (
                connect() as channel,
                open_client_session(channel, self._hello, self._note_changed) as session,
            ):
                scope.deadline = inf
                self._note_begin(session)
                try:
                    await self._serve(session)
                finally:
                    self._note_end()
        if scope.cancelled_caught:
            self._note_trouble(f"no session within {timeout:g} s")

    async def _serve(self, session: ClientSession) -> None:
        """Send receipts until the session is lost; raise why."""
        async with open_service_nursery() as nursery:
            nursery.start_soon(self._send_receipts, session)
            try:
                raise await session.rpc.wait_lost()
            finally:
                nursery.cancel_scope.cancel()

    async def _send_receipts(self, session: ClientSession) -> None:
        limits, sent = self._limits, None
        while True:
            if (receipt := self._receipt) is None or receipt == sent:
                with trio.CancelScope() as self._receipt_due:
                    await trio.sleep_forever()
                continue
            try:
                with trio.fail_after(limits.call_timeout):
                    await session.acknowledge(receipt)
                sent = receipt
            except (RemoteError, UnsendableError, trio.TooSlowError) as error:
                _log.warning("a receipt was not taken: %s", str(error) or "no answer in time")
                await trio.sleep(self._limits.call_timeout)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # whoever waits for the loss is told as well

    async def _ask(self, token: Secret) -> Authorization:
        session = self._session
        if session is None:
            raise trio.ClosedResourceError
        with trio.fail_after(self._limits.call_timeout):
            return await session.authorize(token)

    def _note_begin(self, session: ClientSession) -> None:
        self._session, self._began = session, trio.current_time()
        welcome = session.welcome
        self.status._note_session(welcome.session, welcome.software, welcome.protocol)
        self.status.revisions = session.revisions
        self._authorizations.note_session(reachable=True)
        self._authorizations.note_clients(session.revisions.clients)
        facts = {"session": welcome.session, "control_plane": welcome.software}
        _log.info("connected to the control plane", extra=facts)
        self._bus.publish()

    def _note_changed(self, changed: Changed) -> None:
        self.status.revisions = changed.revisions
        self._authorizations.note_clients(changed.revisions.clients)
        self._bus.publish()

    def _note_end(self) -> None:
        self._session = None
        self.status._note_end()
        self._authorizations.note_session(reachable=False)

    def _note_refused(self, error: HandshakeRefusedError) -> None:
        refusal = Refusal.of(error)
        if refusal is None:
            self._note_trouble(str(error))
            return
        if refusal != self.status.refused:
            _log.error("the control plane refuses this gateway: %s", refusal.reason)
        self.status._note_error(str(refusal), refusal)
        if not self.status.ever_connected and self._first_refusal is None:
            self._first_refusal = refusal
            self._refused_first.set()

    def _note_trouble(self, problem: str) -> None:
        # The same trouble is told once in an outage, not at each try.
        trouble = (problem, self.status.sessions)
        told, self._told = trouble == self._told, trouble
        _log.log(logging.DEBUG if told else logging.WARNING, "no session: %s", problem)
        self.status._note_error(problem)


async def _updated(table: ProviderTable, rows: Sequence[ProviderRow]) -> ProviderTable:
    """Make the providers, and let others run in between when there are many new ones."""
    builder = TableBuilder(table)
    checked = 0
    for row in rows:
        checked += builder.add(row)
        if checked == _AT_ONCE:
            checked = 0
            await trio.lowlevel.checkpoint()
    return builder.finish()


@asynccontextmanager
async def open_remote_providers(
    connect: Connect,
    *,
    gateway: str,
    instance: str | None = None,
    limits: RemoteLimits = _DEFAULT_LIMITS,
) -> AsyncIterator[RemoteProviders]:
    """Follow the providers of a control plane, for as long as the block lasts.

    It returns at once: that there is a session is told by the first notice, and a `reload`
    before it says that there is none. ::

        connect = websocket_connector("wss://control.example.com", key)
        async with open_remote_providers(connect, gateway="front-1") as remote:
            await nursery.start(watch_providers, pool, remote, remote.changes)

    Args:
        connect: Opens a connection; called anew after each loss. What it raises is an outage,
            but for a `HandshakeRefusedError` that says no.
        gateway: What this gateway calls itself.
        instance: Which process of it; random by default.
        limits: How long to wait for what.

    Resource handling:
        Leaving the block ends the session. What the block raises comes out as it is.
    """
    hello = Hello(gateway=gateway, instance=instance or secrets.token_hex(8), software=_SOFTWARE)
    with ChangeBus() as bus, bus.subscribe() as changes:
        async with open_service_nursery() as nursery, open_singleflight() as flights:
            remote = RemoteProviders(changes, RemoteStatus(), hello, limits, bus)
            remote._authorizations = AuthorizationCache(remote._ask, flights, limits.authorization)
            nursery.start_soon(remote._keep, connect)
            try:
                yield remote
            finally:
                nursery.cancel_scope.cancel()


def websocket_connector(
    url: str,
    key: Secret,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limits: WebSocketLimits | None = None,
) -> Connect:
    """Return what connects `open_remote_providers` to a control plane over a websocket.

    Args:
        url: Where its RPC service listens: ``wss://host:port``, or ``ws://…`` on a network
            that nobody else is on, since keys and providers go over it.
        key: This gateway's key, ``bpg_…``.
        ssl_context: For ``wss``, where the system's certificates are not the right ones.
        limits: Of the connection; give both ends the same.

    Raises:
        ValueError: The URL is not one of a websocket, or has a query or a fragment.
    """
    from bridgepool.transports.websocket import open_websocket_channel  # needs the extra

    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("the URL of a control plane is such as wss://control.example.com:8443")
    address = urlunsplit(parts._replace(path=parts.path or "/", query=f"version={PROTOCOL}"))
    return partial(
        open_websocket_channel,
        address,
        bearer=key,
        ssl_context=ssl_context,
        limits=limits or WebSocketLimits(),
    )
