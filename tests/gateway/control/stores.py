"""What the tests of the store have in common."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs

from bridgepool import Secret
from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._records import Actor, KeyChange, KeyValue, ProviderDraft
from bridgepool.gateway.control.store import Store, open_store

ADA = Actor("local", "ada")
NEW_YEAR = 1_767_225_600.0  # 2026 began then


@attrs.define(eq=False)
class Clock:
    """A clock for the store that only its test turns."""

    now: float = NEW_YEAR

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    url: str,
    keys: EncryptionKeys | None = None,
    *,
    max_keys: int = 5,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Store]:
    """Open a store whose encryption keys are those of `encryption`, unless others are given."""
    async with open_store(
        url, keys or encryption(), max_keys=max_keys, clock=clock or Clock()
    ) as store:
        yield store


def draft(
    name: str = "openai",
    *keys: str | KeyChange,
    base_url: str = "https://api.openai.example/v1",
    **more: object,
) -> ProviderDraft:
    """Make a draft; a key may be its text."""
    changes = [KeyValue(Secret(key)) if isinstance(key, str) else key for key in keys]
    row = ProviderDraft(name=name, type="openai", base_url=base_url, keys=changes)
    return attrs.evolve(row, **more)  # type: ignore[arg-type]  # any field of a draft


def encryption(*names: str) -> EncryptionKeys:
    """Make encryption keys, the first of which encrypts; the same name is the same key."""
    digests = [hashlib.sha256(name.encode()).digest() for name in names or ("one",)]
    return EncryptionKeys(Secret(base64.urlsafe_b64encode(key).decode()) for key in digests)
