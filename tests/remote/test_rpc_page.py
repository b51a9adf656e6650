"""The page of the protocol names everything that the code has."""

import re
from pathlib import Path

import attrs
import pytest

from bridgepool.gateway import _protocol as gateway
from bridgepool.gateway.control import _gateway_service as control
from bridgepool.gateway.providers import KEYS_LIMIT
from bridgepool.gateway.providers import _wire as wire
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.remote import RemoteLimits
from bridgepool.remote import _codec as codec
from bridgepool.remote import _errors as errors
from bridgepool.remote import _messages as messages
from bridgepool.remote import _owner as owner
from bridgepool.remote._rpc_handlers import MAX_CALLS_IN_FLIGHT, MAX_REASON_CHARACTERS
from bridgepool.transports.websocket import Refused

_PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
_CLASSES = [
    kind
    for module in (messages, gateway, wire)
    for kind in vars(module).values()
    if isinstance(kind, type) and attrs.has(kind) and kind.__module__ == module.__name__
] + [UsageRecord]


@pytest.mark.parametrize("kind", _CLASSES)
def test_the_fields_of_each_message_are_on_the_page(kind: type[attrs.AttrsInstance]) -> None:
    section = _PAGE.partition(f"### {kind.__name__}\n")[2].partition("\n### ")[0]
    fields = {field.name for field in attrs.fields(kind)} - {"unknown"}  # of a row; not sent
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == fields


def test_each_code_is_on_the_page() -> None:
    codes = {text for name, text in vars(errors).items() if name.isupper()}
    assert {code for code in codes if f"`{code}`" not in _PAGE} == set()


@pytest.mark.parametrize(
    "limit",
    [
        codec.MAX_FRAME_BYTES,
        codec.MAX_METHOD_CHARACTERS,
        codec.MAX_CALL_ID,
        MAX_CALLS_IN_FLIGHT,
        MAX_REASON_CHARACTERS,
        messages.MAX_ROWS,
        messages.MAX_SERVICES,
        gateway.MAX_USAGE_RECORDS,
        KEYS_LIMIT,
        wire.MAX_ROW_HEADERS,
    ],
)
def test_each_limit_is_on_the_page(limit: int) -> None:
    assert re.search(rf"\b{limit}\b", _PAGE)


def test_the_delays_between_connections_are_on_the_page() -> None:
    limits = RemoteLimits()
    delays = f"begins at {limits.first_delay:g} s and doubles up to {limits.max_delay:g} s"
    assert delays in _PAGE
    refused = f"from {limits.refused_delay / 2:g} to {limits.refused_delay:g} s"
    assert refused in _PAGE


@pytest.mark.parametrize("refused", [control._NO_KEY, control._UNKNOWN_KEY, owner._UNAVAILABLE])
def test_the_refusals_of_keys_are_on_the_page(refused: Refused) -> None:
    assert f"| {refused.status} | `{refused.code}` |" in _PAGE
