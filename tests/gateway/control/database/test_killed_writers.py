"""Property: writers killed at random lose nothing that was acknowledged, on both engines."""

from __future__ import annotations

import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bridgepool.gateway.control.database import open_database
from tests.gateway.control.database.child import TABLES, count, increment, open_child

_WRITERS = st.lists(
    # After how many acknowledgements a writer is killed, and how many milliseconds later.
    st.tuples(st.integers(0, 20), st.integers(0, 5)),
    min_size=1,
    max_size=3,
)


async def _write_until_killed(url: str, acknowledged: int, delay: int) -> int:
    """Run a writer; return how many changes were acknowledged before it died."""
    async with open_child(url, "increment-on") as child:
        heard = 0
        while heard < acknowledged:
            assert await child.hear() == "written"
            heard += 1
        await trio.sleep(delay / 1000)  # real: it is to die anywhere in a write
        child.process.kill()
        return heard + len(await child.hear_to_the_end())


async def _check(url: str, writers: list[tuple[int, int]]) -> None:
    with trio.fail_after(60):
        async with open_database(url, migrations=TABLES) as database:
            before = await count(database)
            acknowledged: list[int] = []

            async def write(*writer: int) -> None:
                acknowledged.append(await _write_until_killed(url, *writer))

            async with trio.open_nursery() as nursery:
                for writer in writers:
                    nursery.start_soon(write, *writer)
            # The server may still be committing for a killed writer; this waits for its lock.
            await database.write(increment)
            made = await count(database) - before - 1
            # Of each writer, at most one change was made and not acknowledged.
            assert sum(acknowledged) <= made <= sum(acknowledged) + len(writers)


@settings(
    max_examples=6,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # what hangs would be shrunk for hours
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,  # one database for all: what counts is the difference
        HealthCheck.too_slow,  # each writer is a process
    ],
)
@given(writers=_WRITERS)
def test_writers_killed_at_random_lose_nothing_that_was_acknowledged(
    database_url: str, writers: list[tuple[int, int]]
) -> None:
    trio.run(_check, database_url, writers)
