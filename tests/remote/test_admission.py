"""Who is let in, and what the others are told."""

import logging
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from bridgepool import MemoryReloader, ProviderSnapshot, Secret
from bridgepool.remote import (
    PROTOCOL,
    Admitted,
    Handshake,
    ProtocolVersion,
    Refused,
    open_remote_service,
)
from bridgepool.remote._versions import check_version, parse_version

from .rig import ROWS, Owner, open_plane, row


def handshake(bearer: Secret | None, version: str | None = str(PROTOCOL)) -> Handshake:
    query = {} if version is None else {"version": version}
    return Handshake("/", query, bearer, "192.0.2.1")


async def test_a_follower_is_let_in_as_the_one_that_admit_says() -> None:
    async with open_plane() as plane:
        outcome = await plane.service.admit(handshake(plane.key))
        assert isinstance(outcome, Admitted)
        assert outcome.identity.name == "front-1"
        assert (outcome.protocol, outcome.peer) == (PROTOCOL, "192.0.2.1")


async def test_a_refusal_of_admit_is_the_answer_and_is_logged_without_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_plane() as plane:
        with caplog.at_level(logging.WARNING, "bridgepool.remote"):
            outcome = await plane.service.admit(handshake(Secret("hidden")))
        assert isinstance(outcome, Refused)
        assert (outcome.status, outcome.code) == (401, "unknown_key")
        (record,) = caplog.records
        assert record.message == "follower refused"
        assert record.__dict__["code"] == "unknown_key"
        assert "hidden" not in str(record.__dict__)


async def test_refusals_are_logged_once_a_minute_for_each_code(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Whoever tried keys could fill the log."""
    async with open_plane() as plane:
        for _ in range(3):
            for _ in range(100):
                await plane.service.admit(handshake(Secret("hidden")))
                await plane.service.admit(handshake(None, version="x"))
            await trio.sleep(61)
    lines = [(vars(one)["code"], vars(one)["refused"]) for one in caplog.records]
    assert len(lines) == 6
    assert [refused for code, refused in lines if code == "unknown_key"] == [1, 100, 100]


async def test_an_admit_that_fails_is_no_refusal_of_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_plane(Owner(broken=True)) as plane:
        outcome = await plane.service.admit(handshake(plane.key))
        assert isinstance(outcome, Refused)
        assert outcome.status == 503


@pytest.mark.parametrize("answer", [None, True, "front-1"])
async def test_an_admit_that_forgets_to_answer_lets_nobody_in(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever connects gets the providers' secrets: only a whole answer opens."""

    async def admit(_: Handshake) -> Any:
        await trio.lowlevel.checkpoint()
        return answer

    source = MemoryReloader(ProviderSnapshot([row()]))
    async with open_remote_service(ROWS, source, source.subscribe(), admit=admit) as service:
        outcome = await service.admit(handshake(Secret("anything")))
        assert isinstance(outcome, Refused)
        assert outcome.status == 503
        kind = type(answer).__name__
        assert f"admit must return an Identity or Refused, not a {kind}" in caplog.text
        with pytest.raises(TypeError, match=f"connect needs an Identity, not a {kind}"):
            async with service.connect(answer):
                raise AssertionError("it was connected")


async def test_a_missing_version_is_told_how_to_give_it_before_the_key_is_looked_at() -> None:
    async with open_plane(Owner(broken=True)) as plane:
        outcome = await plane.service.admit(handshake(None, version=None))
        assert isinstance(outcome, Refused)
        assert outcome.status == 400
        assert "?version=1.0" in outcome.reason


@pytest.mark.parametrize(
    ("own", "asked", "code"),
    [
        ("1.0", "1.0", None),
        ("1.3", "1.0", None),
        ("1.3", "1.3", None),
        ("1.3", "1.4", "version_refused"),
        ("1.3", "2.0", "version_refused"),
        ("2.0", "1.9", "version_refused"),
        ("1.0", "1", "version_malformed"),
        ("1.0", "1.0.0", "version_malformed"),
        ("1.0", "01.0", "version_malformed"),
        ("1.0", "1.99999", "version_malformed"),
        ("1.0", "", "version_malformed"),
    ],
)
def test_a_server_serves_its_major_version_up_to_its_own_minor(
    own: str, asked: str, code: str | None
) -> None:
    outcome = check_version(asked, parse_version(own))
    if code is None:
        assert outcome == parse_version(asked)
    else:
        assert isinstance(outcome, Refused)
        assert outcome.code == code


def test_a_refused_version_says_which_end_has_to_be_upgraded() -> None:
    newer = check_version("1.2", ProtocolVersion(1, 1))
    assert isinstance(newer, Refused)
    assert newer.reason.endswith("upgrade the owner")
    older = check_version("1.2", ProtocolVersion(2, 0))
    assert isinstance(older, Refused)
    assert older.reason.endswith("upgrade the follower")
