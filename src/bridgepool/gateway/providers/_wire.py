"""A provider as a row: how it is stored, sent from a control plane to gateways, and kept in a file.

A row is not checked: a gateway may be older than who wrote the row, and cannot use all of it.

A row of a disabled provider holds no secret, so none is sent, written to a file, or kept by a
gateway. Enabling it sends them.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import attrs
from msgspec import Meta

from bridgepool._secret import Secret
from bridgepool.gateway.providers._base_url import parse_base_url
from bridgepool.gateway.providers._errors import InvalidProviderError, UnreadableProviderError
from bridgepool.gateway.providers._fields import (
    FIELD_NAMES,
    PLAIN_FIELDS,
    ProviderFields,
    in_order,
    plain_values,
)
from bridgepool.gateway.providers._provider import KEYS_LIMIT, Provider
from bridgepool.gateway.providers._provider_type import ProviderType, find_type
from bridgepool.gateway.providers._types import PROVIDER_TYPES

MAX_ROW_HEADERS: Final = 64
"""The most headers of one provider in a row."""
ALWAYS_SENT: Final = frozenset(
    {
        *("name", "type", "base_url", "keys", "key_env", "client_keys"),
        *("enabled", "headers", "allow_private"),
    }
)
"""The fields that every row has beside its id. Others are sent only with another value than their
default, so that a row does not grow with what its provider does not use."""
_NOWHERE: Final = parse_base_url("https://unusable.invalid")  # RFC 2606: it never resolves


@attrs.frozen(kw_only=True, slots=False, field_transformer=in_order)
class ProviderRow(ProviderFields):
    """One provider as its source has it; not checked yet.

    With `enabled` false it drops what may be secret: `keys`, `headers` and `unknown`.
    """

    id: str
    """Stays when it is renamed."""
    base_url: str = attrs.field(repr=False)
    keys: Annotated[tuple[Secret, ...], Meta(max_length=KEYS_LIMIT)] = ()
    """In order of use."""
    headers: Annotated[tuple[tuple[str, Secret], ...], Meta(max_length=MAX_ROW_HEADERS)] = ()
    problem: str | None = None
    """Why its source cannot read it: then only its id, name, type and `enabled` hold."""
    unknown: Mapping[str, object] = attrs.field(factory=dict, repr=False, hash=False)
    """Fields of a newer version, which its source passes on; see `row_document`."""

    def __attrs_post_init__(self) -> None:
        if not self.enabled:  # frozen, and this is still its making
            object.__setattr__(self, "keys", ())
            object.__setattr__(self, "headers", ())
            object.__setattr__(self, "unknown", {})


def row_document(row: ProviderRow) -> dict[str, object]:
    """Return a row as it is sent: what is unknown stands beside the other fields."""
    known = {
        name: value
        for name, value in ((name, getattr(row, name)) for name in FIELD_NAMES)
        if name in ALWAYS_SENT or value != PLAIN_FIELDS[name].default
    }
    document: dict[str, object] = {**row.unknown, "id": row.id, **known}
    return document if row.problem is None else {**document, "problem": row.problem}


def provider_from_row(row: ProviderRow, types: Iterable[ProviderType] = PROVIDER_TYPES) -> Provider:
    """Make the provider of a row.

    Raises:
        InvalidProviderError: It cannot be used.
        UnreadableProviderError: Its source cannot read it.
    """
    if row.problem is not None:
        raise UnreadableProviderError(row.problem)
    find_type(row.type, types)
    return Provider(**plain_values(row), base_url=row.base_url, keys=row.keys, headers=row.headers)


def row_from_provider(provider: Provider) -> ProviderRow:
    """Return the row that gives this provider again; its id is its name."""
    return ProviderRow(
        **plain_values(provider),
        id=provider.name,
        base_url=str(provider.base_url),
        keys=provider.keys,
        headers=provider.headers,
        problem=provider.problem,
    )


def kept(last: Provider, row: ProviderRow) -> Provider | None:
    """Return the last good form of a row that cannot be used; None if either is disabled.

    An operator who disables a provider wants it off, whatever else is wrong with its row, and its
    keys forgotten. A form that was disabled has none to serve with.
    """
    return last if last.enabled and row.enabled else None


def stand_in(name: str, row: ProviderRow | None, reason: str) -> Provider | None:
    """Return a provider that answers for a row that cannot be used; None if none can be asked for.

    Args:
        name: The name of the row.
        row: The row; None if it cannot be read.
        reason: Why it cannot be used.
    """
    try:
        return Provider(
            name=name,
            type=row.type if row is not None else "",
            enabled=row is None or row.enabled,
            base_url=_NOWHERE,
            problem=reason,
        )
    except InvalidProviderError:
        return None
