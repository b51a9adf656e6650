"""Each raw answer of the corpus reaches its client as exactly one message, or not as a whole.

No byte of one exchange appears in another, whenever the rest of an answer comes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bridgepool.http import HttpLimits
from bridgepool.http._heads import parse_response_head
from tests.corpus.answers import ANSWERS, KEY_STATUSES
from tests.corpus.cases import Case, token
from tests.corpus.programs import Program, open_gateway_program
from tests.corpus.requests import PATH
from tests.corpus.upstreams import answers_in, open_scripted, tokens_in

KINDS = sorted({case.kind for case in ANSWERS})


def test_the_corpus_has_three_hundred_different_answers() -> None:
    assert len({(case.raw, case.late, case.method) for case in ANSWERS}) >= 300
    assert len({str(case) for case in ANSWERS}) == len(ANSWERS)


async def ask(program: Program, method: str, mark: bytes) -> bytes:
    """Send a good request with a token; return all that comes until the connection ends."""
    host, _, port = program.address.partition(":")
    path = PATH if method == "POST" else PATH + b"/x"
    head = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Case: %b\r\nConnection: close\r\n"
    data = b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        with trio.fail_after(60):
            rest = b"Content-Length: 2\r\n\r\n{}" if method == "POST" else b"\r\n"
            await stream.send_all(head % (method.encode(), path, mark) + rest)
            while piece := await stream.receive_some():
                data += piece
    return data


def check_answer(case: Case, mark: bytes, data: bytes) -> None:
    """Check the bytes that a client got."""
    assert tokens_in(data) <= {mark}, case
    answers, left = answers_in(data, [case.method])
    refusals = [(502, b"")]
    if case.outcome == "forwarded":
        [(status, seen)] = answers
        final = next(part for part in case.raw.split(b"HTTP/1.") if is_final(part))
        assert (status, seen, left) == (int(final.split()[1]), mark, b""), case
        parse_response_head(data[: data.index(b"\r\n\r\n") + 4], HttpLimits())  # strictly
    elif case.outcome == "refused" or answers:
        assert (answers, left) == (refusals, b""), (case, answers)
    else:
        assert left, case


def is_final(part: bytes) -> bool:
    """Return whether this is a final answer with a mark."""
    return b"X-Seen" in part and not part[1:].lstrip().startswith(b"1")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_raw_answer_is_exactly_one_message_or_is_not_passed_on_as_a_whole(
    kind: str, tmp_path: Path
) -> None:
    async with open_gateway_program(open_scripted, tmp_path) as program:
        upstream = program.upstream
        assert upstream is not None
        for number, case in enumerate(ANSWERS):
            if case.kind != kind:
                continue
            mark, other = token(2 * number), token(2 * number + 1)
            upstream.script[mark] = case
            check_answer(case, mark, await ask(program, case.method, mark))
            if case.idle:
                await upstream.send_idle()
            if kind not in KEY_STATUSES:
                await program.check(other)
            upstream.messages.clear()
