"""The corpus of answers at the gateway: each is refused, cut, or is exactly one answer.

Each answer has another one behind it that nobody asked for, on a connection that all clients share.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress

import h11
import pytest
import trio

from tests.gateway.proxy.raw import raw_upstream
from tests.gateway.proxy.rig import Rig, open_rig, openai
from tests.system.test_hostile_requests import AUTHORIZATION, BATCH, CLIENT, say
from tools.hostile_answers import fill_in_answer, hostile_answers


def read_one(received: bytes) -> tuple[int, bytes]:
    """Return the status of one answer, which may be cut, and what follows it."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(received)
    status = 0
    while (event := connection.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.EndOfMessage):
            return status, connection.trailing_data[0]
    return status, b""


@pytest.mark.parametrize("closes", [False, True])
async def test_each_answer_is_refused_or_forwarded_as_exactly_one(
    nursery: trio.Nursery, closes: bool
) -> None:
    corpus = [(b"%06d" % number, *one) for number, one in enumerate(hostile_answers())]
    answers = {name: fill_in_answer(answer, name) for name, _, answer in corpus}
    assert len(answers) > 300

    async def upstream(stream: trio.SocketStream) -> None:
        data = b""
        with suppress(trio.BrokenResourceError):
            while piece := await stream.receive_some():
                data += piece
                head, end, rest = data.partition(b"\r\n\r\n")
                if not end:
                    continue
                data = rest
                found = re.search(rb"(?i)\r\nx-id: (\w+)", head)
                assert found is not None
                if found[1] in answers:
                    await stream.send_all(answers[found[1]])
                    if closes:
                        return
                else:
                    body = b"own:%b;" % found[1]
                    await stream.send_all(
                        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
                    )

    outcomes: Counter[int] = Counter()

    async def ask(rig: Rig, name: bytes, kind: str, answer: bytes) -> None:
        request = (
            b"GET /ai/v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\nX-Id: %b\r\n\r\n"
            % (AUTHORIZATION, name)
        )
        received = await say(int(rig.address.rpartition(":")[2]), request)
        label = f"{kind}: {answer[:300]!r} -> {received[:500]!r}"
        found = set(re.findall(rb"own:(\w+);", received))
        assert found <= {name}, label
        status, rest = read_one(received)
        assert rest == b"", label
        outcomes[status] += 1

    provider = openai(await raw_upstream(nursery, upstream))
    async with open_rig(provider, nursery=nursery, clients=[CLIENT]) as rig:
        for begin in range(0, len(corpus), BATCH):
            async with trio.open_nursery() as clients:
                for name, kind, answer in corpus[begin : begin + BATCH]:
                    clients.start_soon(ask, rig, name, kind, answer)
            for turn in range(8):
                name = b"good%dx%d" % (begin, turn)
                headers = ((b"authorization", AUTHORIZATION), (b"x-id", name))
                good = await rig.ask("/ai/v1/models", headers=headers)
                assert (good.status, good.body) == (200, b"own:%b;" % name)
    assert outcomes[200] > 30
    assert outcomes[502] > 100
