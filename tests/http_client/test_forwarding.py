import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.http import (
    ForwardedMode,
    Headers,
    Request,
    forward_request_headers,
    forward_response_headers,
    forward_trailers,
)

HOST = (b"host", b"upstream")
OMIT = ForwardedMode.OMIT


def request(*headers: tuple[bytes, bytes], version: bytes = b"1.1") -> Request:
    return Request(b"POST", b"/", headers, version)


def forwarded(*headers: tuple[bytes, bytes], version: bytes = b"1.1") -> Headers:
    return forward_request_headers(
        request(*headers, version=version), host=b"upstream", forwarded=OMIT
    )


def test_end_to_end_fields_keep_order_and_repetition_and_host_is_replaced() -> None:
    fields = ((b"accept", b"a"), (b"x-one", b"1"), (b"cookie", b"a=b"), (b"x-one", b"2"))
    assert forwarded((b"host", b"client.example"), *fields) == (HOST, *fields)


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"proxy-authenticate",
        b"upgrade",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"http2-settings",
        b"x-bridgepool-key",
        b"x-bridgepool-anything",
    ],
)
def test_hop_by_hop_and_reserved_fields_are_not_forwarded(name: bytes) -> None:
    assert forwarded((name, b"value"), (b"accept", b"*/*")) == (HOST, (b"accept", b"*/*"))
    assert forward_response_headers(((name, b"value"), (b"server", b"s"))) == ((b"server", b"s"),)


@pytest.mark.parametrize("listed", [b"X-Once", b"close, x-once", b" x-once ,keep-alive", b"x-once"])
def test_a_field_that_connection_names_is_not_forwarded(listed: bytes) -> None:
    fields = ((b"connection", listed), (b"x-once", b"1"), (b"x-kept", b"2"))
    assert forwarded(*fields) == (HOST, (b"x-kept", b"2"))
    assert forward_response_headers(fields) == ((b"x-kept", b"2"),)


@pytest.mark.parametrize(
    "name", [b"content-length", b"content-type", b"authorization", b"cookie", b"cache-control"]
)
def test_connection_cannot_remove_end_to_end_fields(name: bytes) -> None:
    fields = ((b"connection", name), (name, b"7"))
    assert forwarded(*fields) == (HOST, (name, b"7"))
    assert forward_response_headers(fields) == ((name, b"7"),)


def test_connection_cannot_remove_host_or_forwarded() -> None:
    fields = (
        (b"host", b"client.example"),
        (b"connection", b"host, x-forwarded-for, forwarded"),
        (b"x-forwarded-for", b"192.0.2.7"),
    )
    out = forward_request_headers(
        request(*fields), host=b"upstream", client="192.0.2.9:1", forwarded=ForwardedMode.APPEND
    )
    assert HOST in out
    assert (b"x-forwarded-for", b"192.0.2.7, 192.0.2.9") in out


def test_content_length_is_dropped_from_chunked_messages() -> None:
    fields = ((b"transfer-encoding", b"chunked"), (b"content-length", b"5"), (b"a", b"b"))
    assert forwarded(*fields) == (HOST, (b"a", b"b"))
    assert forward_response_headers(fields) == ((b"a", b"b"),)


def test_trailer_is_forwarded_only_with_a_chunked_body() -> None:
    trailer = (b"trailer", b"x-sum")
    chunked = (b"transfer-encoding", b"chunked")
    assert forwarded(trailer, chunked) == (HOST, trailer)
    assert forwarded(trailer, (b"content-length", b"5")) == (HOST, (b"content-length", b"5"))
    assert forward_response_headers((trailer, chunked)) == (trailer,)


@pytest.mark.parametrize(
    ("value", "kept"),
    [(b"trailers", True), (b"gzip;q=0.5, Trailers", True), (b"gzip", False), (b"", False)],
)
def test_te_is_forwarded_as_trailers_only_with_its_connection_option(
    value: bytes, kept: bool
) -> None:
    expected = (HOST, (b"te", b"trailers"), (b"connection", b"te")) if kept else (HOST,)
    assert forwarded((b"te", value), (b"connection", b"te")) == expected


@pytest.mark.parametrize(
    ("fields", "version", "kept"),
    [
        (((b"content-length", b"5"),), b"1.1", True),
        (((b"transfer-encoding", b"chunked"),), b"1.1", True),
        (((b"content-length", b"0"),), b"1.1", False),
        ((), b"1.1", False),
        (((b"content-length", b"5"),), b"1.0", False),
    ],
)
def test_expect_is_forwarded_for_a_body_of_an_http_1_1_client(
    fields: Headers, version: bytes, kept: bool
) -> None:
    out = forwarded((b"expect", b"100-Continue"), *fields, version=version)
    assert ((b"expect", b"100-continue") in out) is kept


def test_an_unknown_expectation_is_not_forwarded() -> None:
    assert forwarded((b"expect", b"magic"), (b"content-length", b"5")) == (
        HOST,
        (b"content-length", b"5"),
    )


def test_the_names_in_drop_are_removed_in_both_directions() -> None:
    fields = ((b"authorization", b"Bearer secret"), (b"accept", b"*/*"))
    drop = frozenset({b"authorization"})
    out = forward_request_headers(request(*fields), host=b"upstream", forwarded=OMIT, drop=drop)
    assert out == (HOST, (b"accept", b"*/*"))
    assert forward_response_headers(fields, drop=drop) == ((b"accept", b"*/*"),)


