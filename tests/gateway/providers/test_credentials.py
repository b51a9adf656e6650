from typing import Any

import pytest

from bridgepool import Secret
from bridgepool.gateway.providers import (
    CLIENT_CREDENTIALS,
    PROVIDER_TYPES,
    Headers,
    Provider,
    find_client_token,
    swap_credentials,
)
from bridgepool.gateway.providers._provider_type import find_type

CLIENTS_OWN: Headers = (
    (b"host", b"gateway"),
    (b"authorization", b"Bearer client"),
    (b"x-api-key", b"client"),
    (b"api-key", b"client"),
    (b"x-goog-api-key", b"client"),
    (b"proxy-authorization", b"Basic client"),
    (b"cookie", b"session=client"),
    (b"openai-organization", b"org-client"),
    (b"openai-project", b"proj-client"),
    (b"x-bridgepool-key", b"client"),
    (b"accept", b"*/*"),
)


def swap(made: Provider, key: Secret | None, *, own_key: bool = False) -> Headers:
    kind = find_type(made.type, PROVIDER_TYPES)
    return swap_credentials(CLIENTS_OWN, made, kind, key, own_key=own_key)


def provider(kind: str = "openai", **more: Any) -> Provider:
    return Provider(**{"name": "p", "type": kind, "base_url": "https://p.example/v1", **more})


@pytest.mark.parametrize(
    ("kind", "header"),
    [("openai", (b"authorization", b"Bearer sk-1")), ("anthropic", (b"x-api-key", b"sk-1"))],
)
def test_the_providers_key_takes_the_place_of_all_the_clients_credentials(
    kind: str, header: tuple[bytes, bytes]
) -> None:
    sent = swap(provider(kind, keys=["sk-1"]), Secret("sk-1"))
    assert sent == ((b"host", b"gateway"), (b"accept", b"*/*"), header)


def test_without_a_key_the_clients_credentials_are_taken_out_all_the_same() -> None:
    assert swap(provider(), None) == (
        (b"host", b"gateway"),
        (b"accept", b"*/*"),
    )
    assert {name for name, _ in CLIENTS_OWN} - CLIENT_CREDENTIALS == {b"host", b"accept"}


def test_fixed_headers_replace_the_clients() -> None:
    made = provider(headers={"OpenAI-Organization": "org-ours", "Accept": "text/plain"})
    sent = swap(made, Secret("sk-1"))
    assert sent == (
        (b"host", b"gateway"),
        (b"authorization", b"Bearer sk-1"),
        (b"openai-organization", b"org-ours"),
        (b"accept", b"text/plain"),
    )


def test_a_clients_own_key_is_passed_on_only_to_a_provider_that_takes_it() -> None:
    taking = provider(client_keys=True)
    sent = dict(swap(taking, None, own_key=True))
    assert sent[b"authorization"] == b"Bearer client"
    assert sent[b"openai-organization"] == b"org-client"
    assert not sent.keys() & {b"x-bridgepool-key", b"cookie", b"proxy-authorization"}
    for made, own_key in [(taking, False), (provider(), True)]:
        kept = dict(swap(made, None, own_key=own_key))
        assert not kept.keys() & CLIENT_CREDENTIALS


@pytest.mark.parametrize(
    ("headers", "token", "header"),
    [
        ([(b"authorization", b"Bearer t")], b"t", b"authorization"),
        ([(b"authorization", b"bearer  t ")], b"t", b"authorization"),
        ([(b"x-api-key", b" t ")], b"t", b"x-api-key"),
        ([(b"x-api-key", b"k"), (b"authorization", b"Bearer t")], b"t", b"authorization"),
        (
            [(b"authorization", b"Bearer own"), (b"x-bridgepool-key", b"t")],
            b"t",
            b"x-bridgepool-key",
        ),
    ],
)
def test_where_the_clients_key_is_taken_from(
    headers: list[tuple[bytes, bytes]], token: bytes, header: bytes
) -> None:
    found = find_client_token(tuple(headers))
    assert found is not None
    assert (found.token, found.header) == (token, header)
    assert found.brings_own_key == (header == b"x-bridgepool-key")
    assert "token" not in repr(found)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Basic dXNlcg==")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer  ")],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        [(b"x-bridgepool-key", b""), (b"authorization", b"Bearer t")],
        [(b"x-bridgepool-key", b"a"), (b"x-bridgepool-key", b"b")],
        [(b"x-goog-api-key", b"a")],
    ],
)
def test_no_key_or_one_that_is_not_plain_is_no_token(headers: list[tuple[bytes, bytes]]) -> None:
    assert find_client_token(tuple(headers)) is None
