"""Who is let in, and what the others are told."""

import logging

import attrs
import pytest

from bridgepool import Secret
from bridgepool.remote._admission import Admitted, admit, check_version
from bridgepool.remote._backend import GatewayIdentity
from bridgepool.remote._memory import MemoryBackend
from bridgepool.remote._versions import PROTOCOL, ProtocolVersion, parse_version
from bridgepool.transports.websocket import Handshake, Refused

CURRENT = {"version": str(PROTOCOL)}


def handshake(bearer: Secret | None, version: str | None = str(PROTOCOL)) -> Handshake:
    query = {} if version is None else {"version": version}
    return Handshake("/", query, bearer, "192.0.2.1")


async def test_a_gateway_with_a_good_key_is_let_in_under_the_name_of_its_key() -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")
    outcome = await admit(handshake(key), backend)
    assert isinstance(outcome, Admitted)
    assert outcome.identity.name == "front-1"
    assert outcome.protocol == PROTOCOL
    assert backend.is_live(outcome.identity.key_id)


async def test_a_key_of_nobody_a_revoked_one_and_none_are_refused_with_what_to_do() -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")
    admitted = await admit(handshake(key), backend)
    assert isinstance(admitted, Admitted)
    backend.revoke_gateway_key(admitted.identity.key_id)
    stranger = MemoryBackend().add_gateway_key("x")
    for bearer in (key, stranger, Secret("bpg_nonsense"), Secret("\udcff")):
        outcome = await admit(handshake(bearer), backend)
        assert isinstance(outcome, Refused)
        assert (outcome.status, outcome.code) == (401, "unknown_key")
        assert bearer.reveal() not in outcome.reason
    outcome = await admit(handshake(None), backend)
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.code) == (401, "no_key")


async def test_a_refusal_is_logged_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    key = MemoryBackend().add_gateway_key("x")
    with caplog.at_level(logging.WARNING, "bridgepool.remote"):
        await admit(handshake(key), MemoryBackend())
    (record,) = caplog.records
    assert record.message == "gateway refused"
    assert record.__dict__["code"] == "unknown_key"
    assert key.reveal() not in str(record.__dict__)


async def test_a_backend_that_fails_is_no_refusal_of_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @attrs.define(eq=False)
    class Failing(MemoryBackend):
        async def admit(self, key: Secret) -> GatewayIdentity | None:
            raise OSError("the database is gone")

    outcome = await admit(handshake(Secret("bpg_x")), Failing())
    assert isinstance(outcome, Refused)
    assert outcome.status == 503


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


def test_a_refused_version_says_who_has_to_be_upgraded() -> None:
    newer = check_version("1.2", ProtocolVersion(1, 1))
    assert isinstance(newer, Refused)
    assert newer.reason.endswith("upgrade the control plane")
    older = check_version("1.2", ProtocolVersion(2, 0))
    assert isinstance(older, Refused)
    assert older.reason.endswith("upgrade the gateway")


async def test_a_missing_version_is_told_how_to_say_it() -> None:
    outcome = await admit(handshake(None, version=None), MemoryBackend())
    assert isinstance(outcome, Refused)
    assert outcome.status == 400
    assert "?version=1.0" in outcome.reason
