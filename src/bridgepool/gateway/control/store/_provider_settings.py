"""What the store keeps of a provider, and the rules by which a draft or a patch becomes one.

Pure. Whether a provider is usable is decided by making a `Provider` of it: there is one set of
rules, for files, stores and gateways alike.

A provider's fields are kept as one encrypted JSON document, but for those that have a column. A
field with a default needs no migration: a document without it is read with the default. A field
that this version does not know, since a newer one wrote the row, is kept and passed on. Only what
changes its meaning or its form needs a function in `MIGRATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import attrs
import msgspec

from bridgepool._secret import Secret, read_secret
from bridgepool.gateway.control._documents import fields_of
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    HeaderValue,
    KeyChange,
    KeyRef,
    KeyValue,
    KeyView,
    ProviderDraft,
    ProviderPatch,
)
from bridgepool.gateway.providers import KEYS_LIMIT, Provider, ProviderType
from bridgepool.gateway.providers._access_keys import new_id
from bridgepool.gateway.providers._fields import (
    FIELD_NAMES,
    PLAIN_FIELDS,
    ProviderFields,
    plain_values,
)
from bridgepool.gateway.providers._key_fingerprint import fingerprint, hint
from bridgepool.gateway.providers._provider import build_provider
from bridgepool.gateway.providers._wire import ProviderRow

Document: TypeAlias = Mapping[str, object]
Migration: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

MIGRATIONS: Final[tuple[Migration, ...]] = ()
"""Each makes of a document of one version a document of the next; the first version is 0."""
COLUMNS: Final = ("name", "type", "enabled")
"""The fields that have columns of their own."""
_MASK: Final = "***"


class StoredKey(NamedTuple):
    """A key of a provider with its id."""

    id: str
    value: Secret

    def view(self) -> KeyView:
        """Mask it."""
        return KeyView(self.id, hint(self.value), fingerprint(self.value))


@attrs.frozen(kw_only=True)
class Content(ProviderFields):
    """All that people decide about a provider, as it is stored."""

    base_url: str = attrs.field(repr=False)
    keys: tuple[StoredKey, ...] = ()
    headers: tuple[tuple[str, Secret], ...] = ()
    unknown: Mapping[str, object] = attrs.field(factory=dict, repr=False)
    """Fields of a newer version, as they are in the document."""

    def differs_in(self, other: Content) -> tuple[str, ...]:
        """Return the names of the fields in which two differ."""
        return tuple(name for name in FIELD_NAMES if getattr(self, name) != getattr(other, name))

    def masked(self) -> dict[str, Any]:
        """Return its fields as a `ProviderView` has them."""
        return _fields(self) | {
            "keys": tuple(key.view() for key in self.keys),
            "headers": {name: _MASK for name, _value in self.headers},
        }

    def seed_document(self) -> dict[str, object]:
        """Return what a seed can say of it, secrets and all, as it comes back from JSON."""
        values = {"keys": [key.value for key in self.keys]}
        return msgspec.json.decode(_to_json(_fields(self) | values), type=dict[str, object])

    def row(self, row_id: str) -> ProviderRow:
        """Return it as gateways get it."""
        return ProviderRow(
            **plain_values(self),
            id=row_id,
            base_url=self.base_url,
            keys=tuple(key.value for key in self.keys),
            headers=self.headers,
            unknown=self.unknown,
        )


def to_sealed(content: Content, migrations: Sequence[Migration] = MIGRATIONS) -> str:
    """Write what of a provider is encrypted, secrets and all."""
    document = {name: value for name, value in _fields(content).items() if name not in COLUMNS}
    version = {"version": len(migrations)} if migrations else {}
    return _to_json({**content.unknown, **document, **version}).decode()


def from_sealed(
    text: str, columns: Document, migrations: Sequence[Migration] = MIGRATIONS
) -> Content:
    """Read what `to_sealed` wrote, by this version, an older or a newer one.

    Args:
        text: The document.
        columns: The fields that have columns.
        migrations: What makes it one of this version.

    Raises:
        ValueError: This version cannot read it; says why.
    """
    try:
        document = msgspec.json.decode(text, type=dict[str, Any])
        version = msgspec.convert(document.pop("version", 0), int)
        if version > len(migrations):
            raise ValueError("it was written by a newer version of bridgepool")
        for migrate in migrations[version:]:
            document = migrate(document)
        unknown = {name: value for name, value in document.items() if name not in FIELD_NAMES}
        known = {name: value for name, value in document.items() if name in FIELD_NAMES}
        content = msgspec.convert({**known, **columns}, Content, dec_hook=read_secret)
    except (msgspec.MsgspecError, KeyError, TypeError):
        content = None
    if content is None:  # outside the handler: the error may quote a secret
        raise ValueError("it is not what this version wrote")
    return attrs.evolve(content, unknown=unknown) if unknown else content


def seed_defaults(said: Document) -> Document:
    """Return what a seed said, with the defaults of the fields that it did not know yet."""
    defaults = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in PLAIN_FIELDS.values()
        if not field.required
    }
    return defaults | {name: value for name, value in said.items() if name in FIELD_NAMES}


@attrs.frozen
class Rules:
    """What a store lets a provider be, beside what holds for all."""

    max_keys: int = attrs.field()
    """From 1 to `KEYS_LIMIT`; raises `ValueError` else."""
    types: tuple[ProviderType, ...]

    @max_keys.validator
    def _check_max_keys(self, _: object, value: int) -> None:
        if not 1 <= value <= KEYS_LIMIT:
            raise ValueError(f"max_keys is not from 1 to {KEYS_LIMIT}")

    def content_of_draft(
        self, draft: ProviderDraft, present: Content | None = None, where: str = ""
    ) -> Content:
        """Make a provider's content of a draft, or say all that is wrong with it.

        Args:
            draft: All of it.
            present: What is stored, for what the draft keeps of it.
            where: Goes before each problem.

        Raises:
            InvalidChangeError: It breaks a rule.
        """
        problems: list[str] = []
        keys = _resolve_keys(draft.keys, present.keys if present is not None else (), problems)
        kept = dict(present.headers) if present is not None else {}
        headers = _resolve_headers(draft.headers, kept, problems)
        secrets = {"keys": [key.value for key in keys], "headers": headers}
        provider, more = build_provider({**fields_of(draft), **secrets}, self.types, self.max_keys)
        if provider is None or problems:
            raise InvalidChangeError(*(where + problem for problem in (*problems, *more)))
        return Content(
            **plain_values(provider),
            base_url=str(provider.base_url),
            keys=keys,
            # Their order means nothing; in one order, equal ones are equal.
            headers=tuple(sorted(provider.headers, key=lambda header: header[0])),
            unknown=present.unknown if present is not None else {},
        )

    def content_of_patch(self, present: Content, patch: ProviderPatch) -> Content:
        """Make the content that a provider has after a patch; raises `InvalidChangeError`."""
        fields: dict[str, Any] = {**fields_of(draft_of_content(present)), **patch.fields}
        return self.content_of_draft(ProviderDraft(**fields), present)

    def content_of_provider(self, provider: Provider, present: Content | None) -> Content:
        """Make the content that a provider of a file has; raises `InvalidChangeError`."""
        keys = tuple(KeyValue(value) for value in provider.keys)
        fields = plain_values(provider)
        draft = ProviderDraft(
            **fields, base_url=str(provider.base_url), keys=keys, headers=dict(provider.headers)
        )
        return self.content_of_draft(draft, present)


def draft_of_content(content: Content) -> ProviderDraft:
    """Make the draft that keeps everything as it is, and holds no secret."""
    return ProviderDraft(
        **plain_values(content),
        base_url=content.base_url,
        keys=tuple(KeyRef(key.id) for key in content.keys),
        headers={name: None for name, _value in content.headers},
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
            problems.append("keys: this provider has no key with that id")
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


def _fields(content: Content) -> dict[str, object]:
    return {name: getattr(content, name) for name in FIELD_NAMES}


def _to_json(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=Secret.reveal)
