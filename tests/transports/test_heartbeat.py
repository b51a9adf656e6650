"""When a peer is pinged, and when it is considered dead; time is an argument."""

import pytest

from bridgepool.transports._heartbeat import Due, Heartbeat
from bridgepool.transports.websocket import WebSocketLimits

LIMITS = WebSocketLimits(heartbeat_interval=45, heartbeat_timeout=20)
LATEST = {False: 45.0, True: 54.0}  # is_server -> when a silent peer has been pinged


def begun(*, is_server: bool) -> Heartbeat:
    heartbeat = Heartbeat(0.0)
    heartbeat.begin(LIMITS, is_server=is_server)
    return heartbeat


def test_no_ping_is_due_before_the_handshake_is_complete() -> None:
    assert Heartbeat(0.0).next_step(1e9) is Due.NOTHING


@pytest.mark.parametrize("is_server", [False, True])
def test_a_silent_peer_is_pinged_once_and_dead_when_it_does_not_answer(is_server: bool) -> None:
    heartbeat = begun(is_server=is_server)
    now = LATEST[is_server]
    assert heartbeat.next_step(now * 0.7) is Due.NOTHING
    assert heartbeat.next_step(now) is Due.PING
    heartbeat.note_ping_written(now)
    assert heartbeat.next_step(now + 19.9) is Due.NOTHING
    assert heartbeat.next_step(now + 20) is Due.BREAK


@pytest.mark.parametrize("is_server", [False, True])
def test_any_byte_is_an_answer(is_server: bool) -> None:
    heartbeat = begun(is_server=is_server)
    for now in (100.0, 200.0, 300.0):
        assert heartbeat.next_step(now) is Due.PING
        heartbeat.note_ping_written(now)
        heartbeat.note_received(now + 19)
        assert heartbeat.next_step(now + 21) is Due.NOTHING


def test_the_client_pings_first_so_that_one_of_the_two_does() -> None:
    for _ in range(100):
        client, server = begun(is_server=False), begun(is_server=True)
        assert client.next_step(45.0) is Due.PING
        assert server.next_step(49.4) is Due.NOTHING


def test_a_ping_that_cannot_be_written_breaks_nothing() -> None:
    heartbeat = begun(is_server=False)
    assert heartbeat.next_step(45) is Due.PING
    assert heartbeat.next_step(500) is Due.NOTHING  # a stalled write is seen elsewhere
    heartbeat.note_ping_written(500)
    assert heartbeat.next_step(520) is Due.BREAK


def test_a_ping_that_is_written_when_it_is_answered_already_waits_for_nothing() -> None:
    heartbeat = begun(is_server=False)
    assert heartbeat.next_step(45) is Due.PING
    heartbeat.note_received(46)
    heartbeat.note_ping_written(47)
    assert heartbeat.next_step(70) is Due.NOTHING


def test_a_client_pings_early_when_nothing_follows_its_message() -> None:
    heartbeat = begun(is_server=False)
    heartbeat.note_message_written(1)
    heartbeat.note_message_written(9)  # the first one counts
    assert heartbeat.next_step(10.9) is Due.NOTHING
    assert heartbeat.next_step(11) is Due.PING
    heartbeat.note_ping_written(11)
    assert heartbeat.next_step(20.9) is Due.NOTHING
    assert heartbeat.next_step(21) is Due.BREAK


def test_a_server_does_not_since_its_last_message_is_often_a_response() -> None:
    heartbeat = begun(is_server=True)
    heartbeat.note_message_written(1)
    assert heartbeat.next_step(40) is Due.NOTHING
