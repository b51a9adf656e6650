"""Requests to providers with `include_usage`, which ask for their usage though clients did not."""

from __future__ import annotations

from typing import Final

from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._replay import ReadsBody, ReplayBudget
from bridgepool.gateway.proxy._request_body import BegunBody
from bridgepool.gateway.usage._stream_option import ask_for_usage
from bridgepool.http import get_header

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The longest request that is asked for its usage; longer ones are sent as they are."""


def wants_usage(call: Call) -> bool:
    """Return whether a request is to be asked for its usage, if it is a stream."""
    provider, kind = call.runtime.provider, call.runtime.kind
    if not (provider.include_usage and call.tells_usage) or kind.usage is None:
        return False
    paths, request = kind.usage.stream_option, call.exchange.request
    if paths is None or request.method != b"POST" or not paths.fullmatch(call.match.path):
        return False
    headers = request.headers
    length = get_header(headers, b"content-length")
    return (
        length is not None
        and int(length) <= MAX_BODY_BYTES
        and get_header(headers, b"content-encoding") is None
        and get_header(headers, b"expect") is None
    )


async def receive_asking(
    received: bytes | ReadsBody, budget: ReplayBudget
) -> tuple[bytes | ReadsBody, int, bool]:
    """Receive the whole body of a request that `wants_usage`, and have it ask for its usage.

    Args:
        received: the body, or its beginning.
        budget: what all bodies together may hold.

    Returns:
        The body as it is sent; how many bytes of the budget it holds; whether it asks for usage
        although the client's did not.
    """
    held = 0
    if isinstance(received, BegunBody):
        pieces: list[bytes] = []
        try:
            while piece := await received.receive_some():
                pieces.append(piece)
                if not budget.reserve(len(piece)):
                    received.put_back(b"".join(pieces))
                    budget.release(held)
                    return received, 0, False
                held += len(piece)
        except BaseException:
            budget.release(held)
            raise
        received = b"".join(pieces)
    asking = ask_for_usage(received) if isinstance(received, bytes) else None
    return (received, held, False) if asking is None else (asking, held, True)
