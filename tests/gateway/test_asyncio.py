"""The gateway's entry points say that a program runs on asyncio."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridgepool import ChangeBus, MemoryReloader, ProviderSnapshot
from bridgepool.gateway import open_gateway
from bridgepool.gateway.control import (
    generate_encryption_key,
    open_store,
    parse_encryption_keys,
)
from bridgepool.gateway.providers import Provider, open_provider_file
from bridgepool.http import Exchange, serve_http


async def _open_a_gateway(folder: Path) -> None:
    source = MemoryReloader(ProviderSnapshot[Provider](()))
    with ChangeBus() as bus:
        async with open_gateway(source, bus.subscribe()):
            raise AssertionError("it was opened")


async def _open_a_store(folder: Path) -> None:
    keys = parse_encryption_keys(generate_encryption_key().reveal())
    async with open_store(str(folder / "a.db"), keys):
        raise AssertionError("it was opened")


async def _open_a_file(folder: Path) -> None:
    (folder / "providers.toml").write_text("providers = []")
    async with open_provider_file(folder / "providers.toml"):
        raise AssertionError("it was opened")


async def _handle(exchange: Exchange) -> None:
    raise AssertionError("nothing was served")


async def _serve(folder: Path) -> None:
    await serve_http(_handle, [])


@pytest.mark.parametrize("enter", [_open_a_gateway, _open_a_store, _open_a_file, _serve])
def test_on_asyncio_each_entry_point_says_that_this_is_asyncio(
    enter: Callable[[Path], Awaitable[None]], tmp_path: Path
) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"is asyncio; bridgepool runs on Trio: .*howto"):
            await enter(tmp_path)

    asyncio.run(main())
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".toml"] == []
