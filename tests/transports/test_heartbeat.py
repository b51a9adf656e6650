"""Who is asked when, and who is given up; on a clock that is turned by hand."""

import pytest

from bridgepool.transports._heartbeat import Due, Heartbeat
from bridgepool.transports.websocket import WebSocketLimits

LIMITS = WebSocketLimits(heartbeat_interval=45, heartbeat_timeout=20)
LATEST = {False: 45.0, True: 54.0}  # is_server -> when a silent peer has been asked


def begun(*, is_server: bool) -> Heartbeat:
    heartbeat = Heartbeat(0.0)
    heartbeat.begin(LIMITS, is_server=is_server)
    return heartbeat


def test_nobody_is_asked_before_messages_are_exchanged() -> None:
    assert Heartbeat(0.0).look(1e9) is Due.NOTHING


@pytest.mark.parametrize("is_server", [False, True])
def test_a_silent_peer_is_asked_once_and_given_up_when_it_does_not_answer(is_server: bool) -> None:
    heartbeat = begun(is_server=is_server)
    now = LATEST[is_server]
    assert heartbeat.look(now * 0.7) is Due.NOTHING
    assert heartbeat.look(now) is Due.ASK
    heartbeat.note_question(now)
    assert heartbeat.look(now + 19.9) is Due.NOTHING
    assert heartbeat.look(now + 20) is Due.GIVE_UP


@pytest.mark.parametrize("is_server", [False, True])
def test_any_byte_is_an_answer(is_server: bool) -> None:
    heartbeat = begun(is_server=is_server)
    for now in (100.0, 200.0, 300.0):
        assert heartbeat.look(now) is Due.ASK
        heartbeat.note_question(now)
        heartbeat.hear(now + 19)
        assert heartbeat.look(now + 21) is Due.NOTHING


def test_the_client_asks_first_so_that_one_of_the_two_does() -> None:
    for _ in range(100):
        client, server = begun(is_server=False), begun(is_server=True)
        assert client.look(45.0) is Due.ASK
        assert server.look(49.4) is Due.NOTHING


def test_a_question_that_cannot_be_written_gives_nobody_up() -> None:
    heartbeat = begun(is_server=False)
    assert heartbeat.look(45) is Due.ASK
    assert heartbeat.look(500) is Due.NOTHING  # that it is not taken is seen elsewhere
    heartbeat.note_question(500)
    assert heartbeat.look(520) is Due.GIVE_UP


def test_a_question_that_is_written_when_it_is_answered_already_waits_for_nothing() -> None:
    heartbeat = begun(is_server=False)
    assert heartbeat.look(45) is Due.ASK
    heartbeat.hear(46)
    heartbeat.note_question(47)
    assert heartbeat.look(70) is Due.NOTHING


def test_a_client_asks_early_when_nothing_follows_its_message() -> None:
    heartbeat = begun(is_server=False)
    heartbeat.note_message(1)
    heartbeat.note_message(9)  # the first one counts
    assert heartbeat.look(10.9) is Due.NOTHING
    assert heartbeat.look(11) is Due.ASK
    heartbeat.note_question(11)
    assert heartbeat.look(20.9) is Due.NOTHING
    assert heartbeat.look(21) is Due.GIVE_UP


def test_a_server_does_not_for_its_last_word_is_often_an_answer() -> None:
    heartbeat = begun(is_server=True)
    heartbeat.note_message(1)
    assert heartbeat.look(40) is Due.NOTHING
