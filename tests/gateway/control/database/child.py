"""Another process at the same database.

Run as ``python -m tests.gateway.control.database.child URL ACTION``.

It says on standard output what it does, and where it stops it goes on with the next line of
standard input.
"""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bridgepool.gateway.control.database import Database, Transaction, open_database

TABLES = (
    ("CREATE TABLE counter (n BIGINT NOT NULL)", "INSERT INTO counter VALUES (0)"),
    ("CREATE TABLE parts (n INTEGER PRIMARY KEY)", "CREATE INDEX parts_n ON parts (n)"),
)


def say(word: str) -> None:
    print(word, flush=True)


def increment(tx: Transaction) -> None:
    row = tx.fetch_one("SELECT n FROM counter")
    assert row is not None
    tx.execute("UPDATE counter SET n = ?", row[0] + 1)
    tx.notify()


async def count(database: Database) -> int:
    """Return how often a database was incremented."""
    row = await database.read(lambda tx: tx.fetch_one("SELECT n FROM counter"))
    assert row is not None
    number: int = row[0]
    return number


def parts(tx: Transaction) -> int:
    row = tx.fetch_one("SELECT COUNT(*) FROM parts")
    assert row is not None
    count: int = row[0]
    return count


def slow_seed(tx: Transaction) -> None:
    tx.execute("INSERT INTO parts VALUES (1)")
    say("half")
    sys.stdin.readline()
    tx.execute("INSERT INTO parts VALUES (2)")


async def act(database: Database, action: str) -> None:
    match action:
        case "increment":
            for _ in range(50):
                await database.write(increment)
        case "increment-on":
            while True:
                await database.write(increment)
                say("written")
        case "seed" | "write":
            await database.write(slow_seed, seeding=action == "seed")
        case "read":
            say("reading")
            say(str(await database.read(parts)))
        case "seed-if-empty":
            await database.write(
                lambda tx: (
                    parts(tx) or [tx.execute("INSERT INTO parts VALUES (?)", n) for n in (1, 2)]
                ),
                seeding=True,
            )
        case "listen":
            with database.subscribe() as changes:
                say("listening")
                while True:
                    await changes.receive()
                    say(str(await count(database)))


async def main(url: str, action: str) -> None:
    if action == "read":
        say("opening")
    async with open_database(url, migrations=TABLES) as database:
        await act(database, action)
    say("done")


class Child:
    """The parent's end of it."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self.process = process
        self._input = process.stdin
        self._output = process.stdout
        self._rest = b""

    async def hear(self) -> str:
        """Return the next word that it says; empty when it has ended."""
        while b"\n" not in self._rest:
            more = await self._output.receive_some()
            if not more:
                return ""
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def hear_to_the_end(self) -> list[str]:
        """Return the words that it says until it ends."""
        words = []
        while word := await self.hear():
            words.append(word)
        await self.process.wait()
        return words

    async def go_on(self) -> None:
        """Let it go on."""
        await self._input.send_all(b"\n")


@asynccontextmanager
async def open_child(url: str, action: str) -> AsyncIterator[Child]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", "-m", "tests.gateway.control.database.child", url, action],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    )
    try:
        yield Child(process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
