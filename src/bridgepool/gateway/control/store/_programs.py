"""The running programs that have the store open, with the names of their encryption keys.

A program registers when it starts, and again every few seconds; it unregisters when it ends. One
that was killed counts as running for `ENDED_AFTER` seconds. That goes by the clocks of the
machines, which have to agree within half of it. No change here moves the revision.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import attrs

from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control.database import Codec, Table, time_to_text
from bridgepool.gateway.control.store._gateway_rows import KEY_REPORT
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers._key_status import KeyReport

T = TypeVar("T")

ENDED_AFTER: Final = 60.0
"""Seconds after which a program that has not registered again counts as ended."""


@attrs.frozen(kw_only=True)
class RunningProgram:
    """A running program that has the store open."""

    name: str
    """Of this run of it."""
    program: str
    """``control plane``, or ``gateway``."""
    keys: tuple[str, ...]
    """The names of its encryption keys."""
    last_contact: datetime
    provider_keys: KeyReport | None = None
    """What a gateway did with the providers' keys then; None if it reported nothing."""


PROGRAMS: Final = Table(
    "programs",
    RunningProgram,
    key="name",
    codecs={
        "keys": Codec(json.dumps, lambda text: tuple(json.loads(text))),
        "provider_keys": KEY_REPORT,
    },
)


class Run(Protocol):
    """Runs a function in a transaction."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> Awaitable[T]:
        """Run it; a checkpoint."""
        ...


@attrs.frozen
class Programs:
    """The running programs of a store; see `Store.programs`. Every method is a checkpoint."""

    _read: Run
    _write: Run

    async def register(
        self, program: str, name: str, provider_keys: KeyReport | None = None
    ) -> tuple[RunningProgram, ...]:
        """Note that a program runs; return those that lack the key that encrypts here.

        Args:
            program: What it is, such as ``control plane``.
            name: Which run of it.
            provider_keys: What a gateway does with the providers' keys.
        """
        return await self._write(_register, program, name, provider_keys)

    async def unregister(self, name: str) -> None:
        """Note that a program has ended."""
        await self._write(_unregister, name)

    async def list_running(self) -> tuple[RunningProgram, ...]:
        """Return the running programs, by kind and name."""
        return await self._read(_list_running)

    async def check_keys(self) -> None:
        """Refuse to do without the old keys while a running program lacks the new one.

        Raises:
            EncryptionError: One does; names it.
        """
        await self._read(_check)


def _register(
    tx: StoreTransaction, program: str, name: str, provider_keys: KeyReport | None
) -> tuple[RunningProgram, ...]:
    row = RunningProgram(
        name=name,
        program=program,
        keys=tx.encryption.names,
        last_contact=tx.now,
        provider_keys=provider_keys,
    )
    PROGRAMS.upsert(tx.sql, row)
    tx.sql.execute("DELETE FROM programs WHERE last_contact < ?", _limit(tx))
    return _lacking(tx)


def _unregister(tx: StoreTransaction, name: str) -> None:
    tx.sql.execute("DELETE FROM programs WHERE name = ?", name)


def _list_running(tx: StoreTransaction) -> tuple[RunningProgram, ...]:
    return tuple(
        PROGRAMS.select(tx.sql, "WHERE last_contact >= ? ORDER BY program, name", _limit(tx))
    )


def _lacking(tx: StoreTransaction) -> tuple[RunningProgram, ...]:
    return tuple(row for row in _list_running(tx) if tx.encryption.current not in row.keys)


def _check(tx: StoreTransaction) -> None:
    found = _lacking(tx)
    if found:
        names = ", ".join(f"{row.program} {row.name}" for row in found)
        raise EncryptionError(
            f"the old encryption keys are still needed: the key {tx.encryption.current} is missing "
            f"in {names}. Add it to the encryption keys there, and send SIGHUP; a program that was "
            f"killed counts as running for {ENDED_AFTER:g} s"
        )


def _limit(tx: StoreTransaction) -> str:
    return time_to_text(tx.now - timedelta(seconds=ENDED_AFTER))
