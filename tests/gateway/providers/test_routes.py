import posixpath
import re
from urllib.parse import unquote_to_bytes

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridgepool.gateway.providers import (
    ANTHROPIC,
    OPENAI,
    PROVIDER_TYPES,
    ProviderType,
    Route,
    methods,
)
from bridgepool.gateway.providers._routes import split_target


@pytest.mark.parametrize(
    ("method", "path", "upstream"),
    [
        (b"POST", b"/v1/chat/completions", b"/chat/completions"),
        (b"GET", b"/v1/chat/completions/chatcmpl-1", b"/chat/completions/chatcmpl-1"),
        (b"POST", b"/v1/responses", b"/responses"),
        (b"GET", b"/v1/responses/resp_1/input_items", b"/responses/resp_1/input_items"),
        (b"POST", b"/v1/responses/resp_1/cancel", b"/responses/resp_1/cancel"),
        (b"DELETE", b"/v1/responses/resp_1", b"/responses/resp_1"),
        (b"POST", b"/v1/conversations", b"/conversations"),
        (b"GET", b"/v1/conversations/conv_1/items/i", b"/conversations/conv_1/items/i"),
        (b"GET", b"/v1/models", b"/models"),
        (b"HEAD", b"/v1/models", b"/models"),
        (b"GET", b"/v1/models/gpt-4o", b"/models/gpt-4o"),
        (b"GET", b"/v1/models/ft:gpt-4o:org::id", b"/models/ft:gpt-4o:org::id"),
        (b"GET", b"/v1/models/meta%2FLlama%203", b"/models/meta%2FLlama%203"),
        (b"GET", b"/v1/models/meta/Llama-3", b"/models/meta/Llama-3"),
        (b"GET", b"/v1/models/...", b"/models/..."),
        (b"POST", b"/v1/embeddings", b"/embeddings"),
        (b"POST", b"/v1/completions", b"/completions"),
        (b"POST", b"/v1/audio/transcriptions", b"/audio/transcriptions"),
    ],
)
def test_open_routes_of_openai(method: bytes, path: bytes, upstream: bytes) -> None:
    match = OPENAI.match(method, path)
    assert match is not None
    assert match.path == upstream


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"POST", b"/v1/messages"),
        (b"POST", b"/v1/messages/count_tokens"),
        (b"POST", b"/v1/messages/batches"),
        (b"GET", b"/v1/messages/batches"),
        (b"GET", b"/v1/messages/batches/b_1/results"),
        (b"GET", b"/v1/models"),
        (b"GET", b"/v1/models/claude-1"),
        (b"POST", b"/v1/complete"),
    ],
)
def test_open_routes_of_anthropic(method: bytes, path: bytes) -> None:
    match = ANTHROPIC.match(method, path)
    assert match is not None
    assert match.path == path


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"GET", b"/v1/chat/completions"),  # lists what all clients have stored
        (b"DELETE", b"/v1/models/ft:mine"),
        (b"GET", b"/v1/files"),
        (b"POST", b"/v1/fine_tuning/jobs"),
        (b"GET", b"/v1/organization/users"),
        (b"POST", b"/v1/batches"),
        (b"POST", b"/chat/completions"),
        (b"POST", b"/v1chat/completions"),
        (b"POST", b"/v2/chat/completions"),
        (b"post", b"/v1/chat/completions"),
        (b"POST", b"/v1/Chat/Completions"),
        (b"POST", b"/v1/chat/completions/"),
        (b"POST", b"/v1//chat/completions"),
        (b"POST", b"/v1/chat/%63ompletions"),
        (b"POST", b"/v1/chat%2Fcompletions"),
        (b"POST", b"/v1/./chat/completions"),
        (b"CONNECT", b"/v1/models"),
        (b"GET", b"/v1/models/"),
        (b"GET", b"/v1/models//a"),
        (b"GET", b"/v1/models/.."),
        (b"GET", b"/v1/models/../files"),
        (b"GET", b"/v1/models/a/../../files"),
        (b"GET", b"/v1/models/%2e%2e/files"),
        (b"GET", b"/v1/models/%2E./files"),
        (b"GET", b"/v1/models/..%2ffiles"),
        (b"GET", b"/v1/models/a%2f..%2f..%2ffiles"),
        (b"GET", b"/v1/models/a%2F%2Ffiles"),
        (b"GET", b"/v1/models/%252e%252e/files"),
        (b"GET", b"/v1/models/..;/files"),
        (b"GET", b"/v1/models/a;x=1"),
        (b"GET", b"/v1/models/a%3b"),
        (b"GET", b"/v1/models/..\\files"),
        (b"GET", b"/v1/models/..%5cfiles"),
        (b"GET", b"/v1/models/%c0%ae%c0%ae/files"),
        (b"GET", b"/v1/models/%ef%bc%8e%ef%bc%8e/files"),
        (b"GET", b"/v1/models/a%00"),
        (b"GET", b"/v1/models/a%0d%0aX"),
        (b"GET", b"/v1/models/a%"),
        (b"GET", b"/v1/models/a%2"),
        (b"GET", b"/v1/models/a%zz"),
        (b"GET", b"/v1/models/%20..%20/files"),
        (b"GET", b"/v1/models/a%3fb"),
        (b"GET", b"/v1/models/a%23b"),
        (b"GET", b"/v1/models/a#b"),
        (b"GET", b"/v1/models/\xc3\xa9"),
        (b"GET", b""),
        (b"GET", b"/"),
        (b"GET", b"/v1"),
        (b"GET", b"/v1/"),
    ],
)
def test_everything_else_is_closed(method: bytes, path: bytes) -> None:
    assert OPENAI.match(method, path) is None


