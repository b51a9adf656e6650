"""The keys of a provider: which one a request uses, and what happens when one is not taken."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from bridgepool._secret import Secret
from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.gateway.providers._key_fingerprint import fingerprint
from bridgepool.http import Exchange, Headers, serve_http
from tests.gateway.proxy.raw import connect
from tests.gateway.proxy.rig import Rig, anthropic, open_rig, openai, own_refusals
from tests.waiting import wait_until

CHAT = "/ai/v1/chat/completions"


@attrs.define(eq=False)
class Keyed:
    """An upstream that answers by the key: its status and headers, or 200 with the body's size."""

    url: str = ""
    answers: dict[str, tuple[int, Headers]] = attrs.field(factory=dict)
    seen: list[str] = attrs.field(factory=list)
    """The keys, in the order in which they came."""
    bodies: list[bytes] = attrs.field(factory=list)
    message: str = ""
    """Of its errors."""
    early: bool = False
    """Answer before the body is read, if it is a refusal."""
    arrived: trio.Event = attrs.field(factory=trio.Event)
    gate: trio.Event | None = None
    """Waited for before an answer of 200."""

    async def handle(self, exchange: Exchange) -> None:
        headers = dict(exchange.request.headers)
        key = (headers.get(b"x-api-key") or headers.get(b"authorization", b"")).decode()
        key = key.removeprefix("Bearer ")
        self.seen.append(key)
        status, extra = self.answers.get(key, (200, ()))
        if not (self.early and status != 200):
            self.bodies.append(b"".join([piece async for piece in exchange.body]))
        if status == 200 and self.gate is not None:
            self.arrived.set()
            await self.gate.wait()
        error = {"code": "theirs", "message": self.message}
        body = json.dumps({"error": error, "key": key}).encode()
        if (b"content-encoding", b"gzip") in extra:
            body = gzip.compress(body)
        answered = (*extra, (b"content-type", b"application/json"))
        if status != 429:
            await exchange.answer(status, answered, body)
            return
        async with exchange.respond(status, answered) as stream:
            await trio.testing.wait_all_tasks_blocked()  # the head comes alone
            await stream.send_all(body)


async def start(nursery: trio.Nursery, **answers: int) -> Keyed:
    upstream = Keyed(answers={key: (status, ()) for key, status in answers.items()})
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    async def serve(task_status: trio.TaskStatus[object]) -> None:
        await serve_http(upstream.handle, listeners, task_status=task_status)

    await nursery.start(serve)
    return upstream


async def ask(rig: Rig, body: object = None, headers: Headers = ()) -> tuple[int, str]:
    answer = await rig.ask(CHAT, {} if body is None else body, headers)
    return answer.status, answer.json.get("key") or answer.code


@pytest.mark.parametrize("status", [429, 401])
async def test_the_next_key_is_tried_at_once_and_the_first_one_left_alone(
    nursery: trio.Nursery, status: int
) -> None:
    upstream = await start(nursery, a=status)
    async with open_rig(openai(upstream.url, keys=["a", "b"]), nursery=nursery) as rig:
        assert [await ask(rig) for _ in range(2)] == [(200, "b"), (200, "b")]
        assert upstream.seen == ["a", "b", "b"]
        first, _ = await rig.wait_records(2)
    assert first.attempts == 2
    assert first.upstream_key == fingerprint(Secret("b"))


@pytest.mark.parametrize("status", [403, 400, 404, 408, 500, 502, 503, 529])
async def test_every_other_answer_goes_to_the_client_and_moves_no_key(
    nursery: trio.Nursery, status: int
) -> None:
    upstream = await start(nursery, a=status)
    async with open_rig(openai(upstream.url, keys=["a", "b"]), nursery=nursery) as rig:
        assert [await ask(rig) for _ in range(2)] == [(status, "a")] * 2


async def test_round_robin_takes_the_keys_in_turn_and_skips_what_cools(
    nursery: trio.Nursery,
) -> None:
    upstream = await start(nursery, b=429)
    provider = openai(upstream.url, keys=["a", "b", "c"], key_policy="round_robin")
    async with open_rig(provider, nursery=nursery) as rig:
        assert [(await ask(rig))[1] for _ in range(4)] == ["a", "c", "a", "c"]
        assert upstream.seen == ["a", "b", "c", "a", "c"]


