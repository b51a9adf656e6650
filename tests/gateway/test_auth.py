import pytest

from bridgepool.gateway.auth import NOT_FROM_HERE, Identity, identify, is_loopback
from bridgepool.gateway.bridge import ANYONE, BridgeKey
from bridgepool.gateway.refusals import WRONG_CLIENT_KEY, Refusal
from bridgepool.http import Headers
from bridgepool.providers import Client, Clients, hash_key, new_client_key

KEY = new_client_key()
TOKEN = KEY.reveal().encode()
CLIENTS = Clients((Client(id="ada", key_hashes=(hash_key(KEY),)),))


def ask(*headers: tuple[bytes, bytes], clients: Clients = CLIENTS) -> Identity | Refusal:
    return identify(headers, clients, allow_anyone=True)


@pytest.mark.parametrize(
    ("header", "own_key"),
    [
        ((b"authorization", b"Bearer " + TOKEN), False),
        ((b"x-api-key", TOKEN), False),
        ((b"x-bridgepool-key", TOKEN), True),
    ],
)
def test_a_client_is_known_by_each_of_three_headers(
    header: tuple[bytes, bytes], own_key: bool
) -> None:
    identity = ask(header)
    assert isinstance(identity, Identity)
    assert identity.key == BridgeKey("ada", KEY.reveal().split("_")[1])
    assert identity.own_key is own_key


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"authorization", b"Bearer nonsense"),),
        ((b"authorization", TOKEN),),
        ((b"authorization", b"Bearer " + TOKEN[:-1] + b"!"),),
        ((b"x-api-key", new_client_key().reveal().encode()),),
        ((b"x-bridgepool-key", b"wrong"), (b"authorization", b"Bearer " + TOKEN)),
    ],
)
def test_every_other_key_is_refused(headers: Headers) -> None:
    assert ask(*headers) is WRONG_CLIENT_KEY


def test_without_clients_a_local_program_is_let_in_with_any_key_or_none() -> None:
    for headers in ((), ((b"authorization", b"Bearer dummy"),)):
        identity = ask((b"host", b"127.0.0.1:8080"), *headers, clients=Clients())
        assert isinstance(identity, Identity)
        assert identity.key == ANYONE


def test_without_clients_nobody_is_let_in_where_that_is_not_allowed() -> None:
    assert identify((), Clients(), allow_anyone=False) is WRONG_CLIENT_KEY


@pytest.mark.parametrize(
    "header",
    [
        (b"host", b"rebound.example:8080"),
        (b"origin", b"https://evil.example"),
        (b"origin", b"null"),
        (b"sec-fetch-site", b"cross-site"),
    ],
)
def test_without_clients_a_web_page_from_elsewhere_is_refused(header: tuple[bytes, bytes]) -> None:
    assert ask(header, clients=Clients()) is NOT_FROM_HERE


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.8.8.8", "::1"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
