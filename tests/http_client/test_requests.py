import gc
import weakref

import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from bridgepool.http import LocalProtocolError, open_upstream_client
from tests.http_client.support import OK, Peer, answer_all, client_of, read_all


async def test_a_request_is_sent_in_one_write_and_its_response_is_returned_at_once() -> None:
    sent: list[bytes] = []

    async def script(peer: Peer) -> None:
        sent.append(bytes(await peer.stream.receive_some()))
        await peer.send(OK)

    async with client_of(script) as (client, _):
        headers = ((b"host", b"h"), (b"accept", b"*/*"))
        async with client.request(b"POST", b"/a?b=c", headers, b"body") as response:
            assert (response.status, response.reason) == (200, b"OK")
            assert response.headers == ((b"content-length", b"2"),)
            assert response.take_buffered() == b"ok"
            assert response.ended
            assert await response.receive_some() == b""
    assert sent == [
        b"POST /a?b=c HTTP/1.1\r\nhost: h\r\naccept: */*\r\ncontent-length: 4\r\n\r\nbody"
    ]


async def test_host_and_base_path_are_put_in_front() -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.read_head())
        await peer.send(OK)

    async with trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(script, Peer(theirs))
            return ours

        async with open_upstream_client("https://api.example:8443/v1/", dial=dial) as client:
            await read_all(client, target=b"/models")
    assert heads == [b"GET /v1/models HTTP/1.1\r\nhost: api.example:8443\r\n\r\n"]


async def test_the_asterisk_of_options_is_sent_as_it_is() -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.read_head())
        await peer.send(OK)

    async with client_of(script) as (client, _):
        await read_all(client, b"OPTIONS", b"*")
    assert heads[0].startswith(b"OPTIONS * HTTP/1.1\r\n")


@pytest.mark.parametrize("target", [b"", b"models", b"?a=b", b"@other.example/", b"http://other/"])
async def test_a_target_without_a_slash_at_its_beginning_is_not_sent(target: bytes) -> None:
    """Behind a base URL it would be another path or host."""
    async with client_of(answer_all) as (client, upstream):
        with pytest.raises(LocalProtocolError, match="the target must begin with a slash"):
            await read_all(client, target=target)
        assert upstream.dialled == 0


async def test_a_body_that_was_not_read_in_the_block_is_not_an_empty_one_after_it() -> None:
    async with client_of(answer_all) as (client, _):
        async with client.request(b"GET", b"/") as response:
            pass
        assert not response.ended
        with pytest.raises(trio.ClosedResourceError, match="the block of this request has ended"):
            await response.receive_some()
        async with client.request(b"GET", b"/") as response:
            assert await response.receive_some() == b"ok"
        assert client.statistics().reused == 1
        assert await response.receive_some() == b""  # this one was read to its end


async def test_a_connection_is_reused_once_its_response_was_read() -> None:
    async with client_of(answer_all) as (client, upstream):
        assert [await read_all(client) for _ in range(3)] == [b"ok"] * 3
        assert upstream.dialled == 1
        statistics = client.statistics()
        assert (statistics.opened, statistics.reused, statistics.idle) == (1, 2, 1)
        assert statistics.in_use == 0


async def test_the_connection_used_last_is_reused_first() -> None:
    served: list[int] = []

    async def script(peer: Peer) -> None:
        number = upstream.dialled
        while await peer.read_head():
            served.append(number)
            await peer.send(OK)

    async with client_of(script) as (client, upstream):
        async with client.request(b"GET", b"/") as first:
            async with client.request(b"GET", b"/") as second:
                second.take_buffered()
            first.take_buffered()
        await read_all(client)
    assert served == [1, 2, 1]


async def test_each_piece_of_a_stream_is_returned_as_soon_as_it_is_received() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        async for piece in upstream_side:
            await peer.send(piece)

    tell, upstream_side = trio.open_memory_channel[bytes](0)
    async with client_of(script) as (client, _), client.request(b"GET", b"/") as response:
        assert response.take_buffered() == b""
        assert not response.ended
        for word in (b"one", b"two"):
            await tell.send(b"3\r\n%b\r\n" % word)
            assert await response.receive_some() == word
        await tell.send(b"0\r\nx-sum: 6\r\n\r\n")
        assert await response.receive_some() == b""
        assert response.ended
        assert response.trailers == ((b"x-sum", b"6"),)
        assert client.statistics().idle == 1


async def test_a_slow_reader_applies_back_pressure_to_its_upstream() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        for _ in range(10):
            await peer.send(b"x")
            sent += 1

    async with (
        client_of(script, pair=lockstep_stream_pair) as (client, _),
        client.request(b"GET", b"/") as response,
    ):
        await wait_all_tasks_blocked()
        assert sent == 0
        await response.receive_some()
        await wait_all_tasks_blocked()
        assert sent == 1


