from __future__ import annotations

import pytest

from bridgepool.gateway.serving._peer import find_peer_behind

PROXY = "10.0.0.1:4000"


@pytest.mark.parametrize(
    ("connection", "forwarded", "peer"),
    [
        (PROXY, [b"192.0.2.7"], "192.0.2.7:0"),
        (PROXY, [b"192.0.2.7:5000"], "192.0.2.7:0"),
        (PROXY, [b"2001:db8::1"], "[2001:db8::1]:0"),
        (PROXY, [b"[2001:db8::1]:80"], "[2001:db8::1]:0"),
        (PROXY, [b"::ffff:192.0.2.7"], "192.0.2.7:0"),
        # What stands before a stranger's address is a stranger's word.
        (PROXY, [b"1.2.3.4, 192.0.2.7"], "192.0.2.7:0"),
        (PROXY, [b"1.2.3.4", b"192.0.2.7 , 10.0.0.9"], "192.0.2.7:0"),
        (PROXY, [b"10.0.0.8, 10.0.0.9"], "10.0.0.8:0"),
        (PROXY, [b"192.0.2.7, unknown"], PROXY),
        (PROXY, [b"unknown, 10.0.0.9"], "10.0.0.9:0"),
        (PROXY, [], PROXY),
        (PROXY, [b""], PROXY),
        ("[::ffff:10.0.0.1]:4000", [b"192.0.2.7"], "192.0.2.7:0"),
        # Of anybody else the field counts for nothing.
        ("192.0.2.9:4000", [b"1.2.3.4"], "192.0.2.9:4000"),
        ("", [b"1.2.3.4"], ""),
    ],
)
def test_the_peer_is_the_last_address_that_is_no_proxy(
    connection: str, forwarded: list[bytes], peer: str
) -> None:
    find = find_peer_behind(["10.0.0.0/8"])
    assert find is not None
    headers = tuple((b"x-forwarded-for", value) for value in forwarded)
    assert find(headers, connection) == peer


def test_a_very_long_list_is_read_from_its_end() -> None:
    find = find_peer_behind(["10.0.0.0/8"])
    assert find is not None
    many = b"1.2.3.4, " * 100 + b"10.0.0.2, " * 40
    assert find(((b"x-forwarded-for", many + b"10.0.0.3"),), PROXY) == "10.0.0.2:0"


def test_without_proxies_nothing_is_read() -> None:
    assert find_peer_behind([]) is None
