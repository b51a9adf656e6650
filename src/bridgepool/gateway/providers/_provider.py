"""What the operator says about one upstream."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.providers._base_url import BaseURL, parse_base_url
from bridgepool.gateway.providers._errors import InvalidProviderError, ProviderKeyError
from bridgepool.gateway.providers._fields import (
    MAX_FALLBACKS,
    NAME_LENGTH,
    NAME_PATTERN,
    PLAIN_FIELDS,
    VARIABLE_PATTERN,
    ProviderFields,
)
from bridgepool.gateway.providers._placeholders import (
    HEADER_IS_PLACEHOLDER,
    KEY_IN_QUOTES,
    KEY_IS_PLACEHOLDER,
    VARIABLE_IS_PLACEHOLDER,
    is_placeholder,
    is_quoted,
)
from bridgepool.gateway.providers._provider_type import ProviderType, find_type

MAX_KEYS: Final = 5
"""The most keys of a provider in a file or a store, where nothing else was said."""
KEYS_LIMIT: Final = 64
"""The most keys of any provider, whatever was said; also in the protocol."""
_NAME: Final = re.compile(NAME_PATTERN)
_VARIABLE: Final = re.compile(VARIABLE_PATTERN)
_BOUNDED: Final = tuple(field for field in PLAIN_FIELDS.values() if field.is_bounded)
_VISIBLE_ASCII: Final = re.compile(r"[!-~]*")
_PRINTABLE_ASCII: Final = re.compile(r"[ -~]*")
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
# They frame or route the message, or another field sets them.
_RESERVED_HEADERS: Final = frozenset(
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
    # Rows have tuples; the check for `Mapping` is slow.
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
class Provider(ProviderFields):
    """One upstream: where it is, what it speaks, and whose key it is called with.

    Frozen, checked when made, and hashable. Two providers are equal exactly when one runtime
    (connections, cooldowns) can serve both; so a provider is its own fingerprint.

    A key comes from one place: `keys`, or `key_env`, or, with `client_keys`, from the client; with
    ``client_keys="prefer"`` from the client if it brings one. With none of them the upstream is
    called without a key.

    Whether its `type` is known depends on the gateway that uses it: see `open_gateway`.

    Raises:
        InvalidProviderError: A field is not usable; says which and why.
    """

    base_url: BaseURL = attrs.field(converter=_to_base_url)
    """Where the upstream is. Text is taken too; see `parse_base_url`."""
    keys: tuple[Secret, ...] = attrs.field(default=(), converter=_to_secrets)
    """Keys in order of use; at most `KEYS_LIMIT`. Text is taken too."""
    headers: tuple[tuple[str, Secret], ...] = attrs.field(default=(), converter=_to_headers)
    """Sent with every request in place of the client's own of that name: an organisation, a
    project, a gateway's second key. A mapping is taken too; the values are as good as keys."""
    problem: str | None = None
    """Why it cannot be used, for one that stands in for a row of its source: it answers that it is
    misconfigured. None for all others."""

    def __attrs_post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem is not None:
            raise InvalidProviderError(*problem)

    def resolve_keys(self, environ: Mapping[str, str]) -> tuple[Secret, ...]:
        """Return the keys to call the upstream with: `keys`, or the one that `key_env` names.

        Call it when a runtime is built and not before: a variable that is not set makes this
        provider unusable, and no other.

        Args:
            environ: Usually ``os.environ``.

        Raises:
            ProviderKeyError: The variable is not set or empty, or what it holds is not a key.
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
        if is_placeholder(value):
            raise ProviderKeyError(self.name, self.key_env, VARIABLE_IS_PLACEHOLDER)
        if is_quoted(value):
            raise ProviderKeyError(self.name, self.key_env, f"holds {KEY_IN_QUOTES}")
        return (Secret(value),)


def without_secrets(provider: Provider) -> Provider:
    """Return a provider as a gateway holds it: a disabled one without its keys and headers."""
    return provider if provider.enabled else attrs.evolve(provider, keys=(), headers=())


def _problems(provider: Provider) -> Iterator[tuple[str, str]]:
    """Find what is wrong with a provider: field and problem, without the value."""
    if len(provider.name) > NAME_LENGTH or not _NAME.fullmatch(provider.name):
        yield (
            "name",
            f"is not [a-z0-9] words joined by '-' (at most {NAME_LENGTH} characters)",
        )
    for field in _BOUNDED:
        problem = field.problem(getattr(provider, field.name))
        if problem is not None:
            yield field.name, problem
    if provider.retries and not provider.retry_on:
        yield "retry_on", "is empty, so nothing would be retried; name failures, or set retries = 0"
    yield from _key_problems(provider)
    yield from _header_problems(provider.headers)
    yield from _fallback_problems(provider)
    if not provider.allow_private and provider.base_url.host_is_private:
        yield (
            "base_url",
            "is inside the operator's own network or this machine; "
            "say allow_private = true if that is meant",
        )


def _fallback_problems(provider: Provider) -> Iterator[tuple[str, str]]:
    names = provider.fallback
    if not all(len(name) <= NAME_LENGTH and _NAME.fullmatch(name) for name in names):
        yield "fallback", "is not a list of names of providers"
    elif len(names) > MAX_FALLBACKS:
        yield "fallback", f"has more than {MAX_FALLBACKS} names"
    elif len(set(names)) < len(names):
        yield "fallback", "has the same name twice"
    elif provider.name in names:
        yield "fallback", "has the provider itself"


def _key_problems(provider: Provider) -> Iterator[tuple[str, str]]:
    keys, key_env = provider.keys, provider.key_env
    if len(keys) > KEYS_LIMIT:
        yield "keys", f"has more than {KEYS_LIMIT} keys"
    for key in keys:
        if not _VISIBLE_ASCII.fullmatch(key.reveal()):
            yield "keys", "has a key with a space, a control character or one outside ASCII"
        elif is_placeholder(key.reveal()):
            yield "keys", KEY_IS_PLACEHOLDER
        elif is_quoted(key.reveal()):
            yield "keys", f"has {KEY_IN_QUOTES}"
    if len(keys) > 1 and len(set(keys)) < len(keys):
        yield "keys", "has the same key twice"
    if key_env is not None:
        if keys:
            yield "key_env", "is given beside keys; give one of them"
        if not _VARIABLE.fullmatch(key_env):
            # It may be the key itself, so the value is not repeated.
            yield "key_env", "is not a name of an environment variable"
    if provider.client_keys is True and (keys or key_env is not None):
        yield (
            "client_keys",
            "is true beside keys or key_env; give one source, or prefer",
        )


def _header_problems(headers: tuple[tuple[str, Secret], ...]) -> Iterator[tuple[str, str]]:
    if len({name for name, _value in headers}) < len(headers):
        yield "headers", "has the same header twice"
    for name, value in headers:
        text = value.reveal()
        if not _HEADER_NAME.fullmatch(name):
            yield "headers", "has a name that is not a header name"
        elif name in _RESERVED_HEADERS or name.startswith("x-bridgepool-"):
            yield "headers", f"may not set {name}"
        elif text != text.strip() or not _PRINTABLE_ASCII.fullmatch(text):
            yield "headers", f"has a value of {name} that cannot be sent in a header"
        elif is_placeholder(text):
            yield "headers", f"has a placeholder for {name} {HEADER_IS_PLACEHOLDER}"


# For fields that are wrong or missing. No fallback has that name.
_STAND_INS: Final = {"name": "x" * NAME_LENGTH, "type": "", "base_url": "https://a.example"}


def build_provider(
    fields: Mapping[str, Any], types: Iterable[ProviderType], max_keys: int
) -> tuple[Provider | None, list[str]]:
    """Make a provider, or find every mistake in its fields.

    Args:
        fields: The arguments of `Provider`, each of its type. One that is missing although it is
            required is not reported: its mistake is known.
        types: What it may be.
        max_keys: How many keys it may have.

    Returns:
        The provider, or None with one text for each mistake; no secrets, no base URL.
    """
    problems: list[str] = []
    if "type" in fields:
        try:
            find_type(fields["type"], types)
        except InvalidProviderError as error:
            problems.append(str(error))
    if len(fields.get("keys", ())) > max_keys:
        problems.append(f"keys: has more than {max_keys} keys")
    left = {**_STAND_INS, **fields}
    while True:
        try:
            provider = Provider(**left)
        except InvalidProviderError as error:
            # Without the wrong field the others are checked, too.
            problems.append(str(error))
            left.pop(error.field)
            if error.field in _STAND_INS:
                left[error.field] = _STAND_INS[error.field]
        else:
            return (None, problems) if problems else (provider, problems)
