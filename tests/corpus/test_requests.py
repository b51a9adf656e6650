"""Each raw request of the corpus is refused, or forwarded as exactly one message.

No byte of one exchange appears in another, whatever the upstream leaves unread.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from tests.corpus.cases import Case, token
from tests.corpus.programs import PROGRAMS, Program
from tests.corpus.requests import PATH, REQUESTS
from tests.corpus.upstreams import answers_in, tokens_in

KINDS = sorted({case.kind for case in REQUESTS})


def test_the_corpus_has_three_hundred_different_requests() -> None:
    assert len({case.raw for case in REQUESTS}) >= 300
    assert len({str(case) for case in REQUESTS}) == len(REQUESTS)


async def exchange(program: Program, case: Case, mark: bytes) -> tuple[bytes, int]:
    """Send one case; return all bytes that came back, and how many answers were complete."""
    host, _, port = program.address.partition(":")
    raw = case.marked(mark).replace(PATH, program.path, 1)
    methods = ["HEAD" if raw.startswith(b"HEAD") else "POST"]
    data, sent = b"", False
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        with trio.fail_after(60), suppress(trio.BrokenResourceError):
            await stream.send_all(raw)
            while case.complete and len(answers_in(data, methods)[0]) < case.messages:
                piece = await stream.receive_some()
                if not piece:
                    break
                data += piece
            await stream.send_eof()
            sent = True
            while piece := await stream.receive_some():
                data += piece
    assert sent or data or not case.complete, case
    return data, len(answers_in(data, methods)[0])


def check_answers(case: Case, mark: bytes, data: bytes, program: Program, *, strict: bool) -> None:
    """Check what came back: whole answers to these messages, without a byte of others."""
    methods = ["HEAD" if case.raw.startswith(b"HEAD") else "POST"]
    answers, _ = answers_in(data, methods)
    assert tokens_in(data) <= {mark}, case
    forwarded = [status for status, seen in answers if seen]
    assert all(seen in (b"", mark) for _, seen in answers), case
    if case.late_fault and not strict:
        assert data, case
        assert len(answers) <= 1, case  # none: it was cut when the fault showed
    elif program.upstream is None or case.outcome == "refused":
        assert forwarded == [], case
        assert all(status >= 400 for status, _ in answers), (case, answers)
        assert answers or not case.complete, case
    else:
        assert forwarded == [200] * case.messages, (case, answers, data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_raw_request_is_refused_or_is_exactly_one_message(
    name: str, kind: str, tmp_path: Path
) -> None:
    async with PROGRAMS[name](tmp_path) as program:
        for number, case in enumerate(REQUESTS):
            if case.kind != kind:
                continue
            mark, other = token(2 * number), token(2 * number + 1)
            data, _ = await exchange(program, case, mark)
            strict = program.upstream is None or "strict" in name
            check_answers(case, mark, data, program, strict=strict)
            await program.check(other)
            upstream = program.upstream
            if upstream is None:
                continue
            for message in upstream.messages:
                assert tokens_in(message) <= {mark} or tokens_in(message) <= {other}, case
            # No upstream executes what stands in a body.
            assert len(upstream.of(mark)) <= case.messages, case
            if strict:
                expected = case.messages if case.outcome == "forwarded" else 0
                assert len(upstream.of(mark)) == expected, case
                assert upstream.violations == [], case
            upstream.messages.clear()
