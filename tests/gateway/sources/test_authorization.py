"""What is remembered of clients' keys, and for how long."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from bridgepool import Secret, open_singleflight
from bridgepool.gateway._protocol import Authorization
from bridgepool.gateway.providers import AuthorizationUnavailableError, Caller
from bridgepool.gateway.sources._authorization import (
    AuthorizationLimits,
    RemoteClients,
)

ANN = Caller("ann", "k1")


@attrs.define(eq=False)
class Plane:
    """A control plane of one client, that counts its questions."""

    cache: RemoteClients = attrs.field(init=False)
    clients: int = 5
    epoch: str | None = None
    good: dict[str, Caller] = attrs.field(factory=lambda: {"ann-key": ANN})
    asked: list[str] = attrs.field(factory=list)
    gate: trio.Event | None = None
    broken: bool = False

    async def ask(self, token: Secret) -> Authorization:
        self.asked.append(token.reveal())
        clients, epoch = self.clients, self.epoch
        caller = self.good.get(token.reveal())
        if self.gate is not None:
            await self.gate.wait()
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise ConnectionError
        if caller is None:
            return Authorization(clients=clients, epoch=epoch)
        return Authorization(
            client_id=caller.client_id, key_id=caller.key_id, clients=clients, epoch=epoch
        )

    def change(self, change: Callable[[dict[str, Caller]], object]) -> None:
        """Change the clients, with the notice of it."""
        change(self.good)
        self.clients += 1
        self.cache._note_clients(self.clients, self.epoch)

    def go_back(self, clients: int, epoch: str) -> None:
        """Begin a new epoch at an earlier revision, with the notice of it."""
        self.clients, self.epoch = clients, epoch
        self.cache._note_clients(clients, epoch)


@asynccontextmanager
async def open_plane(
    limits: AuthorizationLimits = AuthorizationLimits(),  # noqa: B008 -- frozen
) -> AsyncIterator[Plane]:
    async with open_singleflight(build_timeout=10) as flights:
        plane = Plane()
        plane.cache = RemoteClients(flights, limits)
        plane.cache._note_clients(plane.clients)
        plane.cache._note_session(plane.ask)
        yield plane


def go_away(plane: Plane) -> None:
    plane.cache._note_session(None)


async def test_a_known_key_is_asked_about_once_and_then_answered_without_a_checkpoint(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        with trio.testing.assert_checkpoints():
            assert await plane.cache.authorize(b"ann-key") == ANN
        with trio.testing.assert_no_checkpoints():
            assert await plane.cache.authorize(b"ann-key") == ANN
        assert plane.asked == ["ann-key"]


async def test_a_key_is_asked_about_again_when_its_answer_has_aged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        await plane.cache.authorize(b"ann-key")
        await trio.sleep(59)
        await plane.cache.authorize(b"ann-key")
        assert len(plane.asked) == 1
        await trio.sleep(2)
        await plane.cache.authorize(b"ann-key")
        assert len(plane.asked) == 2


async def test_a_revoked_key_is_refused_from_the_notice_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        assert await plane.cache.authorize(b"ann-key") == ANN
        plane.change(dict.clear)
        assert await plane.cache.authorize(b"ann-key") is None


async def test_a_new_key_is_good_from_the_notice_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        assert await plane.cache.authorize(b"bob-key") is None
        assert await plane.cache.authorize(b"bob-key") is None
        assert len(plane.asked) == 1
        bob = Caller("bob", "k2")
        plane.change(lambda good: good.update({"bob-key": bob}))
        assert await plane.cache.authorize(b"bob-key") == bob


async def test_a_new_key_whose_notice_was_lost_is_good_after_a_few_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        assert await plane.cache.authorize(b"bob-key") is None
        plane.good["bob-key"] = ANN
        await trio.sleep(6)
        assert await plane.cache.authorize(b"bob-key") == ANN


async def test_an_answer_tells_of_a_newer_clients_revision_as_a_notice_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        assert await plane.cache.authorize(b"ann-key") == ANN
        plane.good.clear()
        plane.clients += 1  # and its notice is lost
        assert await plane.cache.authorize(b"else") is None
        assert await plane.cache.authorize(b"ann-key") is None


async def test_while_the_control_plane_is_away_known_clients_are_served_and_others_cannot_be_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        await plane.cache.authorize(b"ann-key")
        assert await plane.cache.authorize(b"bob-key") is None
        go_away(plane)
        await trio.sleep(3600)
        assert await plane.cache.authorize(b"ann-key") == ANN
        for unknown in (b"bob-key", b"carol-key"):
            with pytest.raises(AuthorizationUnavailableError) as caught:
                await plane.cache.authorize(unknown)
            assert caught.value.retry_after > 0
            assert "key" not in repr(caught.value.args[1:])


async def test_a_known_client_is_not_served_past_the_hard_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane(AuthorizationLimits(hard_limit=100)) as plane:
        await plane.cache.authorize(b"ann-key")
        go_away(plane)
        await trio.sleep(99)
        assert await plane.cache.authorize(b"ann-key") == ANN
        await trio.sleep(2)
        with pytest.raises(AuthorizationUnavailableError):
            await plane.cache.authorize(b"ann-key")


async def test_a_client_is_served_when_the_plane_goes_away_right_after_a_notice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The notice does not say whose key it is about: one of them may be revoked, all others are
    not. The outage of all is the greater harm; the hard limit bounds the other one."""
    async with open_plane() as plane:
        await plane.cache.authorize(b"ann-key")
        plane.change(lambda good: None)
        go_away(plane)
        assert await plane.cache.authorize(b"ann-key") == ANN


