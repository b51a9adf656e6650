from __future__ import annotations

import json
import time

from bridgepool.gateway import AccessRecord, Outcome, console_line, json_line


def record() -> AccessRecord:
    return AccessRecord(
        "POST",
        '/ai/v1/"x"\n',
        started=10.0,
        client="ada",
        key="k1",
        provider="ai",
        generation=3,
        status=200,
        bytes_sent=12,
        first_byte=10.5,
        ended=11.0,
        outcome=Outcome.COMPLETE,
    )


def test_a_line_is_one_json_object_whatever_the_path_holds() -> None:
    line = json_line(record())
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) | {"time": ""} == {
        "time": "",
        "event": "request",
        "client": "ada",
        "key": "k1",
        "provider": "ai",
        "generation": 3,
        "method": "POST",
        "path": '/ai/v1/"x"\n',
        "status": 200,
        "bytes": 12,
        "first_byte_ms": 500.0,
        "duration_ms": 1000.0,
        "outcome": "complete",
        "code": "",
    }


def test_an_answer_that_never_began_has_no_time_of_its_first_byte() -> None:
    gone = record()
    gone.first_byte, gone.outcome = 0.0, Outcome.CLIENT_GONE
    assert json.loads(json_line(gone))["first_byte_ms"] is None


def test_the_line_for_people_holds_no_control_characters() -> None:
    line = console_line(record()).decode()
    assert line.count("\n") == 1
    assert "ai@3" in line


def test_a_line_costs_microseconds() -> None:
    """At most 15 µs is the promise; the bound is loose because machines are shared."""
    one = record()
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(1000):
            json_line(one)
        rounds.append((time.perf_counter() - start) / 1000)
    assert min(rounds) < 50e-6
