"""A provider as a row: how it is stored, sent from a control plane to gateways, and kept in a file.

A row is not checked: a gateway may be older than who wrote the row, and cannot use all of it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import attrs
from msgspec import Meta

from bridgepool._secret import Secret
from bridgepool.gateway.providers._fields import FIELD_NAMES, ProviderFields, in_order, plain_values
from bridgepool.gateway.providers._provider import Provider
from bridgepool.gateway.providers._provider_type import ProviderType, find_type
from bridgepool.gateway.providers._types import PROVIDER_TYPES

MAX_ROW_KEYS: Final = 64
"""The most keys of one provider in a row."""
MAX_ROW_HEADERS: Final = 64
"""The most headers of one provider in a row."""


@attrs.frozen(kw_only=True, slots=False, field_transformer=in_order)
class ProviderRow(ProviderFields):
    """One provider as its source has it; not checked yet."""

    id: str
    """Stays when it is renamed."""
    base_url: str = attrs.field(repr=False)
    keys: Annotated[tuple[Secret, ...], Meta(max_length=MAX_ROW_KEYS)] = ()
    """In order of use."""
    headers: Annotated[tuple[tuple[str, Secret], ...], Meta(max_length=MAX_ROW_HEADERS)] = ()
    unknown: Mapping[str, object] = attrs.field(factory=dict, repr=False, hash=False)
    """Fields of a newer version, which its source passes on; see `row_document`."""


def row_document(row: ProviderRow) -> dict[str, object]:
    """Return a row as it is sent: what is unknown stands beside the other fields."""
    return {**row.unknown, **{name: getattr(row, name) for name in ("id", *FIELD_NAMES)}}


def provider_from_row(row: ProviderRow, types: Iterable[ProviderType] = PROVIDER_TYPES) -> Provider:
    """Make the provider of a row.

    Raises:
        InvalidProviderError: It cannot be used.
    """
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
    )


def switched(provider: Provider, row: ProviderRow) -> Provider:
    """Return the last good form of a row that cannot be used, switched on or off as the row says.

    An operator who disables a provider wants it off, whatever else is wrong with its row.
    """
    if provider.enabled == row.enabled:
        return provider
    return attrs.evolve(provider, enabled=row.enabled)
