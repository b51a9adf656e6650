"""Provider files that tests edit, and sources that follow them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bridgepool import ProviderSnapshot
from bridgepool.gateway.providers import (
    Provider,
    ProviderFileError,
    ProviderFileSource,
    hash_key,
    new_client_key,
    open_provider_file,
)

EVENTS_ONLY = 3600.0
KEY = new_client_key()


def text(name: str, *, client: str = "alice") -> str:
    return (
        f'[[providers]]\nname = "{name}"\ntype = "openai"\nkeys = ["sk-hunter2"]\n'
        f'base_url = "https://{name}.example/v1"\n'
        f'[[clients]]\nid = "{client}"\nkey_hash = "{hash_key(KEY)}"\n'
    )


def names(snapshot: ProviderSnapshot[Provider]) -> list[str]:
    return [provider.name for provider in snapshot.providers]


async def follow_until(
    source: ProviderFileSource, done: Callable[[list[str] | ProviderFileError], bool]
) -> None:
    """Reload at each notice until the outcome is as wanted."""
    with trio.fail_after(60):
        while True:
            await source.changes.receive()
            try:
                outcome: list[str] | ProviderFileError = names(await source.reload())
            except ProviderFileError as error:
                outcome = error
            if done(outcome):
                return


async def follow_to(source: ProviderFileSource, *wanted: str) -> None:
    await follow_until(source, lambda outcome: outcome == list(wanted))


async def follow_to_error(source: ProviderFileSource, problem: str) -> None:
    await follow_until(source, lambda outcome: problem in str(outcome))


def write(file: Path, text: str) -> None:
    file.write_text(text)


def move(file: Path, to: Path) -> None:
    file.rename(to)


def remove(file: Path) -> None:
    file.unlink()


@asynccontextmanager
async def opened(
    file: Path, look_interval: float = EVENTS_ONLY
) -> AsyncIterator[ProviderFileSource]:
    async with open_provider_file(file, look_interval=look_interval, quiet_time=0.01) as source:
        assert names(await source.reload()) == ["one"]
        yield source
