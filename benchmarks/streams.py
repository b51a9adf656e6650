"""The CPU that streamed answers of twenty chunks cost a gateway."""

import time
from collections.abc import Iterable
from typing import Final

import trio

from benchmarks.load import Ask, Target, cpu_seconds, request_bytes
from benchmarks.upstream import END

_CONNECTIONS: Final = 8
_ROUNDS: Final = 12
_SECONDS: Final = 1.0


def stream_cpu_in_turn(asked: Iterable[tuple[Target, Ask]]) -> list[list[float]]:
    """Read streams of gateways in turn, with one more round to warm up.

    Returns:
        For each of `asked` the microseconds of CPU for one stream, one figure per round.
    """
    turns = [(target, ask, list[float]()) for target, ask in asked]
    for number in range(-1, _ROUNDS):
        for target, ask, figures in turns:
            figure = trio.run(_read_streams, target, ask)
            if number >= 0:
                figures.append(figure)
    return [figures for _target, _ask, figures in turns]


async def _read_streams(target: Target, ask: Ask) -> float:
    """Read streams on some connections at once; return microseconds of CPU for each."""
    request = request_bytes(target, ask)
    streams = 0
    before, until = cpu_seconds(target.pid), time.monotonic() + _SECONDS

    async def read_streams() -> None:
        nonlocal streams
        async with await trio.open_tcp_stream("127.0.0.1", target.port) as stream:
            while time.monotonic() < until:
                await stream.send_all(request)
                got = b""
                while not got.endswith(END):
                    data = await stream.receive_some()
                    if not data:
                        raise RuntimeError(f"{target.name}: connection closed in a stream")
                    got = got[-8:] + data
                streams += 1

    async with trio.open_nursery() as nursery:
        for _ in range(_CONNECTIONS):
            nursery.start_soon(read_streams)
    return (cpu_seconds(target.pid) - before) / streams * 1e6
