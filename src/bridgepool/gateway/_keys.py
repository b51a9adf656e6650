"""Client keys for the provider file."""

from __future__ import annotations

from bridgepool._secret import Secret
from bridgepool.gateway.providers import (
    Client,
    InvalidProviderError,
    hash_key,
    new_client_key,
)


class KeyInputError(ValueError):
    """The id or the key that was given cannot be used; the text repeats no key."""


def client_row(client_id: str, given: str | None = None) -> tuple[str, Secret]:
    """Make the `[[clients]]` row for a client, and its key.

    Args:
        client_id: the client's id.
        given: the key to hash, white space around it allowed; None makes a new one.

    Raises:
        KeyInputError: one of them cannot be used.
    """
    if given is not None and not given.strip():
        raise KeyInputError("there is no key on standard input")
    try:
        key = new_client_key() if given is None else Secret(given.strip())
        client = Client(id=client_id, key_hashes=(hash_key(key),))
    except (InvalidProviderError, ValueError) as error:
        raise KeyInputError(str(error)) from None
    return f'[[clients]]\nid = "{client.id}"\nkey_hash = "{client.key_hashes[0]}"', key
