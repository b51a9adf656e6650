"""A provider as a row: how it is stored, sent from a control plane to gateways, and kept in a file.

A row is not checked: a gateway may be older than who wrote the row, and cannot use all of it.
"""

from typing import Annotated, Final

import attrs
from msgspec import Meta

from bridgepool._secret import Secret
from bridgepool.gateway.providers._provider import Provider

MAX_ROW_KEYS: Final = 64
"""The most keys of one provider in a row."""
MAX_ROW_HEADERS: Final = 64
"""The most headers of one provider in a row."""


@attrs.frozen(kw_only=True)
class ProviderRow:
    """One provider as its source has it; not checked yet."""

    id: str
    """Stays when it is renamed."""
    name: str
    type: str
    base_url: str = attrs.field(repr=False)
    keys: Annotated[tuple[Secret, ...], Meta(max_length=MAX_ROW_KEYS)] = ()
    """In order of use."""
    key_env: str | None = None
    client_keys: bool = False
    enabled: bool = True
    headers: Annotated[tuple[tuple[str, Secret], ...], Meta(max_length=MAX_ROW_HEADERS)] = ()
    allow_private: bool = False


def provider_from_row(row: ProviderRow) -> Provider:
    """Make the provider of a row.

    Raises:
        InvalidProviderError: It cannot be used.
    """
    return Provider(
        name=row.name,
        type=row.type,
        base_url=row.base_url,
        keys=row.keys,
        key_env=row.key_env,
        client_keys=row.client_keys,
        enabled=row.enabled,
        headers=row.headers,
        allow_private=row.allow_private,
    )


def row_from_provider(provider: Provider) -> ProviderRow:
    """Return the row that gives this provider again; its id is its name."""
    return ProviderRow(
        id=provider.name,
        name=provider.name,
        type=provider.type,
        base_url=str(provider.base_url),
        keys=provider.keys,
        key_env=provider.key_env,
        client_keys=provider.client_keys,
        enabled=provider.enabled,
        headers=provider.headers,
        allow_private=provider.allow_private,
    )


def switched(provider: Provider, row: ProviderRow) -> Provider:
    """Return the last good form of a row that cannot be used, switched on or off as the row says.

    An operator who disables a provider wants it off, whatever else is wrong with its row.
    """
    if provider.enabled == row.enabled:
        return provider
    return attrs.evolve(provider, enabled=row.enabled)