async def test_a_key_known_to_be_revoked_is_not_served_while_the_plane_is_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        await plane.cache.authorize(b"ann-key")
        plane.change(dict.clear)
        assert await plane.cache.authorize(b"ann-key") is None
        go_away(plane)
        await trio.sleep(100)
        with pytest.raises(AuthorizationUnavailableError):
            await plane.cache.authorize(b"ann-key")


async def test_callers_of_one_key_share_one_question() -> None:
    async with open_plane() as plane:
        plane.gate = trio.Event()
        found: list[Caller | None] = []

        async def ask() -> None:
            found.append(await plane.cache.authorize(b"ann-key"))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            plane.gate.set()
        assert found == [ANN] * 10
        assert plane.asked == ["ann-key"]


async def test_questions_about_unknown_keys_are_few_at_a_time_and_delay_no_known_client() -> None:
    """Whoever tries random keys could load the control plane through any gateway."""
    async with open_plane(AuthorizationLimits(max_questions=3)) as plane:
        await plane.cache.authorize(b"ann-key")
        plane.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(plane.cache.authorize, b"guess-%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            assert len(plane.asked) == 1 + 3
            plane.change(lambda good: good.update(bob=Caller("bob", "k2")))
            nursery.start_soon(plane.cache.authorize, b"ann-key")
            await trio.testing.wait_all_tasks_blocked()
            assert plane.asked[4:] == ["ann-key"]
            plane.gate.set()
        assert len(plane.asked) >= 52


async def test_who_comes_after_the_notice_does_not_share_the_question_from_before_it() -> None:
    async with open_plane(AuthorizationLimits(unknown_for=0)) as plane:
        plane.gate = trio.Event()
        found: dict[str, Caller | None] = {}

        async def ask(who: str) -> None:
            found[who] = await plane.cache.authorize(b"ann-key")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "before")
            await trio.testing.wait_all_tasks_blocked()
            plane.change(dict.clear)
            nursery.start_soon(ask, "after")
            await trio.testing.wait_all_tasks_blocked()
            plane.gate.set()
        assert found == {"before": ANN, "after": None}
        go_away(plane)
        # Whichever answer came last, the one of the later revision is what is remembered.
        with pytest.raises(AuthorizationUnavailableError):
            await plane.cache.authorize(b"ann-key")


async def test_the_answer_of_a_plane_that_is_behind_is_not_believed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.cache._note_clients(9)
        with pytest.raises(AuthorizationUnavailableError):
            await plane.cache.authorize(b"ann-key")
        plane.clients = 9
        await trio.sleep(2)
        assert await plane.cache.authorize(b"ann-key") == ANN


async def test_a_silent_plane_holds_a_known_client_up_only_briefly_and_not_each_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        await plane.cache.authorize(b"ann-key")
        await trio.sleep(100)
        plane.gate = trio.Event()  # never opened: a black hole
        began = trio.current_time()
        assert await plane.cache.authorize(b"ann-key") == ANN
        assert trio.current_time() - began == pytest.approx(0.5)
        for _ in range(10):
            assert await plane.cache.authorize(b"ann-key") == ANN
        assert trio.current_time() - began == pytest.approx(0.5)
        began = trio.current_time()
        await trio.sleep(2)
        with pytest.raises(AuthorizationUnavailableError):
            await plane.cache.authorize(b"bob-key")
        assert trio.current_time() - began == pytest.approx(4)


async def test_a_plane_that_fails_to_answer_is_not_asked_for_each_request(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.broken = True
        for _ in range(10):
            with pytest.raises(AuthorizationUnavailableError):
                await plane.cache.authorize(b"ann-key")
        assert len(plane.asked) == 1
        plane.broken = False
        plane.cache._note_session(plane.ask)
        assert await plane.cache.authorize(b"ann-key") == ANN


async def test_a_cancelled_caller_disturbs_no_other() -> None:
    async with open_plane() as plane:
        plane.gate = trio.Event()
        found: list[Caller | None] = []

        async def ask(scope: trio.CancelScope) -> None:
            with scope:
                found.append(await plane.cache.authorize(b"ann-key"))

        hasty = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, hasty)
            nursery.start_soon(ask, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            hasty.cancel()
            await trio.testing.wait_all_tasks_blocked()
            plane.gate.set()
        assert found == [ANN]
        assert plane.asked == ["ann-key"]


async def test_what_is_remembered_is_bounded_and_nobodies_keys_push_no_client_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = AuthorizationLimits(max_known=3, max_unknown=2, unknown_for=1000)
    async with open_plane(limits) as plane:
        plane.good = {f"key-{number}": Caller("c", f"{number}") for number in range(5)}
        for number in range(5):
            await plane.cache.authorize(b"key-%d" % number)
        for number in range(5):
            await plane.cache.authorize(b"nobody-%d" % number)
        assert len(plane.cache.known_clients()) == 3
        plane.asked.clear()
        for number in range(2, 5):
            await plane.cache.authorize(b"key-%d" % number)
        assert plane.asked == []
        await plane.cache.authorize(b"nobody-4")
        assert plane.asked == []
        await plane.cache.authorize(b"nobody-0")
        assert plane.asked == ["nobody-0"]


@pytest.mark.parametrize("token", [b"", b"x" * 513, b"with space", b"\xff\xfe", b"line\n"])
async def test_what_can_be_no_key_is_nobodys_and_is_not_sent(token: bytes) -> None:
    async with open_plane() as plane:
        assert await plane.cache.authorize(token) is None
        assert plane.asked == []


async def test_no_token_stands_in_what_is_remembered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        await plane.cache.authorize(b"ann-key")
        await plane.cache.authorize(b"bob-key")
        for held in (plane.cache._known, plane.cache._unknown):
            assert "ann-key" not in repr(held)
            assert "bob-key" not in repr(held)
