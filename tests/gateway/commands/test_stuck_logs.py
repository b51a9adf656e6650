"""A log that nobody reads stops nothing: neither a request, nor readiness, nor the shutdown."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.http import open_upstream_client
from tests.e2e.files import provider, write
from tests.e2e.process import run_command, run_gateway, run_gateway_of
from tests.plain_http import plain_client

PROMPT = 10  # seconds; without the mend these wait for ever


@contextmanager
def full_pipe() -> Iterator[int]:
    """Yield the end of a pipe that takes no more bytes."""
    reading, writing = os.pipe()
    fill(writing)
    try:
        yield writing
    finally:
        os.close(writing)
        os.close(reading)


def fill(writing: int) -> None:
    """Fill a pipe, and leave it blocking."""
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 65536)
    except BlockingIOError:
        pass
    try:
        while True:
            os.write(writing, b"x")
    except BlockingIOError:
        pass
    os.set_blocking(writing, True)


async def test_a_gateway_whose_log_nobody_reads_serves_and_ends_at_a_signal(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(
        file,
        provider("ai", "openai", north.openai_url),
        provider("gone", "openai", "http://127.0.0.1:9/v1"),
    )
    with full_pipe() as stderr:
        async with run_gateway_of("--providers", str(file), stderr=stderr) as gateway:
            with trio.fail_after(PROMPT):
                async with open_upstream_client(gateway.url) as client:
                    for name, status in (("gone", 502), ("ai", 200), ("gone", 502)):
                        target = f"/{name}/v1/chat/completions".encode()
                        async with client.request(b"POST", target, (), b"{}") as response:
                            assert response.status == status
                    for target in (b"/healthz", b"/readyz"):
                        async with client.request(b"GET", target) as response:
                            assert response.status == 200
                gateway.signal(signal.SIGTERM)
                assert await gateway.process.wait() == 0


async def test_a_gateway_whose_access_log_nobody_reads_serves_and_ends_at_a_signal(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    """Its standard output is a pipe that is full from the first request on."""
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    log = tmp_path / "access.pipe"
    os.mkfifo(log)
    reading = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(log, os.O_WRONLY)
    fill(writing)
    async with run_gateway(file, "--access-log", str(log)) as gateway:
        with trio.fail_after(PROMPT):
            async with open_upstream_client(gateway.url) as client:
                for _ in range(3):
                    target = b"/ai/v1/chat/completions"
                    async with client.request(b"POST", target, (), b"{}") as response:
                        assert response.status == 200
            gateway.signal(signal.SIGTERM)
            assert await gateway.process.wait() == 0
    os.close(reading)
    os.close(writing)


async def test_a_control_plane_whose_log_nobody_reads_serves_and_ends_at_a_signal(
    tmp_path: Path,
) -> None:
    options = ("--listen", "127.0.0.1:0", "--rpc-listen", "127.0.0.1:0", "--log-format", "json")
    store = ("--store", str(tmp_path / "control.db"))
    with full_pipe() as stderr:
        async with run_command("control-plane", *options, *store, stderr=stderr) as run:
            line = await run.stdout.wait_for(lambda line: line.startswith("listening on "))
            with trio.fail_after(PROMPT):
                async with plain_client(line.split()[-1]) as client:
                    assert (await client.get("/readyz")).status_code == 200
                    assert (await client.get("/api/v1/providers")).status_code == 401
                run.signal(signal.SIGTERM)
                assert await run.process.wait() == 0


async def test_a_gateway_that_cannot_start_ends_although_nobody_reads_the_reason(
    tmp_path: Path,
) -> None:
    with full_pipe() as stderr:
        missing = str(tmp_path / "missing.toml")
        async with run_command("gateway", "--providers", missing, stderr=stderr) as run:
            with trio.fail_after(PROMPT):
                assert await run.process.wait() == 2


async def test_lost_log_lines_are_counted_at_readyz(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    """Its log is a pipe whose reader has gone, so that each line fails."""
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    reading, writing = os.pipe()
    os.close(reading)
    async with run_gateway_of("--providers", str(file), stderr=writing) as gateway:
        os.close(writing)
        async with plain_client(gateway.url) as client:
            with trio.fail_after(PROMPT):
                while not (await client.get("/readyz")).json()["log_lines_dropped"]:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.01)
        gateway.signal(signal.SIGTERM)
        assert await gateway.process.wait() == 0


async def test_a_control_plane_counts_lost_log_lines_too(tmp_path: Path) -> None:
    options = ("--listen", "127.0.0.1:0", "--rpc-listen", "127.0.0.1:0", "--log-format", "json")
    store = ("--store", str(tmp_path / "control.db"))
    reading, writing = os.pipe()
    os.close(reading)
    async with run_command("control-plane", *options, *store, stderr=writing) as run:
        os.close(writing)
        line = await run.stdout.wait_for(lambda line: line.startswith("listening on "))
        async with plain_client(line.split()[-1]) as client:
            with trio.fail_after(PROMPT):
                while not (await client.get("/readyz")).json()["log_lines_dropped"]:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.01)
        run.signal(signal.SIGTERM)
        assert await run.process.wait() == 0
