"""One session, as the follower has it: what it asks, and what the owner sent unasked."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import attrs
import trio

from bridgepool._errors import ReloadError
from bridgepool.remote._errors import FOLLOWER_ENDED, InvalidMessageError, RemoteError
from bridgepool.remote._messages import (
    Acknowledge,
    GetRows,
    Hello,
    RowSet,
    Watch,
    Welcome,
)
from bridgepool.remote._rpc import NoticeHandler, RpcPeer, open_rpc
from bridgepool.remote._session import Service, ServiceSession

LEAVE_TIMEOUT: Final = 2.0
"""Seconds in which a follower ends its session: its services, the goodbye, the connection."""
_GOODBYE_TIME: Final = 0.5  # seconds of them that services leave for the goodbye


@attrs.define(eq=False)
class FollowerSession:
    """A session that has begun."""

    rpc: RpcPeer
    welcome: Welcome
    revision: int | None
    """The latest that the owner sent."""
    owner: str
    """What errors call the owner."""
    known: int | None = attrs.field(default=None, init=False)
    """`RowSet.set` of the rows that this session has brought and that are in use."""
    # what the latest notice brought; without rows, that they are those of its set
    _sent: RowSet | None = attrs.field(default=None, init=False)

    def note_changed(self, changed: RowSet) -> None:
        """Take a notice."""
        self.revision = changed.revision
        if changed.rows is None and self._sent is not None and self._sent.set == changed.set:
            # its rows were not taken yet
            self._sent = attrs.evolve(changed, rows=self._sent.rows)
        else:
            self._sent = changed

    def take_sent(self) -> RowSet | None:
        """Return what came with the latest notice, once; None when it has to be asked for."""
        sent, self._sent = self._sent, None
        if sent is not None and sent.rows is None and sent.set != self.known:
            return None
        return sent

    async def get_rows(self) -> RowSet:
        """Ask for the rows.

        Raises:
            ReloadError: There is no answer; says why.
        """
        known = self.known
        try:
            answer = await self.rpc.call("get_rows", GetRows(known), RowSet)
        except (
            RemoteError,
            InvalidMessageError,
            trio.BrokenResourceError,
            trio.ClosedResourceError,
        ) as error:
            problem = f"the {self.owner} did not send its rows: {error}"
            raise ReloadError(problem) from None
        if answer.rows is None and (known is None or answer.set != known):
            raise ReloadError(f"the {self.owner} left out rows that are not known here")
        if self._sent is not None and _age(self._sent) <= _age(answer):
            self._sent = None  # it came before, so it holds less
        return answer

    async def acknowledge(self, receipt: Acknowledge) -> None:
        """Send a receipt."""
        await self.rpc.notify("acknowledge", receipt)


def _age(rows: RowSet) -> tuple[int, int]:
    return rows.set, rows.revision or 0


@asynccontextmanager
async def open_follower_session(
    channel: trio.abc.Channel[bytes],
    hello: Hello,
    services: Iterable[Service],
    on_changed: Callable[[RowSet], None],
    owner: str,
) -> AsyncIterator[FollowerSession]:
    """Begin a session on a channel: hello, services, notices.

    Leaving the block without an exception closes the services, which may still call the owner, and
    ends the session with a goodbye, also if one of them raises; all within `LEAVE_TIMEOUT`.

    Args:
        channel: A connection to an owner; closed in the end.
        hello: Who we are.
        services: What the hello asks for.
        on_changed: Called with each notice, once the session has taken it.
        owner: What errors call the owner.
    """
    session: FollowerSession | None = None
    early: list[RowSet] = []  # notices that came in one go with the answer to `watch`

    def changed(notice: RowSet) -> None:
        if session is None:
            early.append(notice)
        else:
            session.note_changed(notice)
            on_changed(notice)

    notices = {"changed": NoticeHandler(RowSet, changed)}
    deadline: float | None = None  # of the end, once the body has ended without an exception
    async with open_rpc(channel, notices=notices) as rpc:
        try:
            with trio.CancelScope() as closing:
                async with AsyncExitStack() as stack:
                    welcome = await rpc.call("hello", hello, Welcome)
                    for service in services:
                        opened = ServiceSession(welcome.session, None, service.name, rpc)
                        await stack.enter_async_context(service.open(opened))
                    watching = await rpc.call("watch", Watch(send=True), RowSet)
                    session = FollowerSession(rpc, welcome, watching.revision, owner)
                    for notice in early:
                        session.note_changed(notice)
                    early.clear()
                    yield session
                    deadline = trio.current_time() + LEAVE_TIMEOUT
                    closing.deadline = deadline - _GOODBYE_TIME
        finally:
            if deadline is not None:
                # It goes out, by its deadline, also when this wait is cancelled.
                await rpc.send_goodbye(  # noqa: ASYNC102
                    FOLLOWER_ENDED, "the follower has ended", deadline=deadline
                )
