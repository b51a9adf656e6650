"""What gateways together do with the keys of a provider, and when an old one can be revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from bridgepool.gateway.commands._providers import _cooling
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._key_usage import key_usage
from bridgepool.gateway.control._records import KeyView, ProviderView
from bridgepool.gateway.providers._key_status import KeyReport, KeyStatus

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
PROVIDER = ProviderView(
    id="prv_1", name="ai", type="openai", base_url="https://api.example", headers={}, created=NOW,
    updated=NOW, revision=5, keys=(KeyView("key_new", "…", "new"),),
)  # fmt: skip


def status(fingerprint: str = "old", **fields: Any) -> KeyStatus:
    given: dict[str, Any] = {"provider": "ai", "hint": "…", "usable": False, "in_flight": 0}
    return KeyStatus(fingerprint=fingerprint, **(given | fields))


def gateway(
    name: str = "north", *keys: KeyStatus, revision: int | None = 5, epoch: str = "e", **fields: Any
) -> GatewaySession:
    given: dict[str, Any] = {
        "instance": f"instance-{name}", "key_id": "k", "session": "s", "control_plane": "c",
        "connected": True, "since": NOW, "last_contact": NOW, "keys_reported": NOW,
        "provider_keys": KeyReport(revision=revision, epoch=epoch, keys=keys),
    }  # fmt: skip
    return GatewaySession(gateway=name, **(given | fields))


OLD = gateway("first", status())  # has the old key among those that were taken out
STOPPED: dict[str, Any] = {"connected": False, "stopped": True}
AWAY: dict[str, Any] = {"connected": False, "last_contact": NOW - timedelta(hours=1)}


@pytest.mark.parametrize(
    ("others", "silent", "safe"),
    [
        ((), (), "yes"),
        ((gateway(),), (), "yes"),
        ((gateway("north", status(in_flight=1)),), (), "no"),
        ((gateway("north", status(usable=True)),), (), "no"),
        ((gateway("north", status("new", usable=True, in_flight=3)),), (), "yes"),
        ((gateway("north", status(provider="other", in_flight=1)),), (), "yes"),
        ((gateway(revision=4),), (), "no"),
        ((gateway(revision=6),), (), "yes"),
        ((gateway(revision=None),), (), "no"),
        ((gateway(epoch="before a restore"),), (), "no"),
        ((gateway(provider_keys=None),), (), "unknown"),
        ((gateway(connected=False),), (), "unknown"),
        ((gateway(connected=False, reconnecting=True),), (), "unknown"),
        ((gateway(provider_keys=None), gateway("south", status(in_flight=1))), (), "no"),
        ((gateway(**AWAY), gateway(instance="restarted")), (), "yes"),
        ((gateway(**AWAY), gateway("south")), (), "unknown"),
        ((), ("a gateway on the store",), "unknown"),
        ((gateway("gone", **STOPPED),), (), "yes"),
        ((gateway("gone", status(in_flight=1, usable=True), revision=4, **STOPPED),), (), "yes"),
        ((gateway("gone", provider_keys=None, **STOPPED),), (), "yes"),
        ((gateway("gone", **STOPPED), gateway("south", connected=False)), (), "unknown"),
    ],
)
def test_when_an_old_key_is_safe_to_revoke(
    others: tuple[GatewaySession, ...], silent: tuple[str, ...], safe: str
) -> None:
    new, old = key_usage(PROVIDER, (OLD, *others), "e", silent)
    assert (new.fingerprint, new.id, new.safe_to_revoke) == ("new", "key_new", "no")
    assert (old.fingerprint, old.id, old.safe_to_revoke) == ("old", None, safe)


def test_the_reports_of_all_gateways_are_added_up() -> None:
    north = gateway(
        "north",
        status("new", usable=True, in_flight=2, unused_for=10),
        status(in_flight=1, unused_for=60),
    )
    south = gateway(
        "south",
        status("new", usable=True, in_flight=3, cooling="rate_limited", cooling_for=20),
        keys_reported=NOW - timedelta(seconds=5),
    )
    gone = gateway("gone", status("new", in_flight=7, unused_for=3), connected=False)
    new, old = key_usage(PROVIDER, (north, south, gone), "e")
    assert (new.in_flight, new.gateways, new.unknown) == (5, ("north", "south"), ("gone",))
    assert (new.cooling, new.cooling_until) == ("rate_limited", NOW + timedelta(seconds=15))
    assert new.last_used == NOW - timedelta(seconds=3)
    assert (old.in_flight, old.gateways, old.cooling_until) == (1, ("north",), None)
    assert old.last_used == NOW - timedelta(seconds=60)


def test_a_gateway_that_has_not_used_a_provider_yet_can_still_use_its_key() -> None:
    """The key was not safe to revoke, and no gateway was named."""
    gateways = (gateway("idle"), gateway("new", provider_keys=None), gateway("gone", **STOPPED))
    [new] = key_usage(PROVIDER, gateways, "e")
    assert (new.gateways, new.unknown, new.safe_to_revoke) == (("idle",), ("new",), "no")
    [disabled] = key_usage(attrs.evolve(PROVIDER, enabled=False), gateways, "e")
    assert (disabled.gateways, disabled.safe_to_revoke) == ((), "no")


def test_a_gateway_that_stopped_still_tells_when_a_key_was_used_last() -> None:
    used = status(in_flight=2, usable=True, unused_for=60)
    _new, old = key_usage(PROVIDER, (gateway("gone", used, **STOPPED),), "e")
    assert (old.in_flight, old.gateways, old.unknown, old.safe_to_revoke) == (0, (), (), "yes")
    assert old.last_used == NOW - timedelta(seconds=60)


def test_a_key_that_nobody_has_used_is_shown_all_the_same() -> None:
    [new] = key_usage(PROVIDER, (), "e")
    assert (new.in_flight, new.last_used, new.gateways, new.safe_to_revoke) == (0, None, (), "no")


def test_no_request_is_said_to_try_a_key_that_was_taken_out() -> None:
    refused: dict[str, Any] = {"cooling": "refused", "cooling_for": -10.0}
    row = gateway("north", status("new", usable=True, **refused), status(**refused))
    new, old = key_usage(PROVIDER, (row,), "e")
    assert _cooling(new) == "refused; the next request tries it"
    assert _cooling(old) == ""
