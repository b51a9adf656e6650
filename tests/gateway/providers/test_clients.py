import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool import Secret
from bridgepool.gateway.providers import (
    Caller,
    Client,
    Clients,
    InvalidProviderError,
    hash_key,
    new_client_key,
)

KEY = new_client_key()
OTHER = new_client_key()
TOKEN = KEY.reveal().encode()


def test_a_new_key_has_a_public_id_and_256_random_bits() -> None:
    assert re.fullmatch(r"bp_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", KEY.reveal())
    assert KEY != OTHER


def test_a_hash_is_salted_and_shows_nothing_but_the_id() -> None:
    first, second = hash_key(KEY), hash_key(KEY.reveal())
    assert first != second
    secret = KEY.reveal().split("_", 2)[2]
    assert secret not in first
    assert KEY.reveal().split("_")[1] == first.split(":")[1]


@pytest.mark.parametrize(
    "text",
    ["hunter2", "", "bp_hunter2_x", KEY.reveal() + "\n", "\udc80"],
    ids=["word", "empty", "short", "newline", "surrogate"],
)
def test_only_keys_that_nobody_can_guess_are_hashed(text: str) -> None:
    with pytest.raises(ValueError, match="new_client_key") as caught:
        hash_key(text)
    assert "hunter2" not in str(caught.value)


def test_each_good_key_of_a_client_is_known_and_no_other() -> None:
    clients = Clients(
        [
            Client(id="alice", key_hashes=[hash_key(KEY), hash_key(OTHER)]),
            Client(id="bob@example.com", key_hashes=hash_key(new_client_key())),
        ]
    )
    assert len(clients) == 2
    assert clients.authenticate(TOKEN) == Caller("alice", TOKEN.decode().split("_")[1])
    other = clients.authenticate(OTHER.reveal().encode())
    assert other is not None
    assert other.client_id == "alice"
    assert clients.authenticate(new_client_key().reveal().encode()) is None


def test_a_right_id_with_a_wrong_secret_is_nobody() -> None:
    clients = Clients([Client(id="alice", key_hashes=hash_key(KEY))])
    for place in (-1, -20, -43):
        wrong = bytearray(TOKEN)
        wrong[place] = ord("A") if wrong[place] != ord("A") else ord("B")
        assert clients.authenticate(bytes(wrong)) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_answered(token: bytes) -> None:
    assert Clients([Client(id="alice", key_hashes=hash_key(KEY))]).authenticate(token) is None


def test_without_clients_nobody_is_known() -> None:
    assert not Clients()
    assert Clients().authenticate(TOKEN) is None


def test_clients_of_two_readings_of_one_file_are_equal_and_show_no_hashes() -> None:
    text = hash_key(KEY)
    assert Clients([Client(id="a", key_hashes=text)]) == Clients([Client(id="a", key_hashes=text)])
    assert "sha256" not in repr(Clients([Client(id="a", key_hashes=text)]))


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "-a", "a" * 65, "é"])
def test_a_client_id_is_plain(name: str) -> None:
    with pytest.raises(InvalidProviderError, match=r"^id: "):
        Client(id=name, key_hashes=hash_key(KEY))


@pytest.mark.parametrize(
    "hashes", [[], [""], ["sha256:x:y:z"], [KEY.reveal()], [hash_key(KEY), "hunter2"]]
)
def test_what_is_no_hash_is_refused_and_not_repeated(hashes: list[str]) -> None:
    with pytest.raises(InvalidProviderError, match=r"^key_hashes: ") as caught:
        Client(id="a", key_hashes=hashes)
    assert "hunter2" not in str(caught.value)
    assert KEY.reveal() not in str(caught.value)


def test_an_id_or_a_key_that_is_there_twice_is_refused() -> None:
    with pytest.raises(InvalidProviderError, match="'a' is there twice"):
        Clients([Client(id="a", key_hashes=hash_key(k)) for k in (KEY, OTHER)])
    with pytest.raises(InvalidProviderError, match=r"key .* is there twice"):
        Clients([Client(id=i, key_hashes=hash_key(KEY)) for i in ("a", "b")])


def test_a_key_may_come_as_a_secret() -> None:
    assert hash_key(Secret(KEY.reveal())).startswith("sha256:")
