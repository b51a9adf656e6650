"""Another process at the same store: ``python -m tests.system.store_child URL KEYS ACTION``.

It says on standard output what it does, and where it stops it goes on with the next line of
standard input.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import attrs
import trio

from bridgepool.gateway.control._encryption import read_encryption_keys
from bridgepool.gateway.control.database import Cursor, Database, Transaction, Value, open_database
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.control.store._keyring import Keyring
from bridgepool.gateway.control.store._provider_settings import Rules
from bridgepool.gateway.control.store._schema import MIGRATIONS
from bridgepool.gateway.providers import PROVIDER_TYPES, Clients, Provider, ProviderFile
from tests.gateway.control.database.child import Child, say
from tests.system.asking import Home

T = TypeVar("T")
SEEDED = 200
"""Providers in the seed."""


@attrs.frozen
class _StoppingDatabase:
    """A database whose seeds stop in the middle, until they are told to go on."""

    _database: Database

    async def write(self, function: Callable[[Transaction], T], *, seeding: bool) -> T:
        def seed(tx: Transaction) -> T:
            stopping = _stopping(tx)
            value = function(stopping)
            if stopping.notified:
                tx.notify()
            return value

        return await self._database.write(seed, seeding=seeding)

    async def read(self, function: Callable[[Transaction], T]) -> T:
        return await self._database.read(function)


def _stopping(tx: Transaction) -> Transaction:
    inserted = 0

    def run_statement(sql: str, args: tuple[Value, ...]) -> Cursor:
        nonlocal inserted
        if sql.lstrip().startswith("INSERT INTO providers"):
            inserted += 1
            if inserted == SEEDED // 2:
                say("half")
                sys.stdin.readline()
        return tx.run_statement(sql, args)

    return Transaction(run_statement)


def seed_file(base_url: str = "https://api.openai.example/v1") -> ProviderFile:
    """Return what the seeder seeds."""
    return ProviderFile(
        tuple(
            Provider(name=f"seeded-{number}", type="openai", base_url=base_url, keys=["sk-seed"],
                     allow_private=True)
            for number in range(SEEDED)
        ),
        Clients(),
    )  # fmt: skip


async def main(*arguments: str) -> None:
    url, keys, action, base_url = arguments
    async with open_database(url, MIGRATIONS) as database:
        encryption = read_encryption_keys(Path(keys))
        store = Store(
            cast("Database", _StoppingDatabase(database)),
            Keyring(encryption),
            lambda: 1_800_000_000.0,
            Rules(5, PROVIDER_TYPES),
        )
        say("opened")
        if action == "seed":
            report = await store.seed(seed_file(base_url))
            say(f"seeded {len(report.applied)}")
        else:
            await trio.to_thread.run_sync(sys.stdin.readline)
            say("reading")
            say(str(len((await store.snapshot()).rows)))


@asynccontextmanager
async def open_store_child(home: Home, action: str, base_url: str = "") -> AsyncIterator[Child]:
    """Start one, and wait until it has opened the store."""
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, "-W", "error", "-m", "tests.system.store_child"),
            *(home.store_url, str(home.encryption_file), action, base_url),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    child = Child(process)
    try:
        with trio.fail_after(60):
            assert await child.hear() == "opened"
        yield child
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
