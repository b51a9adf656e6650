"""Limits of all parts refuse what is not a number, or makes no sense, by the field's name."""

from __future__ import annotations

from math import nan
from typing import Any

import attrs
import pytest

from bridgepool.gateway import AuthorizationLimits, GatewaySettings
from bridgepool.http import HttpLimits, UpstreamLimits
from bridgepool.remote import RemoteLimits
from bridgepool.transports.websocket import WebSocketLimits

KINDS: tuple[Any, ...] = (
    AuthorizationLimits,
    GatewaySettings,
    HttpLimits,
    RemoteLimits,
    UpstreamLimits,
    WebSocketLimits,
)
NUMBERS = [
    (kind, field.name)
    for kind in KINDS
    for field in attrs.fields(attrs.resolve_types(kind))
    if field.type in (int, float)
]


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_is_checked(kind: Any, name: str) -> None:
    kind()
    with pytest.raises((TypeError, ValueError), match=name):
        kind(**{name: "10"})
    for wrong in (-1, nan):
        with pytest.raises(ValueError, match=name):
            kind(**{name: wrong})