def test_via_is_added_if_a_name_is_given() -> None:
    out = forward_request_headers(
        request((b"via", b"1.0 first"), version=b"1.0"), host=b"h", forwarded=OMIT, via=b"pool"
    )
    assert out == ((b"host", b"h"), (b"via", b"1.0 first"), (b"via", b"1.0 pool"))
    assert forward_response_headers((), via=b"pool") == ((b"via", b"1.1 pool"),)


CLAIMS = (
    (b"host", b"api.example:8080"),
    (b"forwarded", b"for=203.0.113.5"),
    (b"x-forwarded-for", b"203.0.113.5"),
    (b"x-forwarded-for", b"203.0.113.6"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"public.example"),
    (b"x-real-ip", b"203.0.113.5"),
)


def told(mode: ForwardedMode, *fields: tuple[bytes, bytes], client: str) -> dict[bytes, bytes]:
    out = forward_request_headers(
        request(*fields), host=b"upstream", client=client, scheme="http", forwarded=mode
    )
    assert len(dict(out)) == len(out)
    return {name: value for name, value in out if name != b"host"}


def test_replace_describes_the_connection_and_drops_the_clients_claims() -> None:
    assert told(ForwardedMode.REPLACE, *CLAIMS, client="192.0.2.1:5000") == {
        b"forwarded": b'for=192.0.2.1;host="api.example:8080";proto=http',
        b"x-forwarded-for": b"192.0.2.1",
        b"x-forwarded-host": b"api.example:8080",
        b"x-forwarded-proto": b"http",
    }


def test_append_continues_the_clients_claims() -> None:
    assert told(ForwardedMode.APPEND, *CLAIMS, client="192.0.2.1:5000") == {
        b"forwarded": b'for=203.0.113.5, for=192.0.2.1;host="api.example:8080";proto=http',
        b"x-forwarded-for": b"203.0.113.5, 203.0.113.6, 192.0.2.1",
        b"x-forwarded-host": b"public.example",
        b"x-forwarded-proto": b"https",
        b"x-real-ip": b"203.0.113.5",
    }


def test_omit_sends_nothing_about_the_client() -> None:
    assert told(OMIT, *CLAIMS, client="192.0.2.1:5000") == {}


@pytest.mark.parametrize(
    ("client", "node", "address"),
    [
        ("[2001:db8::1]:443", b'"[2001:db8::1]"', b"2001:db8::1"),
        ("", b"unknown", b"unknown"),
    ],
)
def test_a_client_address_is_written_in_the_form_of_each_field(
    client: str, node: bytes, address: bytes
) -> None:
    fields = told(ForwardedMode.REPLACE, (b"host", b"api"), client=client)
    assert fields[b"forwarded"] == b"for=" + node + b";host=api;proto=http"
    assert fields[b"x-forwarded-for"] == address


def test_a_host_that_could_break_out_of_its_quotes_is_omitted() -> None:
    fields = told(ForwardedMode.REPLACE, (b"host", b'a";for=1.2.3.4'), client="192.0.2.1:1")
    assert fields == {
        b"forwarded": b"for=192.0.2.1;proto=http",
        b"x-forwarded-for": b"192.0.2.1",
        b"x-forwarded-proto": b"http",
    }


def test_trailers_that_frame_route_or_authenticate_are_not_forwarded() -> None:
    bad = [b"content-length", b"host", b"authorization", b"set-cookie", b"x-bridgepool-id"]
    bad += [b"transfer-encoding", b"content-type", b"trailer", b"x-real-ip"]
    good = (b"x-checksum", b"abc")
    assert forward_trailers((*((name, b"1") for name in bad), good)) == (good,)


NAMES = st.sampled_from(
    [
        b"host",
        b"connection",
        b"content-length",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"expect",
        b"upgrade",
        b"keep-alive",
        b"x-bridgepool-key",
        b"x-forwarded-for",
        b"forwarded",
        b"x-one",
        b"x-two",
        b"accept",
    ]
)
VALUES = st.one_of(
    st.sampled_from([b"close", b"x-one", b"te, x-two", b"chunked", b"trailers", b"100-continue"]),
    st.binary(max_size=8).filter(lambda value: not set(value) & {0, 10, 13}),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12).map(tuple)


@given(FIELDS, st.sampled_from(ForwardedMode), st.sampled_from([b"1.0", b"1.1"]))
def test_whatever_a_client_sends_nothing_about_its_connection_reaches_the_upstream(
    fields: Headers, mode: ForwardedMode, version: bytes
) -> None:
    out = forward_request_headers(
        request(*fields, version=version), host=b"upstream", client="192.0.2.1:1", forwarded=mode
    )
    names = [name for name, _ in out]
    assert names.count(b"host") == 1
    assert HOST in out
    assert not {b"transfer-encoding", b"upgrade", b"keep-alive"} & set(names)
    assert not any(name.startswith(b"x-bridgepool-") for name in names)
    assert [value for name, value in out if name == b"connection"] in ([], [b"te"])
    if any(name == b"transfer-encoding" for name, _ in fields):
        assert b"content-length" not in names
    if mode is OMIT:
        assert not {b"forwarded", b"x-forwarded-for"} & set(names)
    untouched = (b"x-one", b"x-two", b"accept")
    assert [f for f in out if f[0] in untouched] == [
        f
        for f in fields
        if f[0] in untouched
        and not any(
            n == b"connection" and f[0] in [m.strip(b" \t").lower() for m in v.split(b",")]
            for n, v in fields
        )
    ]


@given(FIELDS)
def test_forwarding_a_response_twice_changes_nothing_more(fields: Headers) -> None:
    once = forward_response_headers(fields)
    assert forward_response_headers(once) == tuple(f for f in once if f[0] != b"trailer")
