"""One session, as the gateway has it: what is asked, and what the control plane sent unasked."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from bridgepool._errors import ReloadError
from bridgepool._secret import Secret
from bridgepool.remote._errors import InvalidMessageError, RemoteError
from bridgepool.remote._messages import (
    Acknowledge,
    Acknowledged,
    Authorization,
    Authorize,
    Changed,
    GetProviders,
    Hello,
    ProviderSet,
    Revisions,
    WatchProviders,
    Welcome,
)
from bridgepool.remote._row_reader import RowReader
from bridgepool.remote._rpc import NoticeHandler, RpcPeer, open_rpc


@attrs.define(eq=False)
class ClientSession:
    """A session that has begun."""

    rpc: RpcPeer
    welcome: Welcome
    revisions: Revisions
    """The latest that a notice told of."""
    _rows: RowReader
    known: int | None = attrs.field(default=None, init=False)
    """`Revisions.providers` of the set that this session has brought and that is in use."""
    # what the latest notice brought; without rows, that they are those of its revision
    _sent: ProviderSet | None = attrs.field(default=None, init=False)

    def note_changed(self, changed: Changed) -> None:
        """Take a notice."""
        revisions = self.revisions = changed.revisions
        if changed.rows is not None:
            self._sent = ProviderSet(revisions, changed.rows)
        elif self._sent is not None and self._sent.revisions.providers == revisions.providers:
            self._sent = attrs.evolve(self._sent, revisions=revisions)  # nobody took them yet
        else:
            self._sent = ProviderSet(revisions, None)

    def take_sent(self) -> ProviderSet | None:
        """Return what came with the latest notice, once; None when it has to be asked for."""
        sent, self._sent = self._sent, None
        if sent is not None and sent.rows is None and sent.revisions.providers != self.known:
            return None
        return sent

    async def get_providers(self) -> ProviderSet:
        """Ask for the providers.

        Raises:
            ReloadError: There is no answer; says why.
        """
        known = self.known
        try:
            answer = await self.rpc.call(
                "get_providers", GetProviders(known), ProviderSet, self._rows.decode
            )
        except (
            RemoteError,
            InvalidMessageError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
        ) as error:
            problem = f"the control plane did not give its providers: {error}"
            raise ReloadError(problem) from None
        if answer.rows is None and (known is None or answer.revisions.providers != known):
            raise ReloadError("the control plane left out providers that are not known here")
        if self._sent is not None and self._sent.revisions.revision <= answer.revisions.revision:
            self._sent = None  # it came before, so it tells less
        return answer

    async def authorize(self, token: Secret) -> Authorization:
        """Ask whose key this is."""
        return await self.rpc.call("authorize", Authorize(token), Authorization)

    async def acknowledge(self, receipt: Acknowledge) -> None:
        """Send a receipt."""
        await self.rpc.call("acknowledge", receipt, Acknowledged)


@asynccontextmanager
async def open_client_session(
    channel: trio.abc.Channel[bytes], hello: Hello, on_changed: Callable[[Changed], None]
) -> AsyncIterator[ClientSession]:
    """Begin a session on a channel: say hello, and ask for notices.

    Args:
        channel: A connection to a control plane; closed in the end.
        hello: Who we are.
        on_changed: Called with each notice, once the session has taken it.
    """
    session: ClientSession | None = None

    early: list[Changed] = []  # notices that came in one go with the answer to `watch_providers`

    def changed(notice: Changed) -> None:
        if session is None:
            early.append(notice)
        else:
            session.note_changed(notice)
            on_changed(notice)

    rows = RowReader()
    handler = NoticeHandler(Changed, changed, rows.decode)
    async with open_rpc(channel, notices={"changed": handler}) as rpc:
        welcome = await rpc.call("hello", hello, Welcome)
        revisions = await rpc.call("watch_providers", WatchProviders(send=True), Revisions)
        session = ClientSession(rpc, welcome, revisions, rows)
        for notice in early:
            session.note_changed(notice)
        early.clear()
        yield session
