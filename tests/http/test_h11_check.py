"""What h11 rejects stays rejected, though what it accepted is remembered."""

import pytest

from bridgepool.http import RemoteProtocolError
from bridgepool.http._h11_check import _accept_request, check_with_h11
from bridgepool.http._messages import Headers, Request, ResponseHead

HOST = (b"host", b"example")
GZIP: Headers = ((b"transfer-encoding", b"gzip"),)


def request(target: bytes = b"/", headers: Headers = (HOST,), version: bytes = b"1.1") -> Request:
    return Request(b"GET", target, headers, version)


@pytest.mark.parametrize(
    "bad",
    [
        request(headers=()),
        request(headers=(HOST, HOST)),
        request(headers=(HOST, *GZIP)),
        request(headers=(HOST, (b"connection", b"a\x00b"))),
    ],
)
def test_a_request_that_h11_rejects_is_rejected_each_time_beside_one_like_it(bad: Request) -> None:
    for _ in range(2):
        check_with_h11(request(), (HOST,))
        with pytest.raises(RemoteProtocolError):
            check_with_h11(bad, bad.headers)


def test_a_response_that_h11_rejects_is_rejected_each_time() -> None:
    for _ in range(2):
        check_with_h11(ResponseHead(200, b"OK", ()), ())
        check_with_h11(ResponseHead(103, b"Early Hints", ()), ())
        with pytest.raises(RemoteProtocolError):
            check_with_h11(ResponseHead(200, b"OK", GZIP), GZIP)


def test_no_target_is_remembered_for_it_may_hold_a_secret() -> None:
    check_with_h11(request(b"/a?key=first"), (HOST,))
    remembered = _accept_request.cache_info().currsize
    check_with_h11(request(b"/a?key=second"), (HOST,))
    assert _accept_request.cache_info().currsize == remembered