async def test_when_all_keys_are_out_and_one_is_rate_limited_the_answer_is_429_with_its_time(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = await start(nursery, a=401)
    upstream.answers |= {
        "b": (429, ((b"retry-after", b"120"),)),
        "c": (429, ((b"retry-after-ms", b"90500"),)),
    }
    for make, target in ((openai, CHAT), (anthropic, "/claude/v1/messages")):
        async with open_rig(make(upstream.url, keys=["a", "b", "c"]), nursery=nursery) as rig:
            for _ in range(2):
                answer = await rig.ask(target, {})
                assert (answer.status, answer.code) == (429, "provider_keys_exhausted")
                assert answer.headers[b"retry-after"] in (b"90", b"91")
                assert answer.json["error"]["type"] == "rate_limit_error"
        assert upstream.seen == ["a", "b", "c"], "the second request was not sent"
        upstream.seen.clear()
    assert own_refusals(caplog) == [("WARNING", "provider_keys_exhausted")] * 4


async def test_when_all_keys_are_refused_the_answer_is_that_for_a_refused_key(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = await start(nursery, a=401, b=401)
    async with open_rig(openai(upstream.url, keys=["a", "b"]), nursery=nursery) as rig:
        for _ in range(2):
            answer = await rig.ask(CHAT, {})
            assert (answer.status, answer.code) == (502, "provider_key_refused")
            assert answer.headers[b"x-should-retry"] == b"false"
        assert upstream.seen == ["a", "b"]
    assert own_refusals(caplog) == [("WARNING", "provider_key_refused")] * 2


async def test_an_operator_reads_of_a_refused_key_although_another_one_serves(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = await start(nursery, a=401)
    async with open_rig(openai(upstream.url, keys=["a", "b"]), nursery=nursery) as rig:
        assert [await ask(rig) for _ in range(2)] == [(200, "b"), (200, "b")]
    [line] = [one for one in caplog.records if one.getMessage() == "provider refused a key"]
    assert vars(line)["provider"] == "ai"
    assert vars(line)["key"] == fingerprint(Secret("a"))


async def test_a_429_for_the_only_key_comes_as_it_was_and_the_next_request_is_refused(
    nursery: trio.Nursery,
) -> None:
    upstream = await start(nursery)
    upstream.answers["a"] = (429, ((b"retry-after", b"40"), (b"x-ratelimit-limit-tokens", b"9")))
    async with open_rig(openai(upstream.url, keys=["a"]), nursery=nursery) as rig:
        theirs = await rig.ask(CHAT, {})
        assert (theirs.status, theirs.code) == (429, "theirs")
        assert theirs.headers[b"x-ratelimit-limit-tokens"] == b"9"
        assert await ask(rig) == (429, "provider_keys_exhausted")
        assert upstream.seen == ["a"]


async def test_states_survive_replacements_edits_and_reorderings_and_move_to_nothing_else(
    nursery: trio.Nursery,
) -> None:
    upstream = await start(nursery, a=429)
    async with open_rig(openai(upstream.url, keys=["a", "b"]), nursery=nursery) as rig:
        assert await ask(rig) == (200, "b")
        upstream.answers.clear()
        await rig.replace(openai(upstream.url, keys=["a", "b"]), openai(upstream.url, "other"))
        assert await ask(rig) == (200, "b")
        await rig.replace(openai(upstream.url, keys=["a", "b"], headers={"x-team": "red"}))
        assert await ask(rig) == (200, "b")
        await rig.replace(openai(upstream.url, keys=["c", "a"]))
        assert await ask(rig) == (200, "c")
        await rig.replace(openai(upstream.url, keys=["a", "c"]))
        assert await ask(rig) == (200, "c"), "it still cools down"
        await rig.replace(openai(upstream.url, keys=["a"]), openai(upstream.url, "two", keys=["a"]))
        two = await rig.ask("/two/v1/chat/completions", {})
        assert two.json["key"] == "a", "the same key of another provider has a state of its own"
        await rig.replace()
        await rig.replace(openai(upstream.url, keys=["a"]))
        assert await ask(rig) == (200, "a"), "a provider that comes anew is new"


BIG = json.dumps({"text": "x" * 300_000}).encode()


def pieces_of(body: bytes) -> Iterable[bytes]:
    return [body[start : start + 50_000] for start in range(0, len(body), 50_000)]


class InPieces:
    """A body of unknown length."""

    def __init__(self, body: bytes) -> None:
        self.left = list(pieces_of(body))

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.left.pop(0) if self.left else b""


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1000, 300_000])
async def test_a_body_reaches_the_next_key_whole(
    nursery: trio.Nursery, early: bool, chunked: bool, size: int
) -> None:
    upstream = await start(nursery, a=429, b=401)
    upstream.early = early
    body = json.dumps({"text": "x" * size}).encode()
    async with open_rig(openai(upstream.url, keys=["a", "b", "c"]), nursery=nursery) as rig:
        async with rig.client.request(
            b"POST", CHAT.encode(), (), InPieces(body) if chunked else body
        ) as response:
            assert response.status == 200
        assert upstream.bodies[-1] == body
        assert upstream.seen == ["a", "b", "c"]
        [record] = await rig.wait_records(1)
        assert record.bytes_received == len(body)
        assert rig.gateway._replay_budget.used == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("bound", ["the provider's", "the gateway's"])
async def test_a_body_beyond_a_bound_is_sent_once(
    nursery: trio.Nursery, chunked: bool, bound: str
) -> None:
    upstream = await start(nursery, a=429, c=401)
    theirs = bound == "the provider's"
    settings = GatewaySettings(
        allow_anonymous=True, max_replay_memory=(64 << 20) if theirs else 200_000
    )
    fields: dict[str, Any] = {"max_replay_bytes": 200_000} if theirs else {}
    ai = openai(upstream.url, keys=["a", "b"], **fields)
    other = openai(upstream.url, "other", keys=["c", "b"], **fields)
    async with open_rig(ai, other, nursery=nursery, settings=settings) as rig:
        for target, status, code in (
            (CHAT, 429, "theirs"),
            ("/other/v1/chat/completions", 502, "provider_key_refused"),
        ):
            body = InPieces(BIG) if chunked else BIG
            async with rig.client.request(b"POST", target.encode(), (), body) as response:
                assert response.status == status
                data = response.take_buffered() or await response.receive_some()
                assert json.loads(data)["error"]["code"] == code
                assert b"x-should-retry" not in dict(response.headers)
            assert rig.gateway._replay_budget.used == 0
        assert await ask(rig, BIG) == (200, "b"), "the retry of a client finds the other key"
    assert upstream.seen == ["a", "c", "b"]


async def test_a_clients_own_key_is_never_touched(nursery: trio.Nursery) -> None:
    upstream = await start(nursery, mine=429, theirs=401)
    key = new_client_key()
    providers = (
        openai(upstream.url, client_keys=True),
        openai(upstream.url, "both", client_keys="prefer", keys=["a", "b"]),
        openai(upstream.url, "neither", client_keys="prefer", keys=[]),
    )
    client = Client(id="me", key_hashes=hash_key(key))
    gateway_key = ((b"x-bridgepool-key", key.reveal().encode()),)
    async with open_rig(*providers, nursery=nursery, clients=[client]) as rig:
        for name in ("ai", "both"):
            target = f"/{name}/v1/chat/completions"
            for own, status in ((b"mine", 429), (b"theirs", 401), (b"good", 200)):
                headers = (*gateway_key, (b"authorization", b"Bearer " + own))
                for _ in range(2):
                    answer = await rig.ask(target, {}, headers)
                    assert (answer.status, answer.json["key"]) == (status, own.decode())
        assert upstream.seen == ["mine", "mine", "theirs", "theirs", "good", "good"] * 2
        target = "/both/v1/chat/completions"
        assert (await rig.ask(target, {}, gateway_key)).json["key"] == "a"
        usual = ((b"authorization", b"Bearer " + key.reveal().encode()),)
        assert (await rig.ask(target, {}, usual)).json["key"] == "a", "a gateway key is no own key"
        both = (*gateway_key, *usual)
        assert (await rig.ask(target, {}, both)).json["key"] == "a"
        none = await rig.ask("/neither/v1/chat/completions", {}, usual)
        assert (none.status, none.code) == (401, "own_key_missing")


async def test_a_client_that_leaves_a_request_that_tries_a_refused_key_does_not_keep_it(
    nursery: trio.Nursery,
) -> None:
    upstream = await start(nursery, a=401)
    async with open_rig(openai(upstream.url, keys=["a"]), nursery=nursery) as rig:
        assert await ask(rig) == (502, "provider_key_refused")
        states = rig.gateway._runtimes.states.get("ai")
        assert states is not None
        [state] = states.keys.states.values()
        state.until = trio.current_time()  # as if the minute had passed
        upstream.answers.clear()
        upstream.gate = trio.Event()
        with trio.move_on_after(10) as leaving:
            async with trio.open_nursery() as asking:
                asking.start_soon(ask, rig)
                await upstream.arrived.wait()
                assert await ask(rig) == (502, "provider_key_refused"), "one try at a time"
                leaving.cancel()
        await rig.wait_records(3)
        upstream.gate = None
        assert await ask(rig) == (200, "a")
        assert (state.in_flight, state.refusals) == (0, 0)


@pytest.mark.parametrize("expect", [b"", b"expect: 100-continue\r\n"])
async def test_a_client_that_is_still_sending_sends_on_to_the_next_key(
    nursery: trio.Nursery, expect: bytes
) -> None:
    upstream = await start(nursery, a=429, b=401)
    upstream.early = True
    body = json.dumps({"text": "".join(map(str, range(60_000)))}).encode()
    async with (
        open_rig(openai(upstream.url, keys=["a", "b", "c"]), nursery=nursery) as rig,
        connect(rig.address) as client,
    ):
        head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\n%bcontent-length: %d\r\n\r\n"
        await client.send(head % (CHAT.encode(), expect, len(body)))
        if expect:
            await client.read_until(b"100 Continue\r\n\r\n")
        await client.send(body[:100_000])
        await wait_until(lambda: len(upstream.seen) >= 3)
        await client.send(body[100_000:])
        await client.read_until(b'"key": "c"')
    assert upstream.seen == ["a", "b", "c"]
    assert upstream.bodies == [body]


async def test_the_status_shows_each_key_masked_and_what_it_does(nursery: trio.Nursery) -> None:
    first, second = "sk-first-0123456789abcdefgh", "sk-second-0123456789-stuvwxyz"
    upstream = await start(nursery, **{first: 429})
    async with open_rig(openai(upstream.url, keys=[first, second]), nursery=nursery) as rig:
        assert await ask(rig) == (200, second)
        status = json.loads(json.dumps(rig.gateway.status()["providers"]))
        cooling, used = status[0]["keys"]
        assert (cooling["hint"], cooling["cooling"]) == ("…efgh", "rate_limited")
        assert 50 < cooling["cooling_for"] <= 60
        assert (used["hint"], used["cooling"], used["in_flight"]) == ("…wxyz", "", 0)
        assert used["usable"]
        assert used["unused_for"] == 0
        assert used["fingerprint"] == fingerprint(Secret(second))
        assert not {first, second} & set(str(status).split("'"))


_TOO_LARGE = (
    "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, "
    "Requested 30601. The input or output tokens must be reduced in order to run successfully."
)
_LONG_CONTEXT = "Extra usage is required for long context requests."


@pytest.mark.parametrize("extra", [(), ((b"content-encoding", b"gzip"),)])
@pytest.mark.parametrize(
    ("provider", "target", "message"),
    [(openai, CHAT, _TOO_LARGE), (anthropic, "/claude/v1/messages", _LONG_CONTEXT)],
)
async def test_a_request_that_is_too_large_by_itself_takes_no_key_from_other_clients(
    nursery: trio.Nursery, provider: Any, target: str, message: str, extra: Headers
) -> None:
    """Its 429 cooled down all keys for a minute, for all clients."""
    upstream = await start(nursery, a=429, b=429)
    upstream.answers = dict.fromkeys("ab", (429, extra))
    upstream.message = message
    async with open_rig(provider(upstream.url, keys=["a", "b"]), nursery=nursery) as rig:
        for _ in range(2):
            answer = await rig.ask(target, {})
            assert answer.status == 429
            body = gzip.decompress(answer.body) if extra else answer.body
            assert json.loads(body)["error"]["message"] == message
        assert upstream.seen == ["a", "a"]
        upstream.message = "Rate limit reached for gpt-4o. Please try again in 9s."
        answer = await rig.ask(target, {})
        assert (answer.status, answer.code) == (429, "provider_keys_exhausted")
        assert upstream.seen == ["a", "a", "a", "b"]