def readings(path: bytes) -> set[bytes]:
    """The paths that servers of several tempers make of one path."""
    found = {path}
    for _ in range(3):
        for one in list(found):
            found.add(unquote_to_bytes(one))
            found.add(one.replace(b"\\", b"/"))
            found.add(re.sub(rb";[^/]*", b"", one))
            found.add(re.sub(rb"//+", b"/", one))
            found.add(one.partition(b"?")[0].partition(b"#")[0])
            found.add(re.sub(rb"[\x00-\x20]+(?=/|$)|(?<=/)[\x00-\x20]+", b"", one))
    return {posixpath.normpath(one) for one in found}


pieces = st.sampled_from(
    [
        b"..",
        b".",
        b"/",
        b"//",
        b"%2e",
        b"%2E",
        b"%2f",
        b"%5c",
        b"\\",
        b";",
        b"%3b",
        b"%25",
        b"a",
        b"files",
        b"%00",
        b"%20",
        b"?",
        b"#",
        b"%c0%ae",
        b"%",
        b"2e",
        b"...",
        b"models",
        b":",
    ]
)
tails = st.lists(pieces, max_size=8).map(b"".join) | st.binary(max_size=12)


@given(st.sampled_from([b"/v1/models/", b"/v1/responses/", b"/v1/models", b"/v1/"]), tails)
@example(b"/v1/models/", b"a%2f..")
def test_no_reading_of_an_open_path_leaves_its_route(start: bytes, tail: bytes) -> None:
    match = OPENAI.match(b"GET", start + tail)
    if match is None:
        return
    assert b"/v1" + match.path == start + tail
    fixed = match.route.path
    assert all(
        reading == fixed or reading.startswith(fixed + b"/") for reading in readings(match.path)
    )


@given(st.text("abcz0189-_.:~@,=", min_size=1, max_size=30).filter(lambda t: t not in (".", "..")))
def test_a_plain_id_below_an_open_subtree_is_passed_on_as_it_is(plain: str) -> None:
    path = b"/v1/responses/" + plain.encode()
    match = OPENAI.match(b"GET", path)
    assert match is not None
    assert match.path == path[3:]


@given(st.binary(max_size=20), st.binary(max_size=40))
def test_a_path_that_no_rule_names_is_closed_in_every_type(method: bytes, path: bytes) -> None:
    for kind in PROVIDER_TYPES:
        match = kind.match(method, path)
        if match is not None:
            assert path.startswith(kind.prefix + match.route.path)


def test_the_longest_subtree_decides() -> None:
    routes = (
        Route(b"/a", methods("GET"), below=methods("GET")),
        Route(b"/a/b", methods("GET"), below=methods("POST")),
    )
    kind = attrs.evolve(ANTHROPIC, routes=routes)
    assert kind.match(b"GET", b"/a/c/d") is not None
    assert kind.match(b"GET", b"/a/b/d") is None
    assert kind.match(b"POST", b"/a/b/d") is not None


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/openai/v1/models", ("openai", b"/v1/models", None)),
        (b"/openai/v1/models?", ("openai", b"/v1/models", b"")),
        (b"/openai/v1/models?a=%2e&b=?/..", ("openai", b"/v1/models", b"a=%2e&b=?/..")),
        (b"/openai", ("openai", b"", None)),
        (b"/openai?x", ("openai", b"", b"x")),
        (b"/openai/", ("openai", b"/", None)),
        (b"/%6fpenai/v1", ("%6fpenai", b"/v1", None)),
        (b"/../v1", ("..", b"/v1", None)),
    ],
)
def test_a_target_is_split_into_provider_path_and_query(
    target: bytes, parts: tuple[str, bytes, bytes | None]
) -> None:
    split = split_target(target)
    assert split is not None
    assert (split.provider, split.path, split.query) == parts


@pytest.mark.parametrize("target", [b"", b"*", b"/", b"//", b"//openai/v1", b"http://h/openai"])
@pytest.mark.parametrize("more", [b"", b"?q"])
def test_a_target_without_a_provider_is_nobodys(target: bytes, more: bytes) -> None:
    assert split_target(target + more) is None


def test_a_provider_name_outside_ascii_is_nobodys() -> None:
    assert split_target(b"/\xc3\xa9/v1") is None


@pytest.mark.parametrize(
    ("kind", "method", "path", "route_class"),
    [
        (OPENAI, b"POST", b"/v1/chat/completions", "generate"),
        (OPENAI, b"GET", b"/v1/chat/completions/chatcmpl-1", "stored"),
        (OPENAI, b"POST", b"/v1/conversations", "stored"),
        (OPENAI, b"GET", b"/v1/models/gpt", "models"),
        (OPENAI, b"POST", b"/v1/audio/speech", "media"),
        (ANTHROPIC, b"POST", b"/v1/messages", "generate"),
        (ANTHROPIC, b"POST", b"/v1/messages/batches", "stored"),
    ],
)
def test_each_route_has_the_class_of_what_fails_together(
    kind: ProviderType, method: bytes, path: bytes, route_class: str
) -> None:
    match = kind.match(method, path)
    assert match is not None
    assert match.route_class == route_class
