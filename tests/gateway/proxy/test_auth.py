import pytest
import trio
import trio.testing

from bridgepool.gateway.providers import (
    AuthorizationUnavailableError,
    Caller,
    Client,
    Clients,
    hash_key,
    new_client_key,
)
from bridgepool.gateway.providers._credentials import KEY_HEADERS
from bridgepool.gateway.proxy._auth import (
    FOREIGN_ORIGIN,
    FROM_A_PROXY,
    LOCAL_PROGRAMS_ONLY,
    Identity,
    ListedClients,
    identify,
)
from bridgepool.gateway.proxy._bridge import ANONYMOUS, BridgeKey
from bridgepool.gateway.proxy._refusals import NO_CLIENT_KEY, WRONG_CLIENT_KEY, Refusal, Retry
from bridgepool.gateway.serving._listening import is_loopback
from bridgepool.gateway.serving._local_programs import is_local_program
from bridgepool.http import Headers

KEY = new_client_key()
TOKEN = KEY.reveal().encode()
CLIENTS = Clients((Client(id="ada", key_hashes=(hash_key(KEY),)),))


async def ask(*headers: tuple[bytes, bytes], clients: Clients = CLIENTS) -> Identity | Refusal:
    with trio.testing.assert_no_checkpoints():
        return await identify(headers, ListedClients(lambda: clients), allow_anonymous=True)


@pytest.mark.parametrize(
    ("header", "own_key"),
    [
        ((b"authorization", b"Bearer " + TOKEN), False),
        ((b"x-api-key", TOKEN), False),
        ((b"api-key", TOKEN), False),
        ((b"x-goog-api-key", TOKEN), False),
        ((b"x-bridgepool-key", TOKEN), True),
    ],
)
async def test_a_client_is_known_by_each_of_five_headers(
    header: tuple[bytes, bytes], own_key: bool
) -> None:
    identity = await ask(header)
    assert isinstance(identity, Identity)
    assert identity.key == BridgeKey("ada", KEY.reveal().split("_")[1])
    assert identity.own_key is own_key


@pytest.mark.parametrize(
    "headers",
    [
        ((b"authorization", b"Bearer nonsense"),),
        ((b"authorization", b"Bearer " + TOKEN[:-1] + b"!"),),
        ((b"x-api-key", new_client_key().reveal().encode()),),
        ((b"x-bridgepool-key", b"wrong"), (b"authorization", b"Bearer other")),
    ],
)
async def test_every_other_key_is_refused(headers: Headers) -> None:
    assert await ask(*headers) is WRONG_CLIENT_KEY


@pytest.mark.parametrize("headers", [(), ((b"authorization", TOKEN),)])
async def test_a_request_without_a_key_is_told_where_to_put_it(headers: Headers) -> None:
    found = await ask(*headers)
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (401, "no_api_key")
    for name in KEY_HEADERS[:-1]:  # the last is for browsers only
        assert name.decode().title() in found.message


async def test_a_second_credential_does_no_harm_and_is_not_asked_about() -> None:
    class Asking(ListedClients):
        async def authorize(self, token: bytes) -> Caller | None:
            asked.append(token)
            return await super().authorize(token)

    asked: list[bytes] = []
    for other in (b"Bearer sk-ant-oat01-session", b"Basic dTpw", b"Bearer sk-old"):
        headers = ((b"authorization", other), (b"x-api-key", TOKEN))
        found = await identify(headers, Asking(lambda: CLIENTS), allow_anonymous=True)
        assert isinstance(found, Identity)
        assert not found.own_key
    assert set(asked) == {TOKEN}


async def test_a_key_that_cannot_be_checked_does_not_hide_one_that_is_known() -> None:
    class Half:
        has_clients = True

        async def authorize(self, token: bytes) -> Caller | None:
            if token == b"good":
                return Caller("ada", "k1")
            raise AuthorizationUnavailableError(1)

    headers = ((b"authorization", b"Bearer foreign"), (b"x-api-key", b"good"))
    assert isinstance(await identify(headers, Half(), allow_anonymous=False), Identity)


async def test_without_clients_a_local_program_is_let_in_with_any_key_or_none() -> None:
    for headers in ((), ((b"authorization", b"Bearer dummy"),)):
        identity = await ask((b"host", b"127.0.0.1:8080"), *headers, clients=Clients())
        assert isinstance(identity, Identity)
        assert identity.key == ANONYMOUS


