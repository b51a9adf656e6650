"""The end of a follower: its services, its goodbye, and how long both take."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from bridgepool.remote import (
    Acknowledge,
    Admitted,
    Identity,
    ProtocolVersion,
    ServiceSession,
    SessionEnd,
    SessionInfo,
    open_remote_providers,
    open_remote_service,
)
from bridgepool.transports.memory import open_memory_channel_pair

from .rig import ROWS, Owner, row


@attrs.frozen
class Work:
    """What was done last."""

    count: int


@attrs.frozen
class Works:
    """A service of which a follower reports its last work, and waits for the answer."""

    answers_after: float = 0.0
    raises: bool = False
    """The follower's end of it raises when it is closed."""
    seen: list[str] = attrs.field(factory=list)
    name: str = "works"
    version: ProtocolVersion = ProtocolVersion(1, 0)  # noqa: RUF009 -- frozen

    @asynccontextmanager
    async def open(self, session: ServiceSession) -> AsyncIterator[None]:
        if session.follower is not None:
            session.on_call("report", Work, self.take)
            yield
            return
        yield
        if self.raises:
            raise ValueError("planted")
        try:
            await session.call("report", Work(7), Work)
            self.seen.append("answered")
        except trio.Cancelled:
            self.seen.append("not answered")
            raise

    async def take(self, work: Work) -> Work:
        self.seen.append(f"reported {work.count}")
        await trio.sleep(self.answers_after)
        return work

    # -- an observer of sessions

    def session_opened(self, session: SessionInfo) -> None:
        self.seen.append("opened")

    def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
        pass

    def session_closed(self, session_id: str, end: SessionEnd) -> None:
        self.seen.append(end)


@attrs.define(eq=False)
class Link(trio.abc.Channel[bytes]):
    """A channel over a network that can begin to drop everything.

    Its closing waits for the other side, as that of a websocket does.
    """

    _inner: trio.abc.Channel[bytes]
    drops: bool = False
    is_full: bool = False
    """Nothing more can be sent."""

    async def send(self, value: bytes) -> None:
        if self.is_full:
            await trio.sleep_forever()
        if self.drops:
            await trio.lowlevel.checkpoint()
        else:
            await self._inner.send(value)

    async def receive(self) -> bytes:
        value = await self._inner.receive()
        if self.drops:
            await trio.sleep_forever()
        return value

    async def aclose(self) -> None:
        try:
            if self.drops:
                await trio.sleep(60)
        finally:
            await trio.aclose_forcefully(self._inner)


@attrs.frozen
class Ending:
    """A follower that is about to end."""

    link: Link
    scope: trio.CancelScope
    works: Works


@asynccontextmanager
async def following(answers_after: float = 0.0, *, raises: bool = False) -> AsyncIterator[Ending]:
    """Follow an owner that lives longer; the block's end is the follower's."""
    owner, works, links = Owner(), Works(answers_after, raises), list[Link]()
    owner.set_rows([row(1)])

    @asynccontextmanager
    async def connect() -> AsyncIterator[trio.abc.Channel[bytes]]:
        await trio.lowlevel.checkpoint()
        ours, theirs = open_memory_channel_pair()
        nursery.start_soon(service.serve, theirs, Admitted(Identity("f"), peer="memory"))
        links.append(Link(ours))
        yield links[-1]

    with owner.source.subscribe() as changes:
        async with (
            open_remote_service(
                ROWS, owner.source, changes, admit=owner.admit, services=[works], observer=works
            ) as service,
            trio.open_nursery() as nursery,
        ):
            with trio.CancelScope() as scope:
                async with open_remote_providers(
                    connect, ROWS, name="f", services=[works]
                ) as remote:
                    await remote.changes.receive()
                    yield Ending(links[0], scope, works)
            await trio.sleep(1)  # so that the owner has seen all of it
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cancels", [False, True])
async def test_the_services_of_a_follower_that_ends_can_call_before_its_goodbye(
    cancels: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """What a service had left to report was lost, at the latest when the block was cancelled."""
    async with following() as ending:
        if cancels:
            ending.scope.cancel()
    assert ending.works.seen == ["opened", "reported 7", "answered", "left"]


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_follower_of_which_a_service_raises_at_the_end_says_goodbye(
    cancels: bool, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The owner took it for a lost connection, and expected the follower back."""
    with caplog.at_level(logging.CRITICAL):
        async with following(raises=True) as ending:
            if cancels:
                ending.scope.cancel()
    assert ending.works.seen == ["opened", "left"]


async def test_an_owner_that_is_too_slow_for_the_services_gets_the_goodbye(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with following(answers_after=60) as ending:
        began = trio.current_time()
    assert ending.works.seen == ["opened", "reported 7", "not answered", "left"]
    assert trio.current_time() - began == pytest.approx(1.5 + 1)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize("cancels", [False, True])
async def test_a_follower_ends_in_two_seconds_when_the_network_drops_everything(
    is_full: bool, cancels: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """The last call, the goodbye and the close had two seconds each."""
    async with following() as ending:
        ending.link.drops, ending.link.is_full = True, is_full
        began = trio.current_time()
        if cancels:
            ending.scope.cancel()
    assert trio.current_time() - began == pytest.approx(2 + 1)
    assert ending.works.seen == ["opened", "not answered", "lost"]


async def test_a_follower_that_has_no_session_ends_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @asynccontextmanager
    async def connect() -> AsyncIterator[trio.abc.Channel[bytes]]:
        await trio.sleep_forever()
        yield open_memory_channel_pair()[0]

    began = trio.current_time()
    async with open_remote_providers(connect, ROWS, name="f"):
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == began
