"""Who may use the gateway: clients, and the hashes that are kept of their keys.

The keys are those of `bridgepool.gateway.providers._access_keys`, with the prefix ``bp``.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.providers._access_keys import CLIENT_KEYS, KeyHash, parse_hash
from bridgepool.gateway.providers._client_rules import NO_RULES, ClientRules, check_rules
from bridgepool.gateway.providers._errors import InvalidProviderError

ID_PATTERN: Final = "[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?"
"""The id of a client; also the name of a gateway or an admin."""


def new_client_key() -> Secret:
    """Make a new client key of 256 random bits. Show it once, keep `hash_key` of it."""
    return CLIENT_KEYS.new()


def hash_key(key: Secret | str) -> str:
    """Hash a client key for a provider file.

    Args:
        key: A key made by `new_client_key`. Others are refused: a fast hash is safe only for
            keys that nobody can guess.

    Raises:
        ValueError: It is no such key; the message does not repeat it.
    """
    try:
        return CLIENT_KEYS.hash(key)
    except ValueError:
        pass
    raise ValueError("this is not a bridgepool client key (bp_…); make one with new_client_key")


def check_client_id(value: str) -> None:
    """Refuse an id that no client can have; raises `InvalidProviderError`."""
    if not re.fullmatch(ID_PATTERN, value):
        raise InvalidProviderError(
            "id", "is not made of letters, digits and . _ @ - (at most 64 characters)"
        )


def _to_hashes(values: Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


@attrs.frozen(kw_only=True)
class Client:
    """A client of the gateway, with its keys.

    Raises:
        InvalidProviderError: A field is not usable; says which and why.
    """

    id: str = attrs.field()
    """Its name in logs: letters, digits and ``. _ @ -``, at most 64 characters."""
    key_hashes: tuple[str, ...] = attrs.field(converter=_to_hashes, repr=False)
    """One `hash_key` for each key that is good; two while a key is being changed."""
    rules: ClientRules = attrs.field(default=NO_RULES)
    """Its rules, with any of its keys."""
    key_rules: Mapping[str, ClientRules] = attrs.field(factory=dict, hash=False)
    """The rules of single keys, by the ids of the keys. They can only narrow `rules`."""

    @id.validator
    def _check_id(self, _: object, value: str) -> None:
        check_client_id(value)

    @key_hashes.validator
    def _check_key_hashes(self, _: object, value: tuple[str, ...]) -> None:
        if not value:
            raise InvalidProviderError("key_hashes", "is empty; a client has at least one key")
        try:
            for text in value:
                parse_hash(text)
        except ValueError as error:
            raise InvalidProviderError("key_hashes", str(error)) from None

    @rules.validator
    def _check_rules(self, _: object, value: ClientRules) -> None:
        check_rules(value)

    @key_rules.validator
    def _check_key_rules(self, _: object, value: Mapping[str, ClientRules]) -> None:
        ids = {parse_hash(text).key_id for text in self.key_hashes}
        for key_id, rules in value.items():
            if key_id not in ids:
                raise InvalidProviderError("key_rules", f"{key_id!r} is none of its keys")
            check_rules(rules)


def _same_if_none(rules: ClientRules) -> ClientRules:
    """Return `NO_RULES` itself for rules without any, which a gateway recognises at once."""
    return NO_RULES if rules == NO_RULES else rules


@attrs.frozen(cache_hash=True)  # what its rules come to is kept by it
class Caller:
    """A client that has sent a valid key, and that key."""

    client_id: str
    """The client's `id`."""
    key_id: str
    """The public part of the key it used."""
    rules: ClientRules = attrs.field(default=NO_RULES, converter=_same_if_none)
    """The rules of the client."""
    key_rules: ClientRules = attrs.field(default=NO_RULES, converter=_same_if_none)
    """The rules of this key; both apply."""


def _to_rows(values: Iterable[Client]) -> tuple[Client, ...]:
    return tuple(values)


@attrs.frozen
class Clients:
    """All clients of a gateway, indexed by their keys.

    Raises:
        InvalidProviderError: An id or a key is there twice.
    """

    rows: tuple[Client, ...] = attrs.field(default=(), converter=_to_rows)
    """The clients, in the order in which they were declared."""
    _by_key: Mapping[bytes, tuple[Caller, KeyHash]] = attrs.field(init=False, eq=False, repr=False)

    @_by_key.default
    def _index(self) -> Mapping[bytes, tuple[Caller, KeyHash]]:
        index: dict[bytes, tuple[Caller, KeyHash]] = {}
        ids: set[str] = set()
        for client in self.rows:
            if client.id in ids:
                raise InvalidProviderError("id", f"{client.id!r} is there twice")
            ids.add(client.id)
            for text in client.key_hashes:
                parsed = parse_hash(text)
                key_id = parsed.key_id.encode("ascii")
                if key_id in index:
                    raise InvalidProviderError("key_hashes", f"key {parsed.key_id} is there twice")
                key_rules = client.key_rules.get(parsed.key_id, NO_RULES)
                caller = Caller(client.id, parsed.key_id, client.rules, key_rules)
                index[key_id] = caller, parsed
        return index

    def authenticate(self, token: bytes) -> Caller | None:
        """Return the client that has this key.

        Pure, about 2 µs, and compared in constant time.

        Args:
            token: The key as the client sent it; any bytes.

        Returns:
            None if the key is unknown.
        """
        key_id = CLIENT_KEYS.id_of(token)
        found = self._by_key.get(key_id) if key_id is not None else None
        return found[0] if found is not None and found[1].matches(token) else None

    def __len__(self) -> int:
        return len(self.rows)