async def test_without_clients_nobody_is_let_in_where_that_is_not_allowed() -> None:
    assert await identify((), ListedClients(Clients), allow_anonymous=False) is NO_CLIENT_KEY
    headers = ((b"x-api-key", b"any"),)
    found = await identify(headers, ListedClients(Clients), allow_anonymous=False)
    assert found is WRONG_CLIENT_KEY


@pytest.mark.parametrize(
    "header",
    [
        (b"host", b"rebound.example:8080"),
        (b"origin", b"https://evil.example"),
        (b"origin", b"null"),
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-site", b"Cross-Site"),
        (b"sec-fetch-site", b" CROSS-SITE "),
        (b"host", b"[::1].evil.example"),
        (b"host", b"[::1]evil.example:8080"),
        (b"host", b"[::1"),
        (b"host", b"localhost:80.evil.example"),
        (b"host", b"127.0.0.1:8080@evil.example"),
        (b"origin", b"http://[::1].evil.example"),
        (b"origin", b"http://[127.0.0.1]x:80"),
    ],
)
async def test_without_clients_a_web_page_from_elsewhere_is_refused(
    header: tuple[bytes, bytes],
) -> None:
    expected = LOCAL_PROGRAMS_ONLY if header[0] == b"host" else FOREIGN_ORIGIN
    assert await ask(header, clients=Clients()) is expected


@pytest.mark.parametrize(
    "header",
    [
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-forwarded-for", b"127.0.0.1, 2001:db8::7"),
        (b"x-forwarded-for", b"unknown"),
        (b"x-real-ip", b"192.0.2.7"),
        (b"x-forwarded-host", b"ai.example"),
        (b"forwarded", b'for="[2001:db8::7]:4711";proto=https'),
        (b"forwarded", b"for=127.0.0.1, For=192.0.2.7"),
        (b"forwarded", b"host=ai.example"),
    ],
)
async def test_without_clients_what_a_local_proxy_brings_from_elsewhere_is_refused(
    header: tuple[bytes, bytes],
) -> None:
    local = (b"host", b"127.0.0.1:8080")  # such as nginx sends by itself
    assert await ask(local, header, clients=Clients()) is FROM_A_PROXY
    assert not is_local_program((local, header))  # nor is it shown the admin port


@pytest.mark.parametrize(
    "header",
    [
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-forwarded-for", b"::1, ::ffff:127.0.0.1"),
        (b"x-forwarded-for", b""),
        (b"x-forwarded-host", b"localhost:3000"),
        (b"forwarded", b'for="[::1]:4711";host=localhost;proto=http;by=_a'),
    ],
)
async def test_without_clients_a_local_program_may_come_through_a_proxy(
    header: tuple[bytes, bytes],
) -> None:
    assert isinstance(await ask(header, clients=Clients()), Identity)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.8.8.8", "::1"])
def test_loopback_hosts_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


class Asked:
    """Knows nobody until it is asked, and then what it was told."""

    has_clients = True

    def __init__(self, answer: Caller | AuthorizationUnavailableError | None) -> None:
        self.answer = answer

    async def authorize(self, token: bytes) -> Caller | None:
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, AuthorizationUnavailableError):
            raise self.answer
        return self.answer


async def test_an_authorizer_is_asked_and_may_take_its_time() -> None:
    asked = Asked(Caller("ada", "k1"))
    with trio.testing.assert_checkpoints():
        identity = await identify(((b"x-api-key", b"any"),), asked, allow_anonymous=True)
    assert isinstance(identity, Identity)
    assert identity.key == BridgeKey("ada", "k1")
    asked.answer = None
    headers = ((b"x-api-key", b"any"),)
    assert await identify(headers, asked, allow_anonymous=True) is WRONG_CLIENT_KEY


@pytest.mark.parametrize(("after", "shown"), [(0.2, 1), (7.2, 8)])
async def test_an_authorizer_without_an_answer_is_no_refusal_of_the_key(
    after: float, shown: int
) -> None:
    asked = Asked(AuthorizationUnavailableError(after))
    found = await identify(((b"x-api-key", b"any"),), asked, allow_anonymous=True)
    assert isinstance(found, Refusal)
    assert (found.status, found.code) == (503, "authorization_unavailable")
    assert (found.retry, found.retry_after) == (Retry.SOON, shown)
