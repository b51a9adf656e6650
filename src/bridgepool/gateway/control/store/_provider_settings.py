"""What of a provider is encrypted, and the rules by which a draft or a patch becomes a provider.

Pure. Whether a provider is usable is decided by making a `Provider` of it: there is one set of
rules, for files, stores and gateways alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    HeaderValue,
    KeyChange,
    KeyRef,
    KeyValue,
    KeyView,
    ProviderDraft,
    ProviderPatch,
    Unset,
)
from bridgepool.gateway.providers import PROVIDER_TYPES, Provider
from bridgepool.gateway.providers._access_keys import new_id
from bridgepool.gateway.providers._fields import FIELD_NAMES
from bridgepool.gateway.providers._provider import build_provider
from bridgepool.gateway.providers._wire import ProviderRow

_LONG_KEY: Final = 20  # so that the last four characters give nothing away
MASK: Final = "***"
T = TypeVar("T")


@attrs.frozen
class StoredKey:
    """A key of a provider with its id."""

    id: str
    value: Secret

    def view(self) -> KeyView:
        """Mask it."""
        text = self.value.reveal()
        return KeyView(self.id, f"…{text[-4:]}" if len(text) >= _LONG_KEY else "…")


@attrs.frozen(kw_only=True)
class Settings:
    """The encrypted part of a provider's row."""

    base_url: str = attrs.field(repr=False)
    keys: tuple[StoredKey, ...] = ()
    key_env: str | None = None
    client_keys: bool = False
    headers: tuple[tuple[str, Secret], ...] = ()
    allow_private: bool = False

    def to_json(self) -> str:
        """Write it, secrets and all, for encryption."""
        return json.dumps(
            {
                "base_url": self.base_url,
                "keys": [[key.id, key.value.reveal()] for key in self.keys],
                "key_env": self.key_env,
                "client_keys": self.client_keys,
                "headers": [[name, value.reveal()] for name, value in self.headers],
                "allow_private": self.allow_private,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls(
            base_url=data["base_url"],
            keys=tuple(StoredKey(key_id, Secret(value)) for key_id, value in data["keys"]),
            key_env=data["key_env"],
            client_keys=data["client_keys"],
            headers=tuple((name, Secret(value)) for name, value in data["headers"]),
            allow_private=data["allow_private"],
        )


@attrs.frozen(kw_only=True)
class Content:
    """All that people decide about a provider."""

    name: str
    type: str
    enabled: bool
    settings: Settings

    def differs_in(self, other: Content) -> tuple[str, ...]:
        """Return the names of the fields in which two differ."""
        mine, others = self._fields(), other._fields()
        return tuple(name for name, value in mine.items() if value != others[name])

    def masked(self) -> dict[str, object]:
        """Return it for the audit, without secrets."""
        settings = self.settings
        return {
            "name": self.name,
            "type": self.type,
            "base_url": settings.base_url,
            "enabled": self.enabled,
            "keys": [{"id": key.id, "hint": key.view().hint} for key in settings.keys],
            "key_env": settings.key_env,
            "client_keys": settings.client_keys,
            "headers": {name: MASK for name, _value in settings.headers},
            "allow_private": settings.allow_private,
        }

    def seed_fields(self) -> dict[str, object]:
        """Return what a seed can say of it, secrets and all, for comparing."""
        fields = self._fields()
        fields["keys"] = [key.value.reveal() for key in self.settings.keys]
        fields["headers"] = [[name, value.reveal()] for name, value in self.settings.headers]
        return fields

    def row(self, row_id: str) -> ProviderRow:
        """Return it as gateways get it."""
        settings = self.settings
        return ProviderRow(
            id=row_id,
            name=self.name,
            type=self.type,
            base_url=settings.base_url,
            keys=tuple(key.value for key in settings.keys),
            key_env=settings.key_env,
            client_keys=settings.client_keys,
            enabled=self.enabled,
            headers=settings.headers,
            allow_private=settings.allow_private,
        )

    def _fields(self) -> dict[str, object]:
        settings = self.settings
        return {
            "name": self.name,
            "type": self.type,
            "base_url": settings.base_url,
            "enabled": self.enabled,
            "keys": settings.keys,
            "key_env": settings.key_env,
            "client_keys": settings.client_keys,
            "headers": settings.headers,
            "allow_private": settings.allow_private,
        }


def content_of_draft(
    draft: ProviderDraft, present: Settings | None, max_keys: int, where: str = ""
) -> Content:
    """Make a provider's content of a draft, or say what is wrong with it.

    Args:
        draft: All of it.
        present: What is stored, for what the draft keeps of it.
        max_keys: How many keys it may have.
        where: Goes before each problem.

    Raises:
        InvalidChangeError: It breaks a rule.
    """
    present_keys = present.keys if present is not None else ()
    present_headers = dict(present.headers) if present is not None else {}
    problems: list[str] = []
    keys = _resolve_keys(draft.keys, present_keys, problems)
    headers = _resolve_headers(draft.headers, present_headers, problems)
    if not problems:
        fields = {name: getattr(draft, name) for name in FIELD_NAMES}
        fields |= {"keys": [key.value for key in keys], "headers": headers}
        provider, problems = build_provider(fields, PROVIDER_TYPES, max_keys)
        if provider is not None:
            return _content(provider, keys)
    raise InvalidChangeError(*(where + problem for problem in problems))


def content_of_patch(present: Content, patch: ProviderPatch, max_keys: int) -> Content:
    """Make the content that a provider has after a patch; raises `InvalidChangeError`."""
    settings = present.settings
    draft = ProviderDraft(
        name=_or(patch.name, present.name),
        type=_or(patch.type, present.type),
        base_url=_or(patch.base_url, settings.base_url),
        keys=_or(patch.keys, tuple(KeyRef(key.id) for key in settings.keys)),
        key_env=settings.key_env if isinstance(patch.key_env, Unset) else patch.key_env,
        client_keys=_or(patch.client_keys, settings.client_keys),
        enabled=_or(patch.enabled, present.enabled),
        headers=_or(patch.headers, dict(settings.headers)),
        allow_private=_or(patch.allow_private, settings.allow_private),
    )
    return content_of_draft(draft, settings, max_keys)


def draft_of_content(content: Content) -> ProviderDraft:
    """Make the draft that keeps everything as it is, and holds no secret."""
    settings = content.settings
    return ProviderDraft(
        name=content.name,
        type=content.type,
        base_url=settings.base_url,
        keys=tuple(KeyRef(key.id) for key in settings.keys),
        key_env=settings.key_env,
        client_keys=settings.client_keys,
        enabled=content.enabled,
        headers={name: None for name, _value in settings.headers},
        allow_private=settings.allow_private,
    )


def content_of_provider(provider: Provider, present: Settings | None, max_keys: int) -> Content:
    """Make the content that a provider of a file has in the store; raises `InvalidChangeError`."""
    keys = _resolve_keys(
        [KeyValue(value) for value in provider.keys], present.keys if present else (), []
    )
    if len(keys) > max_keys:
        raise InvalidChangeError(f"keys: has more than {max_keys} keys")
    return _content(provider, keys)


def _content(provider: Provider, keys: tuple[StoredKey, ...]) -> Content:
    return Content(
        name=provider.name,
        type=provider.type,
        enabled=provider.enabled,
        settings=Settings(
            base_url=str(provider.base_url),
            keys=keys,
            key_env=provider.key_env,
            client_keys=provider.client_keys,
            # Their order means nothing; in one order, equal ones are equal.
            headers=tuple(sorted(provider.headers, key=lambda header: header[0])),
            allow_private=provider.allow_private,
        ),
    )


def _resolve_keys(
    changes: Iterable[KeyChange], present: Iterable[StoredKey], problems: list[str]
) -> tuple[StoredKey, ...]:
    by_id = {key.id: key for key in present}
    by_value = {key.value: key for key in present}
    keys: list[StoredKey] = []
    for change in changes:
        if isinstance(change, KeyValue):
            keys.append(by_value.get(change.value) or StoredKey(f"key_{new_id()}", change.value))
        elif change.id in by_id:
            keys.append(by_id[change.id])
        else:
            problems.append("keys: names an id that is no key of this provider")
    return tuple(keys)


def _resolve_headers(
    values: Mapping[str, HeaderValue], present: Mapping[str, Secret], problems: list[str]
) -> dict[str, Secret]:
    headers: dict[str, Secret] = {}
    for name, value in values.items():
        if value is None:
            value = present.get(name.lower())
        if value is None:
            problems.append("headers: keeps the value of a header that this provider has not")
        else:
            headers[name] = value
    return headers


def _or(value: T | Unset, otherwise: T) -> T:
    return otherwise if isinstance(value, Unset) else value
