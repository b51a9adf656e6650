"""What the HTTP and websocket parts share, where they do not reach it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from bridgepool import __main__ as command
from bridgepool._network import describe_failure, peer_address, upstream_ssl_context
from bridgepool._tcp import _connect_to_any


def test_without_truststore_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "truststore", None)
    upstream_ssl_context.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'bridgepool\[http\]'"):
        upstream_ssl_context()


async def test_a_stream_whose_peer_is_gone_has_no_peer_address() -> None:
    with trio.socket.socket() as unconnected:
        assert peer_address(trio.SocketStream(unconnected)) is None


def test_a_missing_module_of_our_own_is_not_taken_for_a_missing_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bridgepool.gateway.commands", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        command.main()
    assert caught.value.name == "bridgepool.gateway.commands"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError("no address can be reached"), "no address can be reached"),
        (trio.BrokenResourceError(), "the connection broke"),
    ],
)
def test_a_failure_is_described_by_what_is_known_of_it(
    error: OSError | trio.BrokenResourceError, reason: str
) -> None:
    assert describe_failure(error) == reason


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (KeyboardInterrupt(), 130),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_a_command_that_is_interrupted_or_not_read_ends_with_a_status_of_its_own(
    raised: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(arguments: list[str]) -> None:
        raise raised

    monkeypatch.setattr("bridgepool.gateway.commands.app", run)
    with (tmp_path / "output").open("w") as output, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as ended:
            command.main()
    assert ended.value.code == status


def test_a_command_without_an_output_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr("bridgepool.gateway.commands.app", lambda arguments: ran.append(True))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        command.main()
    assert ran == [True]


def two_streams() -> Iterator[trio.abc.Stream]:
    yield from trio.testing.memory_stream_pair()


async def test_of_two_addresses_that_answer_together_one_connection_is_closed(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    both = trio.Event()
    streams = two_streams()
    opened: list[trio.abc.Stream] = []

    async def connect(address: str, port: int) -> trio.abc.Stream:
        await both.wait()
        opened.append(next(streams))
        return opened[-1]

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_after, 60.0, both)
        winner = await _connect_to_any(["192.0.2.1", "192.0.2.2"], 80)
    assert winner is opened[0]
    with pytest.raises(trio.ClosedResourceError):
        await opened[1].send_all(b"x")


async def _set_after(seconds: float, event: trio.Event) -> None:
    await trio.sleep(seconds)
    event.set()


@pytest.mark.parametrize("connected", [True, False])
async def test_a_caller_that_leaves_as_it_is_connected_leaves_no_connection(
    connected: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    stream = next(two_streams())

    async def connect(address: str, port: int) -> trio.abc.Stream:
        await trio.sleep(60)
        scope.cancel()
        if not connected:
            await trio.sleep_forever()
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    with trio.CancelScope() as scope:
        await _connect_to_any(["192.0.2.1", "192.0.2.2"], 80)
    assert scope.cancelled_caught
    if connected:
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
    await stream.aclose()
