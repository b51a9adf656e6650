"""Calls and notices of an application's own on each session, beside the rows."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from bridgepool import Secret
from bridgepool.remote import (
    Identity,
    ProtocolVersion,
    RemoteError,
    RemoteProviders,
    RemoteService,
    Service,
    ServiceSession,
    open_remote_providers,
    open_remote_service,
)

from .rig import ROWS, Depot, Owner, row


@attrs.frozen
class Question:
    door: Secret


@attrs.frozen
class Answer:
    text: str


@attrs.define(eq=False)
class Doors:
    """A service that answers at the owner, and asks at the follower."""

    version: ProtocolVersion = ProtocolVersion(1, 2)  # noqa: RUF009 -- frozen
    name: str = "doors"
    sessions: list[ServiceSession] = attrs.field(factory=list)
    heard: list[str] = attrs.field(factory=list)
    log: list[str] = attrs.field(factory=list)

    def open(self, session: ServiceSession) -> AbstractAsyncContextManager[None]:
        return self._open(session)

    @asynccontextmanager
    async def _open(self, session: ServiceSession) -> AsyncIterator[None]:
        session.on_call("knock", Question, partial(self.knock, session))
        session.on_notice("news", Answer, lambda news: self.heard.append(news.text))
        self.sessions.append(session)
        self.log.append("opened")
        try:
            yield
        finally:
            self.sessions.remove(session)
            self.log.append("closed")

    async def knock(self, session: ServiceSession, question: Question) -> Answer:
        await trio.lowlevel.checkpoint()
        who = session.follower.identity.name if session.follower is not None else "the owner"
        return Answer(f"{who} knocked at {question.door.reveal()}")


@asynccontextmanager
async def linked(
    offered: Iterable[Service], wanted: Iterable[Service]
) -> AsyncIterator[tuple[RemoteService[Depot], RemoteProviders[Depot]]]:
    owner = Owner()
    owner.set_rows([row(1)])
    with owner.source.subscribe() as changes:
        async with (
            open_remote_service(
                ROWS, owner.source, changes, admit=owner.admit, services=offered
            ) as service,
            open_remote_providers(
                partial(service.connect, Identity("local")), ROWS, name="f", services=wanted
            ) as remote,
        ):
            yield service, remote


async def test_a_service_calls_and_is_called_at_both_ends_with_the_identity_at_the_owner(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there, here = Doors(), Doors()
    async with linked([there], [here]) as (_, remote):
        await remote.changes.receive()
        (session,) = here.sessions
        answer = await session.call("knock", Question(Secret("7")), Answer)
        assert answer.text == "local knocked at 7"
        assert session.id == remote.status.session
        (back,) = there.sessions
        assert back.id == session.id
        answer = await back.call("knock", Question(Secret("8")), Answer)
        assert answer.text == "the owner knocked at 8"
        assert (await remote.reload()).providers == (row(1),)


async def test_notices_come_in_order_and_of_published_ones_the_latest_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there, here = Doors(), Doors()
    async with linked([there], [here]) as (_, remote):
        await remote.changes.receive()
        for text in ("a", "b"):
            await there.sessions[0].notify("news", Answer(text))
        for number in range(100):
            there.sessions[0].publish("news", Answer(str(number)))
        await trio.sleep(1)
        assert here.heard == ["a", "b", "99"]


async def test_it_is_opened_before_the_first_notice_and_closed_with_its_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there, here = Doors(), Doors()
    async with linked([there], [here]) as (_, remote):
        await remote.changes.receive()
        assert (there.log, here.log) == (["opened"], ["opened"])
    await trio.sleep(1)
    assert (there.log, here.log) == (["opened", "closed"], ["opened", "closed"])


async def test_a_follower_that_does_not_want_it_has_a_session_without_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = Doors()
    async with linked([there], []) as (_, remote):
        await remote.changes.receive()
        assert (await remote.reload()).providers == (row(1),)
        assert there.log == []


@pytest.mark.parametrize(
    ("offered", "code"),
    [
        ([], "service_unknown"),
        ([Doors(ProtocolVersion(1, 1))], "service_version"),
        ([Doors(ProtocolVersion(2, 2))], "service_version"),
    ],
)
async def test_a_follower_does_without_none_that_it_wants_and_says_what_is_missing(
    offered: list[Doors], code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with linked(offered, [Doors()]) as (service, remote):
        await trio.sleep(10)
        assert not remote.status.ever_connected
        assert code in str(remote.status.last_error)
        assert "doors" in str(remote.status.last_error)
        assert service.sessions == {}


async def test_an_older_follower_is_served(autojump_clock: trio.testing.MockClock) -> None:
    async with linked([Doors()], [Doors(ProtocolVersion(1, 0))]) as (_, remote):
        await remote.changes.receive()
        assert remote.status.connected


async def test_an_error_of_a_handler_reaches_its_caller_and_the_session_goes_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Doors):
        async def knock(self, session: ServiceSession, question: Question) -> Answer:
            await trio.lowlevel.checkpoint()
            if question.door.reveal() == "closed":
                raise RemoteError("closed", "nobody opens")
            raise ZeroDivisionError

    here = Doors()
    async with linked([Failing()], [here]) as (_, remote):
        await remote.changes.receive()
        for door, code in (("closed", "closed"), ("broken", "internal")):
            with pytest.raises(RemoteError) as told:
                await here.sessions[0].call("knock", Question(Secret(door)), Answer)
            assert told.value.code == code
        assert (await remote.reload()).providers == (row(1),)


async def test_a_service_that_cannot_be_opened_costs_the_session_and_not_the_owner(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Doors):
        def open(self, session: ServiceSession) -> AbstractAsyncContextManager[None]:
            raise ZeroDivisionError

    async with linked([Broken()], [Doors()]) as (_, remote):
        await trio.sleep(5)
        assert not remote.status.ever_connected
        assert "internal" in str(remote.status.last_error)
        assert remote.status.attempts > 2
