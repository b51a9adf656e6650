"""When a client's wire can carry another request, and what it tells the server otherwise."""

import pytest

from bridgepool.http import EndOfMessage, Request
from bridgepool.http._h11_wires import H11ClientWire
from tests.http.test_wire import LIMITS, fed

POST_OF_TWO = Request(b"POST", b"/", ((b"host", b"h"), (b"content-length", b"2")))


@pytest.mark.parametrize(
    ("response", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nrest", False),
    ],
)
def test_a_client_connection_is_reusable_only_in_a_known_state(
    response: bytes, reusable: bool
) -> None:
    wire = H11ClientWire(LIMITS)
    wire.send_head(Request(b"GET", b"/", ((b"host", b"h"),)), body=False)
    wire.send_end()
    assert isinstance(fed(wire, [response])[-1], EndOfMessage)
    assert wire.reusable is reusable


def test_a_response_before_the_end_of_the_request_leaves_the_connection_in_use() -> None:
    wire = H11ClientWire(LIMITS)
    wire.send_head(POST_OF_TWO, body=True)
    fed(wire, [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
    assert not wire.reusable
    wire.send_data(b"hi")
    wire.send_end()
    assert wire.reusable


def test_a_server_that_may_not_read_the_body_is_told_to_close() -> None:
    """Else it might execute what stands in the body as the next request."""
    for method, fields in ((b"POST", ()), (b"GET", ((b"content-length", b"2"),))):
        wire = H11ClientWire(LIMITS)
        head = wire.send_head(Request(method, b"/", ((b"host", b"h"), *fields)), body=True)
        assert b"connection: close\r\n" in head
    wire = H11ClientWire(LIMITS)
    assert b"connection" not in wire.send_head(POST_OF_TWO, body=True)


def sent(method: bytes, status: int, *fields: tuple[bytes, bytes], body: bytes) -> H11ClientWire:
    """Return the wire of a client after one whole exchange."""
    wire = H11ClientWire(LIMITS)
    wire.send_head(Request(method, b"/", ((b"host", b"h"), *fields)), body=bool(body))
    wire.send_data(body)
    wire.send_end()
    answer = b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status
    assert isinstance(fed(wire, [answer])[-1], EndOfMessage)
    return wire


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"GET", b"HEAD", b"DELETE", b"X"])
@pytest.mark.parametrize("status", [200, 201, 299, 300, 400, 404, 429, 500])
def test_a_connection_is_reused_only_if_its_upstream_surely_read_the_body(
    method: bytes, status: int
) -> None:
    """What it did not read, it takes for the next request, which is another client's."""
    takes_body = method in (b"POST", b"PUT", b"PATCH")
    length = (b"content-length", b"2")
    assert sent(method, status, length, body=b"hi").reusable is (takes_body and status < 300)
    assert not sent(method, status, body=b"hi").reusable, "chunks, which simple servers cannot read"
    empty = (b"content-length", b"0")
    for fields in ((), (empty,)):
        assert sent(method, status, *fields, body=b"").reusable is (method != b"HEAD")
