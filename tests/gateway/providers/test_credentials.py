from typing import Any

import pytest

from bridgepool import Secret
from bridgepool.gateway.providers import PROVIDER_TYPES, Headers, Provider, new_client_key
from bridgepool.gateway.providers._credentials import (
    CLIENT_CREDENTIALS,
    find_client_tokens,
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


def test_a_clients_own_key_takes_precedence_over_the_central_one() -> None:
    both = provider(client_keys="prefer", keys=["sk-central"])
    own = [value for name, value in swap(both, Secret("sk-central"), own_key=True) if name == AUTH]
    assert own == [b"Bearer client"]
    central = dict(swap(both, Secret("sk-central")))
    assert central[b"authorization"] == b"Bearer sk-central"
    assert not central.keys() & (CLIENT_CREDENTIALS - {b"authorization"})


OURS = new_client_key().reveal().encode()
GW, AUTH, XKEY = b"x-bridgepool-key", b"authorization", b"x-api-key"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([(AUTH, b"Bearer t")], [(b"t", AUTH)]),
        ([(AUTH, b"bearer  t ")], [(b"t", AUTH)]),
        ([(XKEY, b" t ")], [(b"t", XKEY)]),
        ([(b"api-key", b"t")], [(b"t", b"api-key")]),
        ([(b"x-goog-api-key", b"t")], [(b"t", b"x-goog-api-key")]),
        ([(XKEY, b"k"), (AUTH, b"Bearer t"), (GW, b"g")], [(b"g", GW), (b"t", AUTH), (b"k", XKEY)]),
        # Only one is a key of a gateway: the others are for somebody else.
        ([(AUTH, b"Bearer own"), (GW, OURS)], [(OURS, GW)]),
        ([(AUTH, b"Bearer sk-ant-oat01-session"), (XKEY, OURS)], [(OURS, XKEY)]),
        ([(AUTH, b"Basic dTpw"), (XKEY, b"t")], [(b"t", XKEY)]),
        ([(GW, b""), (AUTH, b"Bearer t")], [(b"t", AUTH)]),
        ([(GW, b"a"), (GW, b"b"), (XKEY, b"t")], [(b"t", XKEY)]),
        ([], []),
        ([(AUTH, b"Basic dXNlcg==")], []),
        ([(AUTH, OURS)], []),
        ([(AUTH, b"Bearer")], []),
        ([(AUTH, b"Bearer  ")], []),
        ([(AUTH, b"Bearer a"), (AUTH, b"Bearer b")], []),
    ],
)
def test_where_the_clients_key_is_looked_for(
    headers: list[tuple[bytes, bytes]], found: list[tuple[bytes, bytes]]
) -> None:
    tokens = find_client_tokens(tuple(headers))
    assert [(each.token, each.header) for each in tokens] == found
    assert all(each.brings_own_key == (each.header == GW) for each in tokens)
    assert "session" not in repr(tokens)
