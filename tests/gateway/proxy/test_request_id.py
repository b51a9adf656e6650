"""Each request has one id: the client's if it is well-formed, in every place that names it."""

from __future__ import annotations

import json
import logging
import re

import pytest
import trio

from bridgepool.gateway import GatewaySettings, Outcome
from bridgepool.gateway.providers import (
    ANTHROPIC,
    OPENAI,
    Client,
    hash_key,
    new_client_key,
)
from bridgepool.gateway.proxy._request_id import find_request_id, find_upstream_id
from bridgepool.http import HttpLimits
from tests.gateway.proxy.raw import connect, raw_upstream, says
from tests.gateway.proxy.rig import anthropic, open_rig, openai, start_upstream

CHAT = "/ai/v1/chat/completions"
OURS = re.compile(r"req_[0-9a-f]{24}")
KEY = new_client_key()


@pytest.mark.parametrize("sent", [b"a", b"7:1/x=y+z.b-c_d", b"x" * 128])
def test_a_well_formed_id_of_the_client_is_kept(sent: bytes) -> None:
    assert find_request_id(((b"host", b"a"), (b"x-request-id", sent))) == sent.decode()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"x" * 129,
        b"a b",
        b"a,b",
        b'a"b',
        b"a%62",
        b"\xff",
        b"a/bp_" + b"a" * 12 + b"_" + b"b" * 43,
        b"a\n",
    ],
)
def test_any_other_is_replaced(sent: bytes) -> None:
    assert OURS.fullmatch(find_request_id(((b"x-request-id", sent),)))


def test_two_ids_and_none_are_replaced_by_one() -> None:
    assert OURS.fullmatch(find_request_id(((b"x-request-id", b"a"), (b"x-request-id", b"a"))))
    ids = {find_request_id(()) for _ in range(100)}
    assert len(ids) == 100
    assert all(OURS.fullmatch(found) for found in ids)


def test_an_upstreams_own_id_is_that_of_its_dialect_and_not_an_echo() -> None:
    both = ((b"request-id", b"own"), (b"x-request-id", b"other"))
    assert find_upstream_id(both, ANTHROPIC.errors, "mine") == "own"
    assert find_upstream_id(both, OPENAI.errors, "mine") == "other"
    assert find_upstream_id(both, OPENAI.errors, "other") == ""
    assert find_upstream_id(((b"x-request-id", b"a b"),), OPENAI.errors, "mine") == ""


@pytest.mark.parametrize("own_key", [False, True])
async def test_the_upstream_the_client_and_the_log_get_the_clients_id(
    nursery: trio.Nursery, own_key: bool
) -> None:
    north = await start_upstream(nursery)
    provider = openai(north, client_keys=True) if own_key else openai(north)
    clients = [Client(id="ada", key_hashes=(hash_key(KEY),))]
    headers = (
        (b"x-bridgepool-key", KEY.reveal().encode()),
        (b"authorization", b"Bearer sk-own"),
        (b"x-request-id", b"trace-1"),
    )
    async with open_rig(provider, nursery=nursery, clients=clients) as rig:
        found = await rig.ask(CHAT, {"stream": True}, headers)
        plain = await rig.ask(CHAT, {"model": "m"}, headers[:2])
        first, second = await rig.wait_records(2)
    assert found.headers[b"x-request-id"] == b"trace-1" == north.received[0].header(b"x-request-id")
    assert first.request_id == "trace-1"
    assert OURS.fullmatch(second.request_id)
    assert plain.headers[b"x-request-id"] == second.request_id.encode()
    assert north.received[1].header(b"x-request-id") == second.request_id.encode()
    assert (first.route, first.attempts, first.upstream_status) == ("/chat/completions", 1, 200)
    assert first.upstream_ms
    assert first.bytes_received == len(b'{"stream": true}')
    assert first.peer.startswith("127.0.0.1:")


async def test_a_fixed_header_of_the_provider_wins_over_the_id(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    provider = openai(north, headers={"x-request-id": "fixed"})
    async with open_rig(provider, nursery=nursery) as rig:
        found = await rig.ask(CHAT, {}, ((b"x-request-id", b"trace-1"),))
    assert north.received[0].header(b"x-request-id") == b"fixed"
    assert found.headers[b"x-request-id"] == b"trace-1"


async def test_an_upstreams_own_id_reaches_client_and_log_under_another_name(
    nursery: trio.Nursery,
) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nx-request-id: up-1\r\nx-upstream-request-id: forged\r\n"
        b"request-id: up-2\r\ncontent-length: 2\r\n\r\n{}"
    )
    url = await raw_upstream(nursery, says(answer))
    async with open_rig(openai(url), anthropic(url), nursery=nursery) as rig:
        first = await rig.ask(CHAT, {}, ((b"x-request-id", b"trace-1"),))
        second = await rig.ask("/claude/v1/messages", {}, ((b"x-request-id", b"trace-2"),))
        records = await rig.wait_records(2)
    assert first.headers[b"x-request-id"] == b"trace-1"
    assert first.headers[b"x-upstream-request-id"] == b"up-1"
    assert second.headers[b"x-request-id"] == b"trace-2"
    assert second.headers[b"request-id"] == b"up-2"
    assert [record.upstream_request_id for record in records] == ["up-1", "up-2"]


