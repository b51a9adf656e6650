from __future__ import annotations

import re
import runpy
from functools import partial
from typing import Any

import trio

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.remote import open_remote_providers, open_remote_service
from tests.examples.support import EXAMPLES, ROOT, output_of
from tests.remote.rig import ROWS, Owner, row


def test_the_transport_of_the_how_to_keeps_the_contract() -> None:
    assert output_of("own_transport.py") == "the transport fulfils its contract\n"


async def test_providers_come_over_the_transport_as_its_page_shows(nursery: trio.Nursery) -> None:
    page = (ROOT / "docs" / "howto" / "write-a-transport.md").read_text(encoding="utf-8")
    snippet = page.partition("## Use it")[2]
    [snippet] = re.findall(r"^```python\n(.*?)^```", snippet, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {**runpy.run_path(str(EXAMPLES / "own_transport.py")), "Printer": None}
    exec("from __future__ import annotations\n" + snippet, names)

    source = MemoryReloader(ProviderSnapshot([row(1)]))
    changes, admit = source.subscribe(), Owner().admit
    async with open_remote_service(ROWS, source, changes, admit=admit) as service:
        serve = partial(trio.serve_tcp, partial(names["serve"], service), 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        connect = partial(names["connect"], *listener.socket.getsockname())
        async with open_remote_providers(connect, ROWS, name="front") as remote:
            assert (await remote.reload()).providers == (row(1),)
        nursery.cancel_scope.cancel()
