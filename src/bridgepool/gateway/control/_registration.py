"""The registration of a running program in the store, with the names of its encryption keys.

So `bridgepool encryption rotate` knows who would be unable to read what it encrypts anew. A store
that cannot be written does not keep a program from running: it registers when that is possible.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from bridgepool._services import open_service_nursery
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._store_access import StoreAccess
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers._key_status import KeyReport

logger = logging.getLogger("bridgepool.store")

_TIMEOUT: Final = 1.0  # seconds to register or unregister in, so that it delays nothing else
_LONGEST_RETRY: Final = 30.0  # seconds; the store of a gateway may be one that is only read


def new_program_name(name: str = "") -> str:
    """Return a name for this run of a program, with something random.

    Args:
        name: Of the program; empty for that of the machine.
    """
    return f"{(name or socket.gethostname())[:64]}-{secrets.token_hex(4)}"


@asynccontextmanager
async def registered(
    store: Store,
    program: str,
    name: str,
    *,
    interval: float = 10.0,
    report: Callable[[], KeyReport | None] = lambda: None,
    writing: StoreAccess | None = None,
) -> AsyncIterator[None]:
    """Have a program registered for as long as the block lasts.

    Args:
        store: The store that it has open.
        program: What it is, such as ``control plane``.
        name: Which run of it.
        interval: Seconds between two signs of life; see `ENDED_AFTER`.
        report: Returns what a gateway does with the providers' keys, for each of them.
        writing: Notes whether they could be written.

    Resource handling:
        Leaving unregisters it, for at most a second.
    """
    warned: set[str] = set()  # names of programs that lack the key

    async def renew() -> None:
        for other in await store.programs.register(program, name, report()):
            if other.name not in warned:
                warned.add(other.name)
                facts = {"program": other.program, "name_of_program": other.name}
                logger.warning("encryption key missing in another program", extra=facts)

    writing = writing or StoreAccess(
        "program cannot be registered in the store; it soon counts as ended there",
        "program registered in the store again",
        longest_retry=_LONGEST_RETRY,
    )
    with trio.move_on_after(_TIMEOUT):
        await writing.attempt(renew)
    async with open_service_nursery() as nursery:
        nursery.start_soon(writing.keep_trying, renew, partial(trio.sleep, interval))
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            try:
                with trio.move_on_after(_TIMEOUT, shield=True):
                    await store.programs.unregister(name)
            except StoreError as error:
                logger.debug("program not unregistered in the store", extra={"problem": str(error)})