async def test_refusals_and_log_lines_of_a_request_name_it(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mine = ((b"x-request-id", b"trace-1"),)
    url = await raw_upstream(nursery, says(b"HTTP/1.1 "))
    async with open_rig(openai(url), anthropic(url), nursery=nursery) as rig:
        cut = await rig.ask(CHAT, {}, mine)
        other = await rig.ask("/claude/v1/messages", {}, mine)
        closed = await rig.ask("/ai/v1/nothing", headers=mine)
    for answer in (cut, other, closed):
        assert answer.headers[b"x-request-id"] == b"trace-1"
        assert answer.json["request_id"] == "trace-1"
    assert other.headers[b"request-id"] == b"trace-1"
    lines = [line for line in caplog.records if line.message == "upstream request failed"]
    assert [vars(line)["request_id"] for line in lines] == ["trace-1"] * 2


MANY = b"".join(b"x-%d: 1\r\n" % number for number in range(129))
HOST = b"host: a\r\nx-request-id: trace-1\r\n"
# What is sent, the status and the code; none of it reaches a handler.
INVALID = {
    "too many fields": (
        b"POST /ai/v1/x HTTP/1.1\r\n" + HOST + MANY + b"\r\n",
        431,
        "headers_too_large",
    ),
    "a folded field": (
        b"POST /ai/v1/x HTTP/1.1\r\n" + HOST + b"a: 1\r\n 2\r\n\r\n",
        400,
        "bad_request",
    ),
    "a long target": (
        b"POST /ai/v1/" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        414,
        "target_too_long",
    ),
    "another coding": (
        b"POST /ai/v1/x HTTP/1.1\r\n" + HOST + b"transfer-encoding: gzip\r\n\r\n",
        501,
        "not_supported",
    ),
    "a head that does not end": (b"POST /ai/v1/x HTTP/1.1\r\n" + HOST, 408, "request_timeout"),
}


@pytest.mark.parametrize("what", INVALID)
async def test_input_that_is_no_request_is_refused_in_the_dialect_with_an_id_and_a_record(
    nursery: trio.Nursery, what: str
) -> None:
    raw, status, code = INVALID[what]
    limits = HttpLimits(header_timeout=0.1)
    async with open_rig(nursery=nursery, limits=limits) as rig:
        for path in (b"/ai/v1/x", b"/claude/v1/messages"):
            async with connect(rig.address) as client:
                target = path if path != b"/ai/v1/x" else None
                await client.send(raw.replace(b"/ai/v1/", target + b"?") if target else raw)
                head, _, body = (await client.read_to_end()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"content-type: application/json" in head
            assert b"x-request-id: trace-1" in head
            document = json.loads(body)
            assert document["request_id"] == "trace-1"
            assert document["error"]["code"] == code
            assert ("type" in document) == (b"messages" in path)
        records = await rig.wait_records(2)
        assert rig.gateway.statistics().ended[Outcome.REFUSED] == 2
    assert {(r.request_id, r.method, r.status, r.code) for r in records} == {
        ("trace-1", "POST", status, code)
    }
    assert [record.path for record in records] == ["/*/v1/*", "/*/v1/messages"]
    assert all(record.peer.startswith("127.0.0.1:") for record in records)


async def test_a_trusted_proxy_names_the_peer_of_the_record(nursery: trio.Nursery) -> None:
    settings = GatewaySettings(allow_anonymous=True, trusted_proxies=("127.0.0.0/8",))
    forwarded = ((b"x-forwarded-for", b"192.0.2.7"),)
    async with open_rig(nursery=nursery, settings=settings) as rig:
        answer = await rig.ask("/ai/v1/models", headers=forwarded)
        assert (answer.status, answer.code) == (403, "not_from_here")  # it has no key
        async with connect(rig.address) as client:
            await client.send(b"GET / HTTP/1.1\r\nx-forwarded-for: 192.0.2.7\r\n\r\n")  # no host
            await client.read_to_end()
        records = await rig.wait_records(2)
    assert [record.peer for record in records] == ["192.0.2.7:0", "192.0.2.7:0"]


async def test_bytes_that_are_no_http_are_refused_with_a_new_id(nursery: trio.Nursery) -> None:
    async with open_rig(nursery=nursery) as rig:
        async with connect(rig.address) as client:
            await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
            answer = await client.read_to_end()
        [record] = await rig.wait_records(1)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert OURS.fullmatch(record.request_id)
    assert b"x-request-id: " + record.request_id.encode() in answer
    assert (record.method, record.path) == ("*", "")
