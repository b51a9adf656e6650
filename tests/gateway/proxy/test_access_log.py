from __future__ import annotations

import json
import time

import pytest
import trio

from bridgepool.gateway import AccessRecord, Outcome, console_line, json_line
from bridgepool.gateway.proxy import _access_log
from bridgepool.gateway.proxy._usage import usage_record
from bridgepool.gateway.usage._tokens import Tokens, Usage
from tests.gateway.proxy.rig import open_rig


def record() -> AccessRecord:
    return AccessRecord(
        "POST",
        request_id="r-1",
        peer="192.0.2.7:51234",
        path='/ai/v1/"x"\n',
        route="/responses/*",
        attempts=2,
        upstream_status=201,
        upstream_ms=70.25,
        upstream_request_id="up-1",
        bytes_received=99,
        usage=Usage(Tokens(input=7), model="m"),
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
        "request_id": "r-1",
        "peer": "192.0.2.7:51234",
        "client": "ada",
        "key": "k1",
        "provider": "ai",
        "fallback_from": "",
        "generation": 3,
        "method": "POST",
        "path": '/ai/v1/"x"\n',
        "route": "/responses/*",
        "status": 200,
        "bytes": 12,
        "first_byte_ms": 500.0,
        "duration_ms": 1000.0,
        "bytes_received": 99,
        "attempts": 2,
        "upstream_status": 201,
        "upstream_ms": 70.25,
        "upstream_request_id": "up-1",
        "model": "m",
        "input_tokens": 7,
        "output_tokens": None,
        "close_code": 0,
        "outcome": "complete",
        "code": "",
    }


def test_an_answer_that_never_began_has_no_time_of_its_first_byte() -> None:
    gone = record()
    gone.first_byte, gone.outcome = 0.0, Outcome.CLIENT_GONE
    assert json.loads(json_line(gone))["first_byte_ms"] is None


def test_the_logs_of_a_request_have_the_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([f"2026-11-29T00:00:0{second}.000Z" for second in range(10)])
    monkeypatch.setattr(_access_log, "timestamp", lambda: next(clock))
    one = record()
    line, used = json.loads(json_line(one)), usage_record(one)
    assert [used.time, used.first_byte_ms, used.duration_ms] == [
        line["time"],
        line["first_byte_ms"],
        line["duration_ms"],
    ]
    assert usage_record(record()).time != used.time


def test_the_line_for_people_holds_no_control_characters() -> None:
    line = console_line(record()).decode()
    assert line.count("\n") == 1
    assert "ai@3" in line


def test_a_line_costs_microseconds() -> None:
    """At most 15 µs is the promise; the bound is loose because machines are shared."""
    one = record()
    rounds = []
    for _ in range(25):
        start = time.thread_time()  # others run meanwhile
        for _ in range(200):
            json_line(one)
        rounds.append((time.thread_time() - start) / 200)
    assert min(rounds) < 50e-6


async def test_an_observer_that_raises_fails_no_request_and_no_other_observer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[AccessRecord] = []

    def broken(record: AccessRecord) -> None:
        raise ValueError

    async with trio.open_nursery() as nursery:
        async with open_rig(nursery=nursery, observers=[broken, seen.append]) as rig:
            answer = await rig.ask("/nowhere/v1/models")
            await rig.wait_records(1)
        nursery.cancel_scope.cancel()
    assert answer.status == 404
    assert [record.status for record in seen] == [404]
    assert "request observer failed" in caplog.messages
