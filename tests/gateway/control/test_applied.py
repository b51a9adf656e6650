"""Whether a change is live, judged by what is known of the gateways."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from bridgepool.gateway.control._applied import AppliedReport, Expected, applied_report
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._revisions import Revisions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATEST = Revisions(9, 9, 9, "now")
HERE = GatewaySession(
    instance="i1", gateway="front", key_id="k", session="s1", control_plane="c", connected=True,
    since=NOW, last_contact=NOW, revision=9, epoch="now",
)  # fmt: skip
GONE = attrs.evolve(HERE, instance="i2", connected=False)


def report(*sessions: GatewaySession, expected: Expected = Expected()) -> AppliedReport:  # noqa: B008 -- frozen
    return applied_report(9, sessions, LATEST, expected)


def test_where_nobody_is_connected_nothing_is_applied() -> None:
    for told in (report(), report(GONE)):
        assert (told.complete, told.applied, told.connected) == (True, False, 0)


def test_a_gateway_that_is_reconnecting_counts_as_pending() -> None:
    told = report(HERE, attrs.evolve(GONE, reconnecting=True))
    assert [one.state for one in told.gateways] == ["applied", "reconnecting"]
    assert (told.complete, told.applied, told.connected) == (False, False, 1)


def test_gateways_that_are_offline_are_not_waited_for() -> None:
    told = report(HERE, GONE, attrs.evolve(GONE, stopped=True))
    assert [one.state for one in told.gateways] == ["applied", "offline", "stopped"]
    assert (told.complete, told.applied, told.connected) == (True, True, 1)


def test_a_receipt_of_another_epoch_does_not_count() -> None:
    told = report(attrs.evolve(HERE, epoch="before", revision=9))
    assert [one.state for one in told.gateways] == ["pending"]


@pytest.mark.parametrize(
    ("expected", "complete", "missing"),
    [
        (Expected(("front",)), True, ()),
        (Expected(("front", "back")), False, ("back",)),
        (Expected((), 1), True, ()),
        (Expected((), 2), False, ()),
    ],
)
def test_expected_gateways_are_waited_for_though_they_are_not_connected(
    expected: Expected, complete: bool, missing: tuple[str, ...]
) -> None:
    told = report(HERE, attrs.evolve(GONE, gateway="back"), expected=expected)
    assert (told.complete, told.applied, told.missing) == (complete, complete, missing)


def test_who_is_expected_has_to_serve_the_revision_and_not_only_be_connected() -> None:
    told = report(
        HERE, attrs.evolve(HERE, gateway="back", revision=8), expected=Expected(("back",))
    )
    assert (told.complete, told.missing, told.connected) == (False, ("back",), 2)
