"""What the operator says about one upstream."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.providers._base_url import BaseURL, parse_base_url
from bridgepool.gateway.providers._errors import InvalidProviderError, ProviderKeyError
from bridgepool.gateway.providers._types import PROVIDER_TYPES, ProviderType

MAX_KEYS: Final = 5
"""The most keys of a provider in a file or a store, where nothing else was said."""
KEYS_LIMIT: Final = 64
"""The most keys of any provider, whatever was said; also in the protocol."""
_MAX_NAME: Final = 64
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VISIBLE_ASCII: Final = re.compile(r"[!-~]*")
_PRINTABLE_ASCII: Final = re.compile(r"[ -~]*")
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
# These are framing, routing, or another field's business.
_HEADERS_NOT_YOURS: Final = frozenset(
    {
        *("authorization", "x-api-key", "proxy-authorization", "host", "expect"),
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
        *("content-length", "transfer-encoding"),
    }
)


def _to_secrets(values: Iterable[Secret | str]) -> tuple[Secret, ...]:
    if isinstance(values, str):
        raise InvalidProviderError("keys", "is one text; write a list of keys")
    return tuple([_to_secret("keys", value) for value in values])


def _to_secret(field: str, value: Secret | str) -> Secret:
    if isinstance(value, Secret):
        return value
    if not value:
        raise InvalidProviderError(field, "has an empty value")
    return Secret(value)


def _to_headers(
    values: Mapping[str, Secret | str] | Iterable[tuple[str, Secret | str]],
) -> tuple[tuple[str, Secret], ...]:
    # A tuple is what a row has, and to find that it is no `Mapping` takes longer than the rest.
    if not isinstance(values, tuple) and isinstance(values, Mapping):
        values = values.items()
    return tuple([(name.lower(), _to_secret("headers", value)) for name, value in values])


def _to_base_url(value: BaseURL | str) -> BaseURL:
    if isinstance(value, BaseURL):
        return value
    try:
        return parse_base_url(value)
    except ValueError as error:
        raise InvalidProviderError("base_url", str(error)) from None


@attrs.frozen(kw_only=True, cache_hash=True)  # it is the key of what is open for it
class Provider:
    """One upstream: where it is, what it speaks, and whose key it is called with.

    Frozen, checked when made, and hashable. Two providers are equal exactly when one runtime
    (connections, cooldowns) can serve both; so a provider is its own fingerprint.

    A key comes from one place: `keys`, or `key_env`, or, with `client_keys`, from the client.
    With none of them the upstream is called without a key.

    Raises:
        InvalidProviderError: A field is not usable; says which and why.
    """

    name: str = attrs.field()
    """``[a-z0-9]`` words joined by ``-``: the first part of every path that goes to it."""
    type: str = attrs.field()
    """A name in `PROVIDER_TYPES`: what the upstream speaks and which routes are open."""
    base_url: BaseURL = attrs.field(converter=_to_base_url)
    """Where the upstream is. Text is taken too; see `parse_base_url`."""
    keys: tuple[Secret, ...] = attrs.field(default=(), converter=_to_secrets)
    """Keys in order of use; at most `KEYS_LIMIT`. Text is taken too."""
    key_env: str | None = attrs.field(default=None)
    """The environment variable that holds the one key; see `resolve_keys`."""
    client_keys: bool = attrs.field(default=False)
    """Whether each client brings its own key for this upstream, which is then passed on."""
    enabled: bool = attrs.field(default=True)
    """A disabled provider keeps its name and answers that it is disabled."""
    headers: tuple[tuple[str, Secret], ...] = attrs.field(default=(), converter=_to_headers)
    """Sent with every request in place of the client's own of that name: an organisation, a
    project, a gateway's second key. A mapping is taken too; the values are as good as keys."""
    allow_private: bool = attrs.field(default=False)
    """Whether its address may be inside the operator's own network; see `address_is_private`."""

    @property
    def rules(self) -> ProviderType:
        """The routes and key rules of its `type`."""
        return PROVIDER_TYPES[self.type]

    def resolve_keys(self, environ: Mapping[str, str]) -> tuple[Secret, ...]:
        """Return the keys to call the upstream with: `keys`, or the one that `key_env` names.

        Call it when a runtime is built and not before: a variable that is not set makes this
        provider unusable, and no other.

        Args:
            environ: Usually ``os.environ``.

        Raises:
            ProviderKeyError: The variable is not set, empty, or cannot be sent in a header.
        """
        if self.key_env is None:
            return self.keys
        value = environ.get(self.key_env, "").strip()
        if not value:
            raise ProviderKeyError(self.name, self.key_env, "is not set or empty")
        if not _VISIBLE_ASCII.fullmatch(value):
            raise ProviderKeyError(
                self.name, self.key_env, "has a space, a control character or one outside ASCII"
            )
        return (Secret(value),)

    @name.validator
    def _check_name(self, _: object, value: str) -> None:
        if len(value) > _MAX_NAME or not _NAME.fullmatch(value):
            raise InvalidProviderError(
                "name", f"is not [a-z0-9] words joined by '-' (at most {_MAX_NAME} characters)"
            )

    @type.validator
    def _check_type(self, _: object, value: str) -> None:
        if value not in PROVIDER_TYPES:
            known = ", ".join(sorted(PROVIDER_TYPES))
            raise InvalidProviderError("type", f"is none of the known types ({known})")

    @keys.validator
    def _check_keys(self, _: object, value: tuple[Secret, ...]) -> None:
        if len(value) > KEYS_LIMIT:
            raise InvalidProviderError("keys", f"has more than {KEYS_LIMIT} keys")
        for key in value:
            if not _VISIBLE_ASCII.fullmatch(key.reveal()):
                raise InvalidProviderError(
                    "keys", "has a key with a space, a control character or one outside ASCII"
                )
        if len(value) > 1 and len(set(value)) < len(value):
            raise InvalidProviderError("keys", "has the same key twice")

    @key_env.validator
    def _check_key_env(self, _: object, value: str | None) -> None:
        if value is None:
            return
        if self.keys:
            raise InvalidProviderError("key_env", "is given beside keys; give one of them")
        if not _VARIABLE.fullmatch(value):
            # Someone put the key itself here; so the value is not repeated.
            raise InvalidProviderError("key_env", "is not a name of an environment variable")

    @client_keys.validator
    def _check_client_keys(self, _: object, value: bool) -> None:
        if value and (self.keys or self.key_env is not None):
            raise InvalidProviderError(
                "client_keys", "is true beside keys or key_env; the key has one source"
            )

    @headers.validator
    def _check_headers(self, _: object, value: tuple[tuple[str, Secret], ...]) -> None:
        names = [name for name, _secret in value]
        if len(set(names)) < len(names):
            raise InvalidProviderError("headers", "has the same header twice")
        for name, secret in value:
            if not _HEADER_NAME.fullmatch(name):
                raise InvalidProviderError("headers", "has a name that is not a header name")
            if name in _HEADERS_NOT_YOURS or name.startswith("x-bridgepool-"):
                raise InvalidProviderError("headers", f"may not set {name}")
            text = secret.reveal()
            if text != text.strip() or not _PRINTABLE_ASCII.fullmatch(text):
                raise InvalidProviderError(
                    "headers", f"has a value of {name} that cannot be sent in a header"
                )

    @allow_private.validator
    def _check_address(self, _: object, value: bool) -> None:
        if not value and self.base_url.host_is_private:
            raise InvalidProviderError(
                "base_url",
                "is inside the operator's own network or this machine; "
                "say allow_private = true if that is meant",
            )
