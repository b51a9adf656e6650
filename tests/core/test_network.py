"""What the HTTP and websocket parts share, where they do not reach it."""

import sys

import pytest
import trio

from bridgepool import __main__ as command
from bridgepool._network import peer_address, upstream_ssl_context


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