@pytest.mark.parametrize(
    ("method", "head", "reused"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", 0),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 0),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", 0),
        (b"GET", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1),
    ],
)
async def test_an_answer_that_can_have_no_body_ends_with_its_head(
    method: bytes, head: bytes, reused: int
) -> None:
    async def script(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(head)

    async with client_of(script) as (client, _):
        for _ in range(2):
            assert await read_all(client, method) == b""
        assert client.statistics().reused == reused


async def test_interim_answers_are_skipped() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 x\r\n\r\n")
        await peer.send(OK)

    async with client_of(script) as (client, _):
        assert await read_all(client) == b"ok"


async def test_a_body_may_end_with_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of ")
        await peer.send(b"it")

    async with client_of(script) as (client, _):
        assert await read_all(client) == b"all of it"
        assert client.statistics().in_use == client.statistics().idle == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    ],
)
async def test_a_connection_that_cannot_be_reused_is_closed(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer)
        await peer.wait_closed()

    async with client_of(script) as (client, upstream):
        assert [await read_all(client) for _ in range(2)] == [b"ok", b"ok"]
        assert upstream.dialled == 2
        assert client.statistics().idle == 0


async def test_a_careless_upstream_is_named_in_the_log_once_for_each_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = [b"x-a : 1", b"x-b : 2", b"x-c: \x01", *(b"x-%d: \x01" % one for one in range(20))]
    answers = iter(faults)

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK.replace(b"\r\n\r\n", b"\r\n" + next(answers) + b"\r\n\r\n"))
        await peer.wait_closed()

    async with client_of(script) as (client, upstream):
        for _ in faults:
            assert await read_all(client) == b"ok"
        assert upstream.dialled == len(faults)
    logged = [record.fault for record in caplog.records if "malformed" in record.message]  # type: ignore[attr-defined]  # an extra field
    assert logged[:2] == [
        "there is white space between a field name and its colon",
        "the value of x-c contains a control character",
    ]
    assert len(logged) == 8, "an upstream may choose the name of a field"


async def test_leaving_early_closes_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart")
        await peer.wait_closed()
        closed.set()

    closed = trio.Event()
    async with client_of(script) as (client, _):
        async with client.request(b"GET", b"/") as response:
            assert await response.receive_some() == b"part"
        await closed.wait()
        assert client.statistics().in_use == client.statistics().idle == 0
        with pytest.raises(trio.ClosedResourceError):
            await response.receive_some()


async def test_leaving_a_fully_received_response_unread_keeps_the_connection() -> None:
    async with client_of(answer_all) as (client, upstream):
        for _ in range(2):
            async with client.request(b"GET", b"/") as response:
                assert response.status == 200
        assert upstream.dialled == 1


async def test_an_error_in_the_block_is_raised_unchanged_and_closes_the_connection() -> None:
    async with client_of(answer_all) as (client, upstream):
        with pytest.raises(ValueError, match="mine"):
            async with client.request(b"GET", b"/"):
                raise ValueError("mine")
        await wait_all_tasks_blocked()
        assert upstream.open == 0
        assert client.statistics().in_use == client.statistics().idle == 0


async def test_a_request_that_is_entered_twice_is_refused_and_holds_no_connection() -> None:
    async with client_of(answer_all) as (client, upstream):
        request = client.request(b"GET", b"/")
        async with request as response:
            with pytest.raises(RuntimeError, match="call `request` for each `async with`"):
                await request.__aenter__()
            assert await response.receive_some() == b"ok"
        with pytest.raises(RuntimeError, match="call `request` for each `async with`"):
            await request.__aenter__()
        assert upstream.dialled == 1
        assert client.statistics().in_use == 0


async def test_a_body_of_very_many_chunks_is_returned_a_part_at_a_time() -> None:
    """All that had come was read in one turn: 64 kB of chunks of a byte took 40 ms."""
    body = b"0123456789" * 2000

    async def script(peer: Peer) -> None:
        await peer.read_head()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await peer.send(chunks + b"0\r\n\r\n")

    pieces: list[bytes] = []
    async with client_of(script) as (client, _), client.request(b"GET", b"/") as response:
        while not response.ended:
            pieces.append(await response.receive_some())
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 2500


async def test_a_response_is_freed_with_its_block_without_the_garbage_collector() -> None:
    async with client_of(answer_all) as (client, _):
        gc.disable()
        try:
            async with client.request(b"GET", b"/") as response:
                await response.receive_some()
            freed = weakref.ref(response)
            del response
            assert freed() is None
        finally:
            gc.enable()
